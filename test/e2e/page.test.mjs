// What the demo page makes of events, without a browser.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Bursts, Jobs, People, Seen } from "../../web-demo/page/model.js";

test("a repeat is told by its id, and memory is bounded", () => {
  const seen = new Seen();
  assert.equal(seen.add("1-0"), true);
  assert.equal(seen.add("1-0"), false);
  for (let i = 0; i < 6000; i++) seen.add(`2-${i}`);
  assert.equal(seen.add("1-0"), true, "the oldest is forgotten");
  assert.equal(seen.add("2-5999"), false);
});

test("a job runs, stalls, speaks again and ends", () => {
  const jobs = new Jobs();
  const state = () => [jobs.get("j").state, jobs.get("j").progress, jobs.get("j").note];
  jobs.apply("job_progress", { jobId: "j", progress: 40, message: "half" });
  assert.deepEqual(state(), ["running", 40, "half"]);
  jobs.apply("job_stalled", { jobId: "j" });
  assert.equal(state()[0], "stalled");
  jobs.apply("job_progress", { jobId: "j", progress: 50 });
  assert.deepEqual(state(), ["running", 50, ""]);
  jobs.apply("job_failed", { jobId: "j", error: "broken" });
  assert.deepEqual(state(), ["failed", 50, "broken"]);
  jobs.apply("job_progress", { jobId: "j", progress: 5, attempt: 2 });
  jobs.apply("job_completed", { jobId: "j", result: { rows: 3 } });
  assert.deepEqual(state(), ["completed", 100, '{"rows":3}']);
  assert.deepEqual(jobs.unfinished(), []);
});

test("an earlier attempt changes nothing, a higher one begins anew", () => {
  const jobs = new Jobs();
  jobs.apply("job_failed", { jobId: "j", attempt: 1, error: "broken" });
  jobs.apply("job_progress", { jobId: "j", attempt: 2 });
  assert.deepEqual([jobs.get("j").state, jobs.get("j").progress, jobs.get("j").note], ["running", 0, ""]);
  assert.equal(jobs.apply("job_completed", { jobId: "j", attempt: 1 }), null);
  assert.equal(jobs.get("j").state, "running");
});

test("the server's records take the place of what was known", () => {
  const jobs = new Jobs();
  jobs.apply("job_progress", { jobId: "a", progress: 10 });
  jobs.apply("job_progress", { jobId: "old", progress: 5 });
  jobs.snapshot([
    { jobId: "c", state: "stalled", attempt: 0, progress: { jobId: "c", progress: 30 } },
    { jobId: "b", state: "failed", attempt: 2, progress: { progress: 60, title: "B" }, end: { event: "x:failed", data: { error: "no disk" } } },
    { jobId: "a", state: "completed", attempt: 1, end: { event: "job_completed", data: { result: "film", title: "A" } } },
  ]);
  assert.deepEqual(
    jobs.list().map(({ jobId, title, state, progress, note }) => [jobId, title, state, progress, note]),
    [
      ["c", "", "stalled", 30, "Nothing heard from its worker for a while"],
      ["b", "B", "failed", 60, "no disk"],
      ["a", "A", "completed", 100, "film"],
      ["old", "", "running", 5, ""],
    ],
  );
});

test("what is no job is no job", () => {
  const jobs = new Jobs();
  for (const [name, data] of [["note", { jobId: "j" }], ["job_progress", {}], ["job_progress", null], ["job_progress", { jobId: {} }], ["constructor", { jobId: "j" }]]) {
    assert.equal(jobs.apply(name, data), null, name);
  }
  assert.deepEqual(jobs.list(), []);
});

test("odd progress stays within the bar", () => {
  const jobs = new Jobs();
  for (const [progress, shown] of [[-5, 0], [250, 100], ["30", 30], [undefined, 30], ["x", 30], [Infinity, 30]]) {
    jobs.apply("job_progress", { jobId: "j", progress });
    assert.equal(jobs.get("j").progress, shown, String(progress));
  }
});

test("jobs beyond a hundred are forgotten, finished ones first", () => {
  const jobs = new Jobs();
  jobs.apply("job_progress", { jobId: "first" });
  jobs.apply("job_completed", { jobId: "done" });
  for (let i = 0; i < 99; i++) jobs.apply("job_progress", { jobId: `j${i}` }, `${i + 3}-0`);
  assert.equal(jobs.list().length, 100);
  assert.equal(jobs.get("done"), undefined);
  assert.ok(jobs.get("first"));
});

test("a burst knows whether it is whole and in order", () => {
  const bursts = new Bursts();
  const tick = (burst, n) => bursts.apply("burst_tick", { burst, n, of: 3 });
  for (const n of [1, 2, 3]) tick("good", n);
  for (const n of [1, 3]) tick("bad", n);
  const [bad, good] = bursts.list();
  assert.deepEqual([good.received, good.inOrder], [3, true]);
  assert.deepEqual([bad.received, bad.inOrder], [2, false]);
});

test("people come and go, and the count is the server's", () => {
  const people = new People("me");
  people.snapshot({ users: ["bob", "me"], count: 500 });
  people.online("ann");
  people.online("ann");
  assert.equal(people.count, 501);
  people.offline("bob", "2026-01-01T00:00:00Z");
  people.offline("stranger", "2026-01-01T00:00:01Z");
  assert.equal(people.count, 499);
  assert.deepEqual(people.list(), ["me", "ann"]);
  assert.deepEqual(people.lately().map(([user]) => user), ["stranger", "bob"]);
  people.online("bob");
  assert.deepEqual(people.lately().map(([user]) => user), ["stranger"]);
});
