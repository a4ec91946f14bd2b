// Progress survives a reload, and results wait for their user.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { someone, stage } from "./lib/stage.mjs";
import { Tab, VERSIONS } from "./lib/tab.mjs";

describe("replay", () => {
  const { server, tab, worker } = stage("--presence-grace", "0s");
  const barrier = async (t, user) => {
    const { id } = await worker.send(user, "barrier", {});
    await t.record.until(() => t.named("barrier").some(({ args }) => args[1] === id), "the barrier");
  };

  for (const version of Object.keys(VERSIONS)) {
    test(`a result that came while the user was away is there on return (${version})`, async () => {
      const user = someone("ada");
      await worker.send(user, "job_progress", { jobId: "j", progress: 50 });
      const { id, status, sockets } = await worker.send(user, "job_completed", { jobId: "j", result: 42 });
      assert.deepEqual([status, sockets], ["stored", 0]);
      const t = await tab(user, { version }).ready();
      assert.deepEqual((await t.nth("job_completed")).args, [{ jobId: "j", result: 42 }, id]);
    });

    test(`a page reload in mid-job shows the latest progress of every unfinished job (${version})`, async () => {
      const user = someone("ada");
      const before = await tab(user, { version }).ready();
      await worker.send(user, "job_completed", { jobId: "done", result: 1 });
      for (const progress of [10, 20, 30]) await worker.send(user, "job_progress", { jobId: "a", progress });
      await worker.send(user, "job_progress", { jobId: "b", progress: 5 });
      await before.record.until(() => before.named("job_progress").some(({ args }) => args[0].jobId === "a" && args[0].progress === 30), "30 %");
      before.cut();
      const t = await tab(user, { version }).ready();
      await barrier(t, user);
      const latest = Object.fromEntries(t.named("job_progress").map(({ args }) => [args[0].jobId, args[0].progress]));
      assert.deepEqual(latest, { a: 30, b: 5 });
    });
  }

  test("a client that was cut off gets what it missed, once and in order, before anything newer", async () => {
    const user = someone("ada");
    const t = await tab(user, { version: "4.8" }).ready();
    const first = await worker.send(user, "note", { n: 1 });
    await t.nth("note");
    t.socket.io.engine.close(); // the network went; the client comes back by itself
    const missed = await worker.batch([2, 3, 4].map((n) => ({ userId: user, event: "note", data: { n } })));
    await t.nth("authenticated", 2);
    await barrier(t, user);
    assert.deepEqual(t.named("note").map(({ args }) => args), [[{ n: 1 }, first.id], ...missed.map(({ id }, i) => [{ n: i + 2 }, id])]);
  });

  test("what a client has confirmed is not sent to the next device", async () => {
    const user = someone("ada");
    const t = await tab(user).ready();
    const confirmed = await worker.call("POST", "/v1/events", { userId: user, event: "note", data: {} }, { Prefer: "wait=10" });
    assert.equal(confirmed.body.delivered, true, confirmed.text);
    const other = await tab(user).ready();
    await barrier(other, user);
    assert.equal(other.named("note").length, 0);
    assert.equal(t.named("note").length, 1);
  });

  test("Prefer: wait tells when nobody confirms", async () => {
    const { body } = await worker.call("POST", "/v1/events", { userId: someone("nobody"), event: "note", data: {} }, { Prefer: "wait=1" });
    assert.deepEqual([body.status, body.delivered], ["stored", false]);
  });

  test("a silent worker's job is told to be stalled, once, until it speaks again", async () => {
    const user = someone("ada");
    const t = await tab(user).ready();
    await worker.send(user, "job_progress", { jobId: "s", progress: 1 }, { staleAfter: 0.3 });
    const { args } = await t.nth("job_stalled");
    assert.equal(args[0].jobId, "s");
    assert.ok(Date.parse(args[0].lastEventAt), JSON.stringify(args[0]));
    const state = async () => (await worker.call("GET", `/v1/users/${user}/jobs`)).body.jobs.find(({ jobId }) => jobId === "s").state;
    assert.equal(await state(), "stalled");
    await worker.send(user, "job_progress", { jobId: "s", progress: 2 });
    await t.nth("job_progress", 2);
    assert.equal(await state(), "running");
    assert.equal(t.named("job_stalled").length, 1);
  });

  test("a flood of progress is thinned out, and its last one comes", async () => {
    const user = someone("ada");
    const t = await tab(user).ready();
    const begun = performance.now();
    for (let first = 1; first <= 1000; first += 50) {
      await worker.batch(Array.from({ length: 50 }, (_, i) => ({ userId: user, event: "job_progress", data: { jobId: "f", progress: (first + i) / 10 } })));
    }
    await t.record.until(() => t.named("job_progress").some(({ args }) => args[0].progress === 100), "100 %");
    const seconds = (performance.now() - begun) / 1000;
    const seen = t.named("job_progress").map(({ args }) => args[0].progress);
    assert.deepEqual(seen, [...seen].sort((a, b) => a - b));
    assert.ok(seen.length <= 2 + 10 * seconds, `${seen.length} in ${seconds} s`);
  });

  test("progress after the end is ignored, unless it is a new attempt", async () => {
    const user = someone("ada");
    const t = await tab(user).ready();
    await worker.send(user, "job_failed", { jobId: "r", error: "x", attempt: 1 });
    const late = await worker.send(user, "job_progress", { jobId: "r", progress: 99, attempt: 1 });
    assert.deepEqual([late.status, late.reason, late.id], ["ignored", "job_finished", null]);
    await worker.send(user, "job_progress", { jobId: "r", progress: 1, attempt: 2 });
    assert.equal((await t.nth("job_progress")).args[0].progress, 1);
  });
});
