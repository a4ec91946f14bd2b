// The contract with workers: what is refused, with which code, and that the server goes on.

import assert from "node:assert/strict";
import { connect } from "node:net";
import { describe, test } from "node:test";
import { someone, stage } from "./lib/stage.mjs";
import { deadline } from "./lib/wait.mjs";

const event = { userId: "ada", event: "note", data: {} };

describe("the worker API", () => {
  const { server, tab, worker } = stage();

  const refused = async (method, path, body, headers, status, code, why) => {
    const answer = await worker.call(method, path, body, headers);
    assert.equal(answer.status, status, `${why}: ${answer.text}`);
    assert.equal(answer.body?.code, code, `${why}: ${answer.text}`);
    assert.match(answer.headers["content-type"], /^application\/problem\+json/, why);
    for (const member of ["type", "title", "detail"]) assert.equal(typeof answer.body[member], "string", `${why}: ${member}`);
    assert.equal(answer.body.status, status, why);
    assert.ok(answer.headers["x-request-id"], `${why}: no request id`);
    return answer;
  };

  const serves = async () => assert.equal((await worker.send("ada", "note", {})).status, "stored");

  test("wants an API key", async () => {
    for (const [method, path] of [
      ["POST", "/v1/events"],
      ["POST", "/v1/events/batch"],
      ["GET", "/v1/users/ada/jobs"],
      ["POST", "/v1/users/ada/disconnect"],
      ["GET", "/v1/presence"],
      ["GET", "/v1/presence/count"],
      ["GET", "/v1/presence/ada"],
      ["POST", "/v1/presence/query"],
    ]) {
      await refused(method, path, undefined, { Authorization: null }, 401, "api_key_missing", `${path} without a key`);
      await refused(method, path, undefined, { Authorization: `Bearer ${"x".repeat(48)}` }, 401, "api_key_invalid", `${path} with a wrong key`);
      await refused(method, path, undefined, { Authorization: null, "X-API-Key": "x" }, 401, "api_key_invalid", `${path} with a wrong X-API-Key`);
    }
    await refused("POST", "/v1/events", event, { Authorization: `Bearer ${server.token("ada")}` }, 401, "api_key_invalid", "a user's token");
    await serves();
  });

  test("takes the key in X-API-Key too", async () => {
    const answer = await worker.call("POST", "/v1/events", event, { Authorization: null, "X-API-Key": server.key });
    assert.equal(answer.status, 202, answer.text);
  });

  test("refuses events that are not as documented", async () => {
    const deep = `{"userId":"ada","event":"note","data":${"[".repeat(5000)}${"]".repeat(5000)}}`;
    const invalidUTF8 = Buffer.concat([Buffer.from('{"userId":"ada","event":"note","data":"'), Buffer.from([0xff, 0xfe]), Buffer.from('"}')]);
    for (const [why, body, code, status = 400] of [
      ["an unknown field", { ...event, priority: 1 }, "unknown_field"],
      ["a field given twice", '{"userId":"ada","userId":"bob","event":"note","data":{}}', "duplicate_field"],
      ["no user", { event: "note", data: {} }, "missing_field"],
      ["no event", { userId: "ada", data: {} }, "missing_field"],
      ["no data", { userId: "ada", event: "note" }, "missing_field"],
      ["an empty user", { ...event, userId: "" }, "invalid_user_id"],
      ["a long user", { ...event, userId: "a".repeat(129) }, "invalid_user_id"],
      ["a control character in the user", { ...event, userId: "a\nb" }, "invalid_user_id"],
      ["a name with a space", { ...event, event: "a note" }, "invalid_event_name"],
      ["a name that is too long", { ...event, event: "a".repeat(65) }, "invalid_event_name"],
      ["a name that begins with a digit", { ...event, event: "1note" }, "invalid_event_name"],
      ["a name of Socket.IO", { ...event, event: "connect" }, "reserved_event_name"],
      ["another name of Socket.IO", { ...event, event: "disconnecting" }, "reserved_event_name"],
      ["a name of the server", { ...event, event: "user_online" }, "reserved_event_name"],
      ["another name of the server", { ...event, event: "authenticated" }, "reserved_event_name"],
      ["the server's own job event", { ...event, event: "job_stalled", data: { jobId: "j" } }, "reserved_event_name"],
      ["a job event without jobId", { ...event, event: "job_progress", data: { progress: 1 } }, "missing_job_id"],
      ["a finished job without jobId", { ...event, event: "job_completed" }, "missing_job_id"],
      ["a failed job without jobId", { ...event, event: "job_failed" }, "missing_job_id"],
      ["a jobId that is an object", { ...event, event: "job_failed", data: { jobId: {} } }, "invalid_job_id"],
      ["job data that is text", { ...event, event: "job_failed", data: "j" }, "invalid_data"],
      ["broken JSON", '{"userId":"ada",', "invalid_json"],
      ["two JSON values", `${JSON.stringify(event)}{}`, "invalid_json"],
      ["a list", [event], "invalid_json"],
      ["nothing", "", "invalid_json"],
      ["bytes that are not UTF-8", invalidUTF8, "invalid_utf8"],
      ["endless nesting", deep, "too_deep"],
      ["a large body", { ...event, data: "x".repeat(70_000) }, "payload_too_large", 413],
    ]) {
      await refused("POST", "/v1/events", body, {}, status, code, why);
    }
    await serves();
  });

  test("refuses what is not JSON by its type", async () => {
    await refused("POST", "/v1/events", event, { "Content-Type": "text/plain" }, 415, "unsupported_media_type", "text");
    await refused("POST", "/v1/events", event, { "Content-Type": "application/x-www-form-urlencoded" }, 415, "unsupported_media_type", "a form");
  });

  test("refuses a body that grows beyond the limit without saying so first", async () => {
    const socket = connect(server.port, "127.0.0.1");
    let text = "";
    const answered = new Promise((resolve, reject) => {
      socket.setEncoding("utf8").on("data", (chunk) => {
        text += chunk;
        if (text.includes("payload_too_large")) resolve();
      });
      socket.on("error", (error) => (text ? resolve() : reject(error)));
      socket.on("close", resolve);
    });
    socket.write(`POST /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${server.key}\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n`);
    const chunk = `2000\r\n${" ".repeat(0x2000)}\r\n`;
    for (let i = 0; i < 64; i++) socket.write(chunk); // half a megabyte of white space
    await deadline(answered, 10_000, () => `no answer but ${JSON.stringify(text)}`);
    socket.destroy();
    assert.match(text, /^HTTP\/1\.1 413 /);
    await serves();
  });

  test("knows its paths and methods", async () => {
    await refused("GET", "/v1/nothing", undefined, {}, 404, "not_found", "an unknown path");
    await refused("GET", "/nothing", undefined, {}, 404, "not_found", "an unknown path outside /v1");
    const answer = await refused("DELETE", "/v1/events", undefined, {}, 405, "method_not_allowed", "a wrong method");
    assert.match(answer.headers.allow, /POST/);
  });

  test("refuses wrong questions about presence", async () => {
    await refused("GET", "/v1/presence?limit=0", undefined, {}, 400, "invalid_limit", "limit 0");
    await refused("GET", "/v1/presence?limit=many", undefined, {}, 400, "invalid_limit", "limit many");
    await refused("GET", "/v1/presence?cursor=%00", undefined, {}, 400, "invalid_cursor", "a bad cursor");
    await refused("POST", "/v1/presence/query", { userIds: Array(1001).fill("a") }, {}, 413, "batch_too_large", "too many ids");
    await refused("POST", "/v1/presence/query", { users: [] }, {}, 400, "unknown_field", "an unknown field");
  });

  test("a bad item of a batch fails alone", async () => {
    const user = someone("ada");
    const t = await tab(user).ready();
    const good = (n) => ({ userId: user, event: "item", data: { n } });
    const results = await worker.batch([good(1), { ...good(2), event: "connect" }, good(3), { userId: user }, good(4)]);
    assert.deepEqual(results.map(({ status, error }) => status ?? error.code), ["sent", "reserved_event_name", "sent", "missing_field", "sent"]);
    await t.nth("item", 3);
    assert.deepEqual(t.named("item").map(({ args }) => args), [0, 2, 4].map((at, i) => [{ n: [1, 3, 4][i] }, results[at].id]));
  });

  test("refuses a batch that is none", async () => {
    await refused("POST", "/v1/events/batch", { events: {} }, {}, 400, "invalid_json", "an object");
    await refused("POST", "/v1/events/batch", {}, {}, 400, "missing_field", "no events");
    await refused("POST", "/v1/events/batch", { events: [], more: 1 }, {}, 400, "unknown_field", "an unknown field");
    await refused("POST", "/v1/events/batch", { events: Array(1001).fill(event) }, {}, 413, "batch_too_large", "too many");
    await serves();
  });

  test("a repeat with the same Idempotency-Key answers the same and emits nothing", async () => {
    const user = someone("ada");
    const t = await tab(user).ready();
    const post = (data) => worker.call("POST", "/v1/events", { userId: user, event: "once", data }, { "Idempotency-Key": "k-1" });
    const first = await post({ n: 1 });
    const again = await post({ n: 1 });
    assert.deepEqual([again.status, again.body], [first.status, first.body]);
    assert.equal(again.headers["idempotent-replayed"], "true");
    const other = await post({ n: 2 });
    assert.deepEqual([other.status, other.body.code], [422, "idempotency_key_reused"]);
    await worker.send(user, "barrier", {});
    await t.nth("barrier");
    assert.equal(t.named("once").length, 1);
  });

  test("carries the caller's request id", async () => {
    const answer = await worker.call("GET", "/v1/presence/count", undefined, { "X-Request-Id": "trace-42" });
    assert.equal(answer.headers["x-request-id"], "trace-42");
  });

  test("operators see that it lives", async () => {
    for (const path of ["/livez", "/readyz", "/metrics", "/openapi.yaml"]) {
      const answer = await worker.call("GET", path, undefined, { Authorization: null });
      assert.equal(answer.status, 200, path);
    }
  });

  test("neither a token nor a key is logged", () => {
    assert.ok(!server.log.includes(server.key) && !server.log.includes(server.secret) && !server.log.includes("eyJ"), server.log);
  });
});
