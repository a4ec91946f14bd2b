// Nothing that was answered for is lost, whatever happens on the way.
//
// Workers post jobs while connections break, clients go offline, pages are
// reloaded and the server is killed and started again on the same data. What
// every page may and must see is judged in lib/chaos.mjs as it arrives. In the
// end:
//
// - every durable event whose POST was answered 202 was seen by at least one
//   page instance of its user (a page that was closed counts with what it had
//   seen), under the id of the answer; a page that keeps an offset has all that
//   were posted since it has one (a closed one: up to the last it had seen);
// - every open page shows the latest accepted progress of every unfinished job;
//   a freshly loaded one shows none of a finished job. What a crash may have
//   taken along of a job's progress is allowed for, and nothing else.
//
// Where a moment is so short that chance hardly finds it (between the read of a
// replay and its end), the tests of delivery/ and realtime/ go there on purpose.
//
// CHAOS=long is five minutes with 200 users. CHAOS_SEED repeats the choices of
// a run, though not its timing; CHAOS_USERS and CHAOS_SECONDS change its size.

import assert from "node:assert/strict";
import { setMaxListeners } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { higher, Ledger, Page, Random, seedOf } from "./lib/chaos.mjs";
import { Server } from "./lib/server.mjs";
import { Tab, TRANSPORTS } from "./lib/tab.mjs";
import { deadline } from "./lib/wait.mjs";
import { Worker } from "./lib/worker.mjs";

const long = process.env.CHAOS === "long";
const USERS = Number(process.env.CHAOS_USERS ?? (long ? 200 : 60));
const SECONDS = Number(process.env.CHAOS_SECONDS ?? (long ? 280 : 12)); // of chaos; the quiet after it comes on top
const KILLS = long ? 14 : 3;
const BUSY = 20; // one user of so many is posted to all the time, and comes and goes all the time
const QUIET = long ? 120_000 : 30_000; // ms, at most
const seed = seedOf(process.env.CHAOS_SEED);

class Chaos {
  ledger = new Ledger();
  pages = [];
  over = false; // no more faults
  #stop = new AbortController(); // the test has ended, well or not
  #running = Promise.resolve(); // resolves when the server is up

  constructor(server) {
    this.server = server;
    setMaxListeners(0, this.#stop.signal); // one a pause
  }

  get stopped() {
    return this.#stop.signal.aborted;
  }

  /** Part of the load, not a wait for anything. Ends early with the test. */
  pause(ms) {
    return sleep(ms, undefined, { signal: this.#stop.signal }).catch(() => {});
  }

  random(name) {
    return new Random(seed, name);
  }

  async start() {
    await this.server.start();
    this.ledger.starts++;
  }

  /** Kills the server a few times, spread over the time there is. */
  async breakServer() {
    const random = this.random("server");
    const begun = performance.now();
    const slot = (1000 * SECONDS) / KILLS;
    for (let i = 0; i < KILLS; i++) {
      await this.pause(begun + slot * (i + random.next()) - performance.now());
      if (this.stopped) return;
      this.ledger.killed();
      this.#running = (async () => {
        await this.server.kill();
        await this.pause(random.between(0, 400)); // somebody has to notice
        await this.start();
      })();
      await this.#running;
    }
  }

  open(user, random) {
    const version = random.pick({ 4.8: 4, 4.5: 1 });
    const transport = random.pick({ websocket: 2, polling: 1, upgrade: 2 });
    const page = new Page(this.ledger, this.server.url, user, { version, transport, token: this.server.token(user) });
    this.pages.push(page);
    return page;
  }

  /** A person whose network and tabs do what they do, until chaos is over. */
  async live(user, busy) {
    const random = this.random(user);
    const tabs = [this.open(user, random)];
    if (random.chance(0.25)) tabs.push(this.open(user, random));
    while (!this.over) {
      await this.pause(busy ? random.between(20, 300) : random.between(200, 2500));
      const at = random.between(0, tabs.length - 1);
      const page = tabs[at];
      switch (random.pick({ cut: 4, deaf: 3, silent: 0.5, offline: 2, reload: 3, open: 0.5, close: 0.5 })) {
        case "cut":
          page.wire.cut();
          break;
        case "deaf":
          page.wire.deafen();
          await this.pause(random.between(20, 600));
          page.wire.cut();
          break;
        case "silent": // until the heartbeat finds out
          page.wire.deafen();
          break;
        case "offline":
          page.socket.disconnect();
          await this.pause(random.between(100, busy ? 500 : 2000));
          page.socket.connect();
          break;
        case "reload":
          page.end({ polite: random.chance(0.3) });
          tabs[at] = this.open(user, random);
          break;
        case "open":
          if (tabs.length < 3) tabs.push(this.open(user, random));
          break;
        case "close":
          if (tabs.length > 1) tabs.splice(at, 1)[0].end({ polite: true });
      }
    }
  }

  /** A worker of that user's jobs. */
  async work(user, busy) {
    const worker = new Worker(this.server);
    try {
      const jobs = Math.max(2, Math.round(SECONDS / 5));
      await Promise.all([
        ...Array.from({ length: jobs }, (_, i) => this.#job(worker, user, `${user}-job${i}`)),
        ...(busy ? [this.#stream(worker, user, `${user}-stream`)] : []),
      ]);
    } finally {
      worker.close();
    }
  }

  async #job(worker, userId, jobId) {
    const random = this.random(jobId);
    await this.pause(random.between(0, SECONDS * 800));
    const steps = random.between(5, 12);
    const slow = random.pick({ 0: 1, 60: 2, 300: 2 });
    const end = random.pick({ completed: 5, failed: 1, again: 1, none: 3 });
    let n = 0;
    const tell = async (event, data = {}) => {
      await this.post(worker, random, { userId, event, data: { user: userId, jobId, n: n++, ...data } });
      await this.pause(random.between(0, slow));
    };
    for (const attempt of end === "again" ? [1, 2] : [1]) {
      for (let step = 0; step <= steps && !this.stopped; step++) {
        // A job without end stays where it is, somewhere on its way.
        await tell("job_progress", { progress: Math.round((100 * step) / (end === "none" ? steps + 5 : steps)), attempt });
        if (random.chance(0.15)) await tell("note", { text: "ü".repeat(random.between(0, 200)) });
      }
      if (end === "again" && attempt === 1) await tell("job_failed", { error: "once more", attempt });
    }
    if (end === "completed" || end === "again") await tell("job_completed", { result: { steps }, attempt: end === "again" ? 2 : 1 });
    if (end === "failed") await tell("job_failed", { error: "it would not", attempt: 1 });
  }

  /** Results without end, so that some come at every moment of a replay. */
  async #stream(worker, userId, jobId) {
    const random = this.random(jobId);
    for (let n = 0; !this.over; n++) {
      await this.post(worker, random, { userId, event: "row", data: { user: userId, jobId, n } });
      await this.pause(random.between(0, 10));
    }
  }

  /** Posts as a careful worker does: again, with the same key, until it is answered. */
  async post(worker, random, body) {
    const key = `${body.data.jobId}#${body.data.n}`;
    const first = performance.now();
    if (random.chance(0.02)) setTimeout(() => worker.close(), random.between(0, 5)); // its network breaks too, under all its calls
    while (!this.stopped) {
      await this.#running;
      const [began, run] = [performance.now(), this.ledger.kills];
      const answer = await worker.call("POST", "/v1/events", body, { "Idempotency-Key": key }).catch(() => null);
      if (answer?.status === 202) {
        this.ledger.accepted(body, answer.body, { began, run, first, repeated: "idempotent-replayed" in answer.headers });
        if (body.event !== "job_progress" && random.chance(0.1)) await this.#postAgain(worker, body, key, answer.body.id);
        return answer.body;
      }
      if (answer && answer.status < 500) return this.ledger.fault(`POST ${JSON.stringify(body)} was answered ${answer.status} ${answer.text}`);
      this.ledger.count.retries++;
      await this.pause(random.between(5, 50)); // as workers back off
    }
  }

  /** A worker that did not trust its answer. */
  async #postAgain(worker, body, key, id) {
    const answer = await worker.call("POST", "/v1/events", body, { "Idempotency-Key": key }).catch(() => null);
    if (answer?.status === 202 && answer.body.id !== id) this.ledger.fault(`${key} of ${body.userId} is ${id}, and ${answer.body.id} when repeated`);
  }

  /** Until the condition holds or an event broke the rules. */
  async until(condition, ms, explain) {
    for (const end = performance.now() + ms; !condition() && this.ledger.faults.length === 0; await sleep(25)) {
      if (performance.now() > end) throw new Error(explain());
    }
  }

  /**
   * A last event to every user. A replay comes before anything newer: what a
   * fresh page has not seen when this arrives, it will never see.
   */
  async barrier(pages) {
    const worker = new Worker(this.server);
    const random = this.random("barrier");
    try {
      await Promise.all(pages.map(({ user }) => this.post(worker, random, { userId: user, event: "barrier", data: { user, jobId: "barrier", n: 0 } })));
      const arrived = (page) => page.seen.has("barrier#0");
      await this.until(() => pages.every(arrived), QUIET, () => `no barrier at\n${pages.filter((page) => !arrived(page)).map((page) => page.describe()).join("\n")}`);
    } finally {
      worker.close();
    }
  }

  /** Until the pages have and show what they must. */
  async complete(pages) {
    const { ledger } = this;
    const wrong = (page) => [...ledger.owed(page), ...ledger.stale(page)];
    await this.until(
      () => ledger.missing().length === 0 && pages.every((page) => wrong(page).length === 0),
      QUIET,
      () => ["after it was answered 202:", ...ledger.missing(), ...pages.flatMap(wrong), ...pages.filter((page) => wrong(page).length > 0).slice(0, 5).map((page) => page.describe())].join("\n"),
    );
  }

  end() {
    this.over = true;
    this.#stop.abort();
    for (const page of this.pages) {
      page.end({ polite: false });
      page.wire.destroy();
    }
  }

  /** Everything one needs to know about a failure. */
  report(error) {
    const { faults, count } = this.ledger;
    return new Error(
      [`CHAOS_SEED=${seed}, ${USERS} users`, error.stack, ...faults, JSON.stringify(count), "the server's log:", this.server.log.slice(-20_000)].join("\n"),
    );
  }
}

test(`${USERS} users lose nothing in ${SECONDS} s of chaos`, { timeout: SECONDS * 1000 + 3 * QUIET }, async (t) => {
  t.diagnostic(`CHAOS_SEED=${seed}`);
  const dir = mkdtempSync(join(tmpdir(), "jobwire-chaos-"));
  const server = new Server(["--data-dir", dir, "--retention-events", "100000", "--retention-bytes", "64MiB", "--handshake-rate", "0", "--presence-grace", "1s", "--ping-interval", "2s", "--ping-timeout", "2s"]);
  const chaos = new Chaos(server);
  const { ledger } = chaos;
  let kills;
  try {
    await chaos.start();
    const users = Array.from({ length: USERS }, (_, i) => `user-${i}`);
    const people = users.map((user, i) => chaos.live(user, i % BUSY === 0));
    const workers = users.map((user, i) => chaos.work(user, i % BUSY === 0));
    kills = chaos.breakServer();
    await Promise.race([Promise.all([chaos.pause(SECONDS * 1000), kills]), Promise.all([...people, ...workers])]); // people end only by failing
    chaos.over = true;
    await Promise.all(people);
    await deadline(Promise.all(workers), QUIET, () => "the workers do not end");

    const open = chaos.pages.filter(({ closed }) => !closed);
    await chaos.complete(open);
    const fresh = users.map((user) => chaos.open(user, chaos.random("fresh")));
    await chaos.until(() => fresh.every((page) => page.named("online_users").length > 0), QUIET, () => "fresh pages do not connect");
    await chaos.barrier(fresh);
    await chaos.complete([...open, ...fresh]);

    assert.deepEqual(chaos.pages.flatMap((page) => ledger.owed(page)), []); // the closed ones too
    assert.deepEqual(fresh.flatMap((page) => ledger.stale(page, { fresh: true })), []);
    assert.deepEqual(ledger.faults, []);
    assert.ok(!/^(panic|fatal error):|level=ERROR/m.test(server.log), "the server had trouble of its own"); // a kill could have hidden it
    const { count } = ledger;
    const unfinished = ledger.users.flatMap(({ jobs }) => [...jobs.values()]).filter(({ progress, end }) => progress.some(({ n }) => n > end)).length;
    // A run in which nothing broke has shown nothing.
    assert.ok(ledger.kills === KILLS && count.retries > 0 && count.connects > 2 * USERS && count.repeats > 0 && unfinished > 0, JSON.stringify(count));
    t.diagnostic(JSON.stringify({ ...count, unfinished, kills: ledger.kills, pages: ledger.pages }));
  } catch (error) {
    throw chaos.report(error);
  } finally {
    chaos.end();
    await kills?.catch(() => {}); // a start that is under way; its failure is thrown above
    await server.stop().finally(() => rmSync(dir, { recursive: true, force: true }));
  }
});

test("a thousand progress POSTs for one job put at most eleven frames a second on the wire, and the last one", { timeout: 60_000 }, async (t) => {
  const dir = mkdtempSync(join(tmpdir(), "jobwire-flood-"));
  const server = new Server(["--data-dir", dir]);
  const worker = new Worker(server);
  const tabs = [];
  try {
    await server.start();
    for (const transport of Object.keys(TRANSPORTS)) {
      const user = `flood-${transport}`;
      const tab = new Tab(server.url, { transport, auth: { token: server.token(user) } });
      tabs.push(tab);
      await tab.ready();
      const arrived = []; // {n, at}
      tab.socket.on("job_progress", ({ n }) => arrived.push({ n, at: performance.now() }));

      let next = 0;
      const answers = [];
      const begun = performance.now();
      await Promise.all(
        Array.from({ length: 32 }, async () => {
          while (next < 1000) {
            const n = next++;
            answers[n] = await worker.send(user, "job_progress", { jobId: "flood", progress: n / 10, n });
          }
        }),
      );
      const posted = performance.now() - begun;
      const order = answers.map(({ id }, n) => ({ id, n })).sort((a, b) => (higher(a.id, b.id) ? 1 : -1));
      const last = order.at(-1);
      await tab.record.until(() => tab.named("job_progress").some(({ args }) => args[0].n === last.n), `the last progress, n=${last.n} id ${last.id}`);
      // Behind the barrier nothing is left that could still come.
      await worker.send(user, "barrier", {});
      await tab.nth("barrier");

      const frames = tab.frames.filter((packet) => packet.includes('"job_progress"')).length;
      const elapsed = arrived.at(-1).at - begun;
      const what = `${transport}: ${frames} frames in ${Math.round(elapsed)} ms of 1,000 POSTs in ${Math.round(posted)} ms`;
      t.diagnostic(what);
      assert.equal(frames, arrived.length);
      assert.deepEqual(arrived.at(-1).n, last.n, `${what}; the last is not the last`);
      const idOf = ({ n }) => answers[n].id; // of the answer: progress has none on the wire
      assert.ok(arrived.every((each, i) => i === 0 || higher(idOf(each), idOf(arrived[i - 1]))), `${what}: ${JSON.stringify(arrived)}`);
      assert.ok(frames <= Math.floor(elapsed / 100) + 1, what);
    }
  } catch (error) {
    throw new Error(`${error.message}\nthe server's log:\n${server.log.slice(-8000)}`, { cause: error });
  } finally {
    for (const tab of tabs) tab.close();
    worker.close();
    await server.stop().finally(() => rmSync(dir, { recursive: true, force: true }));
  }
});
