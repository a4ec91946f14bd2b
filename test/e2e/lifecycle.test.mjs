// Starting, draining, and coming back.

import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { DRAIN, Server } from "./lib/server.mjs";
import { someone } from "./lib/stage.mjs";
import { Tab, TRANSPORTS } from "./lib/tab.mjs";
import { Worker } from "./lib/worker.mjs";

/** Runs body with a started server; whatever happens, nothing is left behind. */
async function withServer(flags, body) {
  const server = new Server(flags);
  const open = new Set();
  const own = (thing) => {
    open.add(thing);
    return thing;
  };
  try {
    await server.start();
    await body(server, own);
  } finally {
    for (const thing of open) thing.close();
    await server.stop();
  }
}

test("SIGTERM flushes, ends with 0 in time, and clients find the next process by themselves", async () => {
  await withServer([], async (server, own) => {
    const user = someone("ada");
    const byTransport = Object.fromEntries(
      Object.keys(TRANSPORTS).map((transport) => [transport, own(new Tab(server.url, { transport, auth: { token: server.token(user) } }))]),
    );
    const tabs = Object.values(byTransport);
    await Promise.all(tabs.map((t) => t.ready()));
    const worker = own(new Worker(server));
    const numbers = Array.from({ length: 300 }, (_, i) => i);
    const results = await worker.batch(numbers.map((n) => ({ userId: user, event: "last", data: { n } })));
    const took = await server.stop();
    assert.ok(took < DRAIN, `took ${took} ms`);
    for (const [transport, t] of Object.entries(byTransport)) {
      await t.nth("disconnect");
      const before = t.events.slice(0, t.events.findIndex(({ name }) => name === "disconnect")).filter(({ name }) => name === "last");
      assert.equal(before.length, numbers.length, `${transport}: what was answered before the end was not flushed (${JSON.stringify(t.named("disconnect")[0])})`);
      assert.deepEqual(before.map(({ args }) => args), numbers.map((n) => [{ n }, results[n].id]));
      assert.notEqual(t.named("disconnect")[0].args[0], "io server disconnect"); // clients would stay away
    }

    await server.start();
    for (const t of tabs) await t.nth("authenticated", 2);
    const next = own(new Worker(server));
    const { sockets } = await next.send(user, "hello", {});
    assert.equal(sockets, 3);
    for (const t of tabs) await t.nth("hello");
  });
});

test("SIGTERM without clients ends at once", async () => {
  await withServer([], async (server) => {
    const took = await server.stop();
    assert.ok(took < 2_000, `took ${took} ms`);
  });
});

test("a slow client does not hold up the end", async () => {
  await withServer([], async (server, own) => {
    const user = someone("slow");
    const t = await own(new Tab(server.url, { transport: "websocket", auth: { token: server.token(user) } })).ready();
    t.socket.io.engine.transport.ws._socket.pause(); // reads nothing any more
    const worker = own(new Worker(server));
    const filler = "x".repeat(50_000);
    for (let i = 0; i < 40; i++) await worker.send(user, "filler", { filler });
    const took = await server.stop();
    assert.ok(took < DRAIN + 1_000, `took ${took} ms`);
  });
});

test("a wrong configuration stops the start with one message that names every bad key", async () => {
  const server = new Server(["--ping-interval", "soon", "--presence-audience", "friends", "--no-such-flag"]);
  server.secret = "short";
  await assert.rejects(server.start(), (error) => {
    for (const name of ["ping-interval", "presence-audience", "no-such-flag", "jwt-secret"]) assert.match(error.message, new RegExp(name));
    assert.ok(!error.message.includes(server.key), "the key is shown");
    return true;
  });
});

for (const end of ["stop", "kill"]) {
  test(`what was answered for is there after ${end === "kill" ? "kill -9" : "a restart"}`, async () => {
    const dir = mkdtempSync(join(tmpdir(), "jobwire-data-"));
    try {
      await withServer(["--data-dir", dir], async (server, own) => {
        const user = someone("ada");
        const worker = own(new Worker(server));
        await worker.send(user, "job_progress", { jobId: "a", progress: 10 });
        const done = await worker.send(user, "job_completed", { jobId: "a", result: 1 });
        const own_ = await worker.send(user, "invoice", { n: 1 });
        assert.deepEqual([done.status, own_.status], ["stored", "stored"]);
        await server[end]();
        await server.start();
        const t = await own(new Tab(server.url, { auth: { token: server.token(user) } })).ready();
        assert.deepEqual((await t.nth("invoice")).args, [{ n: 1 }, own_.id]);
        assert.deepEqual(t.named("job_completed").map(({ args }) => args), [[{ jobId: "a", result: 1 }, done.id]]);
        const { body } = await own(new Worker(server)).call("GET", `/v1/users/${user}/jobs`);
        assert.deepEqual(body.jobs.map(({ jobId, state, end }) => [jobId, state, end]), [
          ["a", "completed", { event: "job_completed", data: { jobId: "a", result: 1 }, id: done.id }],
        ]);
      });
    } finally {
      rmSync(dir, { recursive: true, force: true });
    }
  });
}
