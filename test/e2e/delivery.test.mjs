// What is posted arrives: all of it, in order, as it was, and with nobody else.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { someone, stage } from "./lib/stage.mjs";
import { TRANSPORTS } from "./lib/tab.mjs";

const COUNT = 1000;
const numbers = Array.from({ length: COUNT }, (_, i) => i + 1);

describe("a thousand events", () => {
  const { tab, worker } = stage("--retention-events", "5000");

  /** Three tabs of one user and one of another. */
  async function audience() {
    const user = someone("ada");
    const tabs = Object.keys(TRANSPORTS).map((transport) => tab(user, { transport }));
    const stranger = tab(someone("bob"), { transport: "websocket" });
    await Promise.all([...tabs, stranger].map((t) => t.ready()));
    return { user, tabs, stranger };
  }

  async function allArrived({ tabs, stranger }, name, ids) {
    assert.equal(new Set(ids).size, COUNT, "two events share an id");
    for (const t of tabs) {
      await t.nth(name, COUNT);
      assert.deepEqual(t.named(name).map(({ args }) => args[0].n), numbers);
      assert.deepEqual(t.named(name).map(({ args }) => args[1]), ids);
    }
    // An event to the stranger travels behind whatever was wrongly sent there before.
    const { userId } = stranger.named("authenticated")[0].args[0];
    await worker.send(userId, "barrier", {});
    await stranger.nth("barrier");
    assert.deepEqual(stranger.named(name), []);
    for (const t of tabs) assert.equal(t.named(name).length, COUNT, "an event came twice");
  }

  test("posted one after another reach every tab in order", async () => {
    const all = await audience();
    const ids = [];
    for (const n of numbers) ids.push((await worker.send(all.user, "tick", { n })).id);
    await allArrived(all, "tick", ids);
  });

  test("posted in batches of a hundred reach every tab in order", async () => {
    const all = await audience();
    const ids = [];
    for (let first = 1; first <= COUNT; first += 100) {
      const events = numbers.slice(first - 1, first + 99).map((n) => ({ userId: all.user, event: "tock", data: { n } }));
      for (const result of await worker.batch(events)) {
        assert.deepEqual([result.status, result.sockets], ["sent", 3]);
        ids.push(result.id);
      }
    }
    await allArrived(all, "tock", ids);
  });

  // Twenty clients; each is posted to from its first request on until its
  // upgrade is over, so the stream spans every moment of the change.
  test("posted while a client upgrades reach it in order", async () => {
    const received = await Promise.all(
      Array.from({ length: 20 }, async () => {
        const user = someone("eve");
        const t = tab(user, { transport: "upgrade" });
        let upgraded = false; // an upgrade that never comes fails below, with what did come
        t.nth("(upgrade)").then(() => (upgraded = true), () => (upgraded = true));
        let sent = 0;
        while (!upgraded || sent < COUNT / 20) await worker.send(user, "mid", { n: ++sent });
        await t.nth("(upgrade)");
        await t.nth("mid", sent);
        assert.deepEqual(t.named("mid").map(({ args }) => args[0].n), Array.from({ length: sent }, (_, i) => i + 1));
        return sent;
      }),
    );
    assert.ok(received.reduce((a, b) => a + b) >= COUNT);
  });
});

describe("the worker's data", () => {
  const { tab, worker } = stage("--coalesce", "0");

  // What a JSON library would change: big integers, number forms, the order of
  // keys, escapes, white space, what HTML escaping touches.
  const raw =
    '{ "z" : 1, "jobId":"j-ü", "a":12345678901234567890123, "float":1.0, "exp":1E+2, "neg":-0,' +
    ' "text":"<b>&\\u2028 \\ud83d\\ude00 😀 日本 \\/ \\"", "nested": {"b":[ ], "a":{ } }, "progress": 50 }';

  for (const transport of Object.keys(TRANSPORTS)) {
    test(`reaches a client byte for byte (${transport})`, async () => {
      const user = someone("raw");
      const t = await tab(user, { transport }).ready();
      const { status, body, text } = await worker.call("POST", "/v1/events", `{"userId":${JSON.stringify(user)},"event":"job_progress","data":${raw}}`);
      assert.equal(status, 202, text);
      const [data] = (await t.nth("job_progress")).args;
      assert.equal(data.text, JSON.parse(raw).text);
      const frame = t.frames.find((packet) => packet.includes("job_progress"));
      assert.match(body.id, /^\d+-\d+$/);
      assert.equal(frame, `2["job_progress",${raw}]`);
    });

    test(`survives in a batch (${transport})`, async () => {
      const user = someone("raw");
      const t = await tab(user, { transport }).ready();
      const item = `{"userId":${JSON.stringify(user)},"event":"job_progress","data":${raw}}`;
      const { status, body, text } = await worker.call("POST", "/v1/events/batch", `{"events":[ ${item} ]}`);
      assert.equal(status, 200, text);
      await t.nth("job_progress");
      assert.equal(body.results[0].status, "sent");
      assert.ok(t.frames.includes(`2["job_progress",${raw}]`), t.frames.join("\n"));
    });
  }

  test("may be any JSON value in an event of the worker's own", async () => {
    const user = someone("any");
    const t = await tab(user).ready();
    const values = [null, true, 0, "text", [], {}, [[]], ""];
    for (const value of values) await worker.send(user, "any", value);
    await t.nth("any", values.length);
    assert.deepEqual(t.named("any").map(({ args }) => args[0]), values);
  });

  test("may be as large as is allowed", async () => {
    const user = someone("large");
    const t = await tab(user).ready();
    await worker.send(user, "large", { text: "ü".repeat(30_000) });
    assert.equal((await t.nth("large")).args[0].text.length, 30_000);
  });
});
