// A tab that reconnects as fast as it can misses nothing that its user was sent.
//
// Two workers post to one user; one tab answers pings, so that it confirms what comes at every moment of the other tab's
// replays; the other tab goes and comes back without a pause. A POST's answer counts the tabs that it was emitted to: when it
// says two, both have it in the end, although only one confirmed it.
//
// RECONNECTS is how many connects there are on all transports together.

import assert from "node:assert/strict";
import { test } from "node:test";
import { higher } from "./lib/chaos.mjs";
import { Server } from "./lib/server.mjs";
import { Tab, TRANSPORTS } from "./lib/tab.mjs";
import { Worker } from "./lib/worker.mjs";

const CONNECTS = Math.ceil(Number(process.env.RECONNECTS ?? 900) / Object.keys(TRANSPORTS).length);

for (const transport of Object.keys(TRANSPORTS)) {
  test(`nothing is lost over ${CONNECTS} reconnects (${transport})`, { timeout: 60_000 + CONNECTS * 100 }, async (t) => {
    const server = new Server(["--handshake-rate", "0", "--presence-audience", "none", "--retention-events", "200000", "--retention-bytes", "1GiB"]);
    const workers = [];
    let steady;
    let restless;
    try {
      await server.start();
      const token = server.token("ada");
      steady = await new Tab(server.url, { transport: "websocket", auth: { token } }).ready();
      steady.record.add = () => {}; // what it records would grow
      steady.frames = { push() {} };
      const seen = new Set(); // ids that the restless tab has seen, over all connections
      const faults = [];
      let last;
      let connects = 0;
      let over = false;
      let greeted = false;
      let restlessly = false;
      restless = new Tab(server.url, { transport, auth: { token }, reconnectionDelay: 1, reconnectionDelayMax: 2, randomizationFactor: 0 });
      restless.record.add = () => {}; // a record of all would grow
      restless.socket.on("connect", () => {
        last = undefined;
        connects++;
      });
      restless.socket.on("row", (_, id) => {
        if (!higher(id, last)) faults.push(`${id} after ${last} in one connection`);
        last = id;
        seen.add(id);
      });
      restless.socket.on("authenticated", ({ recovered }) => {
        greeted = true;
        if (!recovered) faults.push("not recovered");
        if (restlessly && connects < CONNECTS) setImmediate(() => restless.socket.io.engine.close());
      });
      restless.frames = { push() {} };

      // A client that has seen no message yet has no offset to come back with, and is told that it may have missed something.
      const first = new Worker(server);
      workers.push(first);
      const until = async (condition) => {
        while (!condition() && faults.length === 0) await new Promise((resolve) => setTimeout(resolve, 20)); // polls it
      };
      await until(() => greeted);
      const { id: begin } = await first.send("ada", "row", {});
      await until(() => seen.has(begin));
      restlessly = true;
      restless.socket.io.engine.close();

      const answered = []; // ids of the answers that counted both tabs
      let posts = 0;
      const post = async () => {
        const worker = new Worker(server);
        workers.push(worker);
        while (!over) {
          const { id, sockets } = await worker.send("ada", "row", { n: posts++ });
          if (sockets === 2) answered.push(id);
        }
      };
      const posting = [post(), post()];
      await until(() => connects >= CONNECTS);
      over = true;
      await Promise.all(posting);
      const { id } = await first.send("ada", "row", { last: true });
      await until(() => seen.has(id));
      assert.deepEqual(faults, []);
      const lost = answered.filter((each) => !seen.has(each));
      t.diagnostic(`${connects} connects, ${posts} messages, ${answered.length} of them answered "sent, sockets: 2", ${lost.length} lost`);
      assert.deepEqual(lost, []);
      assert.ok(answered.length > 0, "no POST met both tabs");
    } catch (error) {
      throw new Error(`${error.message}\nthe server's log:\n${server.log.slice(-8000)}`, { cause: error });
    } finally {
      steady?.close();
      restless?.close();
      for (const worker of workers) worker.close();
      await server.stop();
    }
  });
}
