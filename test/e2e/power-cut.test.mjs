// kill -9 between the answer and anything else: what was answered is there.
//
// Round after round on the same data: workers post durable events at the same
// time, the server is killed in the moment in which a certain answer arrives,
// and is started again; then a fresh page of every user must show every event
// that was answered. In every other round pages are open as the server dies,
// so that receipts are on their way too: then what they have seen counts.
//
// What the kernel had taken survives a kill. That the disk has it as well is a
// matter of fsync, which internal/store/embedded sees to.
//
// POWERCUTS is the number of rounds; POWERCUT_SEED repeats their choices.

import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { higher, Random, seedOf } from "./lib/chaos.mjs";
import { Server } from "./lib/server.mjs";
import { Tab } from "./lib/tab.mjs";
import { deadline } from "./lib/wait.mjs";
import { Worker } from "./lib/worker.mjs";

const ROUNDS = Number(process.env.POWERCUTS ?? 15);
const USERS = ["ada", "bob", "eve"];
const WORKERS = 8;
const seed = seedOf(process.env.POWERCUT_SEED);
const random = new Random(seed);

class PowerCut {
  seen = new Map(); // "user id" → what it was, over all rounds and pages
  faults = [];
  answered = 0;
  waiting = 0; // POSTs that were under way as the server died
  highest = new Map(); // user → the highest id that was answered or seen

  constructor(server) {
    this.server = server;
  }

  open(user) {
    const tab = new Tab(this.server.url, { transport: "websocket", auth: { token: this.server.token(user) } });
    tab.socket.onAny((name, data, id) => {
      if (!id) return;
      const what = `${name} ${data.key}`;
      const before = this.seen.get(`${user} ${id}`) ?? what;
      if (before !== what) this.faults.push(`${id} of ${user} is ${before}, and ${what}`);
      this.seen.set(`${user} ${id}`, what);
    });
    return tab;
  }

  /** Posts from all workers until the answer with that number, and kills. Resolves to all that was answered. */
  async cut(round, killAt) {
    const { server } = this;
    const answered = []; // {user, event, key, id}
    let dead = null;
    let number = 0;
    const told = (items, results) => {
      for (const [i, { id }] of results.entries()) answered.push({ ...items[i], id });
      this.answered += results.length;
      if (++number === killAt) dead = server.kill(); // the signal is sent before this returns
    };
    const workers = Array.from({ length: WORKERS }, () => new Worker(server));
    const post = async (worker, n) => {
      for (let i = 0; !dead; i++) {
        const items = Array.from({ length: n % 4 === 0 ? 3 : 1 }, (_, j) => {
          const key = `${round}-${n}-${i}-${j}`;
          const event = ["job_completed", "job_failed", "note"][(i + j) % 3];
          return { user: USERS[(n + j) % USERS.length], event, key };
        });
        const bodies = items.map(({ user, event, key }) => ({ userId: user, event, data: { jobId: key, key }, ...(n % 2 && { idempotencyKey: key }) }));
        try {
          if (bodies.length > 1) told(items, await worker.batch(bodies));
          else told(items, [await worker.send(bodies[0].userId, bodies[0].event, bodies[0].data, n % 2 ? { idempotencyKey: items[0].key } : {})]);
        } catch (error) {
          if (!dead) throw error;
          this.waiting++;
        }
      }
    };
    try {
      await deadline(Promise.all(workers.map(post)), 30_000, () => `${number} answers, ${killAt} were expected`);
    } finally {
      for (const worker of workers) worker.close();
      await dead;
    }
    return answered;
  }

  /** Fresh pages of all users, once they have seen everything that a replay brings. */
  async replayed(round) {
    const worker = new Worker(this.server);
    const tabs = USERS.map((user) => this.open(user));
    try {
      await Promise.all(tabs.map((tab) => tab.ready()));
      for (const [i, user] of USERS.entries()) {
        // Comes after the replay; nothing of it is still on its way then.
        const { id } = await worker.send(user, "barrier", { key: `barrier-${round}` });
        assert.ok(higher(id, this.highest.get(user)), `${user} was given ${id} after ${this.highest.get(user)}`);
        await tabs[i].record.until(() => tabs[i].named("barrier").some(({ args }) => args[1] === id), `the barrier ${id} of ${user}`);
        const ids = tabs[i].events.map(({ args }) => args[1]).filter((id) => id);
        assert.ok(ids.every((id, at) => higher(id, ids[at - 1])), `${user}: ${ids} do not rise`);
      }
    } finally {
      for (const tab of tabs) tab.close();
      worker.close();
    }
  }

  async round(round) {
    const watched = round % 2 === 1;
    const tabs = watched ? USERS.map((user) => this.open(user)) : [];
    let answered;
    try {
      await Promise.all(tabs.map((tab) => tab.ready()));
      answered = await this.cut(round, random.between(1, 40));
    } finally {
      for (const tab of tabs) tab.close();
    }
    for (const { user, id } of answered) if (higher(id, this.highest.get(user))) this.highest.set(user, id);
    await this.server.start();
    await this.replayed(round);
    return answered.filter(({ user, event, key, id }) => this.seen.get(`${user} ${id}`) !== `${event} ${key}`);
  }
}

test(`${ROUNDS} power cuts lose nothing that was answered`, { timeout: 60_000 + ROUNDS * 10_000 }, async (t) => {
  t.diagnostic(`POWERCUT_SEED=${seed}`);
  const dir = mkdtempSync(join(tmpdir(), "jobwire-power-"));
  const server = new Server(["--data-dir", dir, "--presence-audience", "none"]);
  const cuts = new PowerCut(server);
  try {
    await server.start();
    for (let round = 0; round < ROUNDS; round++) {
      const missing = await cuts.round(round);
      assert.deepEqual(missing, [], `answered and missing after cut ${round}`);
      assert.deepEqual(cuts.faults, []);
    }
    assert.ok(cuts.waiting > 0, "no POST was under way as the server died");
    t.diagnostic(`${cuts.answered} durable events were answered, ${cuts.waiting} POSTs were cut off, 0 are missing`);
  } catch (error) {
    throw new Error(`POWERCUT_SEED=${seed}: ${error.message}\nthe server's log:\n${server.log.slice(-8000)}`, { cause: error });
  } finally {
    await server.stop().finally(() => rmSync(dir, { recursive: true, force: true }));
  }
});
