// Jobs are state: a client asks for its own, and events of any name can be about one.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { someone, stage } from "./lib/stage.mjs";
import { TRANSPORTS } from "./lib/tab.mjs";

describe("jobs", () => {
  const { tab, worker } = stage("--event-rate", "0");

  test("get_jobs tells a client its own jobs, with progress and end, and the API tells the same", async () => {
    const user = someone("ada");
    await worker.send(someone("bob"), "job_progress", { jobId: "other", progress: 1 });
    await worker.send(user, "job_progress", { jobId: "a", progress: 30, attempt: 2 });
    const done = await worker.send(user, "job_completed", { jobId: "a", result: { rows: 3 }, attempt: 2 });
    await worker.send(user, "job_progress", { jobId: "b", progress: 5 });
    const t = await tab(user).ready();
    const { jobs, next, ...rest } = await t.ask("get_jobs", {});
    assert.deepEqual([next, rest], [undefined, {}]);
    assert.deepEqual(
      jobs.map(({ jobId, state, attempt, progress, end }) => ({ jobId, state, attempt, progress, end })),
      [
        { jobId: "b", state: "running", attempt: 0, progress: { jobId: "b", progress: 5 }, end: undefined },
        {
          jobId: "a",
          state: "completed",
          attempt: 2,
          progress: { jobId: "a", progress: 30, attempt: 2 },
          end: { event: "job_completed", data: { jobId: "a", result: { rows: 3 }, attempt: 2 }, id: done.id },
        },
      ],
    );
    for (const { startedAt, updatedAt } of jobs) assert.ok(Date.parse(startedAt) <= Date.parse(updatedAt));
    assert.deepEqual((await worker.call("GET", `/v1/users/${user}/jobs`)).body.jobs, jobs);
  });

  test("pages of jobs go back in time, and none comes twice", async () => {
    const user = someone("ada");
    const items = Array.from({ length: 120 }, (_, i) => ({ userId: user, event: "job_progress", data: { jobId: `job-${i}`, progress: 1 } }));
    await worker.batch(items);
    const t = await tab(user).ready();
    const seen = [];
    for (let before; ; ) {
      const { jobs, next } = await t.ask("get_jobs", { limit: 50, ...(before && { before }) });
      seen.push(...jobs.map(({ jobId }) => jobId));
      if (!next) break;
      before = next;
    }
    assert.deepEqual(seen, items.map(({ data }) => data.jobId).reverse());
  });

  test("wrong questions are answered with a code, and five hundred in a row are answered", async () => {
    const t = await tab(someone("ada")).ready();
    assert.equal((await t.ask("get_jobs", { limit: "many" })).error.code, "invalid_payload");
    assert.ok((await t.ask("get_jobs", { before: "yesterday" })).error.code);
    const answers = await Promise.all(Array.from({ length: 500 }, () => t.ask("get_jobs", {})));
    assert.ok(answers.every(({ jobs }) => jobs.length === 0));
  });

  test("events of an own name with a kind are a job's, whatever their data", async () => {
    const user = someone("ada");
    const t = await tab(user).ready();
    const about = (kind, attempt) => ({ kind, jobId: 7, ...(attempt && { attempt }) });
    await worker.send(user, "video:progress", "12 %", about("progress", 1));
    assert.deepEqual((await t.nth("video:progress")).args, ["12 %", null]); // a string at the end would become the client's offset
    const done = await worker.send(user, "video:done", [1, 2], about("completed", 1));
    assert.deepEqual((await t.nth("video:done")).args, [[1, 2], done.id]);
    const late = await worker.send(user, "video:progress", "99 %", about("progress", 1));
    assert.deepEqual([late.status, late.reason], ["ignored", "job_finished"]);
    const earlier = await worker.send(user, "video:progress", "1 %", { kind: "progress", jobId: "7", attempt: 0 });
    assert.deepEqual([earlier.status, earlier.reason], ["ignored", "attempt_superseded"]);
    const { jobs } = await t.ask("get_jobs", {});
    assert.deepEqual(jobs.map(({ jobId, state, progress, end }) => [jobId, state, progress, end]), [
      ["7", "completed", "12 %", { event: "video:done", data: [1, 2], id: done.id }],
    ]);
    const { status, body } = await worker.call("POST", "/v1/events", { userId: user, event: "job_completed", kind: "failed", data: { jobId: "7" } });
    assert.deepEqual([status, body.code], [400, "field_conflict"]);
  });

  test("a thousand events of an own name with kind progress are few on the wire and push out nothing", async () => {
    const user = someone("ada");
    const result = await worker.send(user, "job_completed", { jobId: "kept", result: 1 });
    const t = await tab(user).ready();
    await t.nth("job_completed");
    const begun = performance.now();
    for (let first = 1; first <= 1000; first += 50) {
      await worker.batch(Array.from({ length: 50 }, (_, i) => ({ userId: user, event: "video:progress", kind: "progress", jobId: "v", data: { n: first + i } })));
    }
    await t.record.until(() => t.named("video:progress").some(({ args }) => args[0].n === 1000), "the last progress");
    const seconds = (performance.now() - begun) / 1000;
    const seen = t.named("video:progress").map(({ args }) => args[0].n);
    assert.ok(seen.length <= 1 + 10 * seconds + 1, `${seen.length} in ${seconds} s`);
    assert.deepEqual(seen, [...seen].sort((a, b) => a - b));
    const { jobs } = await t.ask("get_jobs", {});
    assert.equal(jobs.find(({ jobId }) => jobId === "kept").end.id, result.id);
  });

  for (const transport of Object.keys(TRANSPORTS)) {
    test(`get_jobs never says "running" after an end was shown (${transport})`, async () => {
      const user = someone("ada");
      const t = await tab(user, { transport }).ready();
      const ended = new Set();
      t.socket.on("job_completed", ({ jobId }) => ended.add(jobId));
      let over = false;
      const posting = (async () => {
        for (let n = 0; n < 60; n++) {
          await worker.send(user, "job_progress", { jobId: `j${n}`, progress: 50 });
          await worker.send(user, "job_completed", { jobId: `j${n}`, result: n });
        }
        over = true;
      })();
      while (!over) {
        // In the callback of the ack: what the client has seen by then was sent before the answer.
        await new Promise((resolve, reject) => {
          t.socket.emit("get_jobs", { limit: 200 }, ({ jobs, error }) => {
            if (error) return reject(new Error(error.code));
            const wrong = jobs.filter(({ jobId, state }) => state === "running" && ended.has(jobId));
            const unknown = jobs.filter(({ jobId, state }) => state === "completed" && !ended.has(jobId));
            if (wrong.length || unknown.length) reject(new Error(JSON.stringify({ wrong, unknown })));
            resolve();
          });
        });
      }
      await posting;
    });
  }
});
