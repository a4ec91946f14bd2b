// The contract with frontends, held by every supported client on every transport.

import assert from "node:assert/strict";
import { generateKeyPairSync, sign } from "node:crypto";
import { describe, test } from "node:test";
import { jwt, now } from "./lib/server.mjs";
import { someone, stage } from "./lib/stage.mjs";
import { TRANSPORTS, VERSIONS } from "./lib/tab.mjs";

const rfc3339 = (seconds) => new Date(seconds * 1000).toISOString().replace(".000", "");
const EVENT_ID = /^\d{13}-\d+$/;
const kinds = Object.keys(VERSIONS).flatMap((version) => Object.keys(TRANSPORTS).map((transport) => ({ version, transport })));

describe("every client", () => {
  const { server, tab, worker } = stage("--jwt-issuer", "https://issuer.example", "--jwt-audience", "frontends", "--coalesce", "0");
  const good = { iss: "https://issuer.example", aud: "frontends" };
  const tokenOf = (user, claims) => server.token(user, { ...good, ...claims });
  const connect = (user, kind, more) => tab(user, { token: tokenOf(user), ...kind, ...more });

  for (const kind of kinds) {
    const { version, transport } = kind;
    describe(`socket.io-client ${version} on ${transport}`, () => {
      test("is greeted, told who is online, and hears of jobs with ids", async () => {
        const user = someone();
        const exp = now() + 300;
        const t = await tab(user, { token: tokenOf(user, { exp }), ...kind }).ready();
        const names = () => t.events.map(({ name }) => name).filter((name) => name !== "(upgrade)" && name !== "user_online" && name !== "user_offline");
        assert.deepEqual(names(), ["connect", "authenticated", "online_users"]);
        assert.deepEqual(t.named("authenticated")[0].args, [{ userId: user, expiresAt: rfc3339(exp), recovered: true }]);
        const [online, ...rest] = t.named("online_users")[0].args;
        assert.deepEqual(rest, []);
        assert.ok(online.users.includes(user), JSON.stringify(online));
        assert.equal(online.count, online.users.length);

        const sent = [
          ["job_progress", { jobId: "j", progress: 40, nested: { deep: [1, null, "x"] } }],
          ["job_completed", { jobId: "j", result: { url: "/r/1" } }],
          ["job_failed", { jobId: "k", error: "no luck" }],
          ["invoice.ready", "just text"],
          ["invoice:list", [1, 2, 3]],
        ];
        const ids = [];
        for (const [event, data] of sent) {
          const answer = await worker.send(user, event, data);
          assert.equal(answer.status, "sent");
          assert.equal(answer.sockets, 1);
          assert.match(answer.id, EVENT_ID);
          ids.push(answer.id);
        }
        await t.nth("invoice:list");
        for (const [i, [event, data]] of sent.entries()) {
          assert.deepEqual(t.named(event)[0].args, event === "job_progress" ? [data] : [data, ids[i]]); // progress has no id
        }
        assert.deepEqual(names().slice(3), sent.map(([event]) => event));
      });

      test("handlers of one argument work as they did", async () => {
        const user = someone();
        const t = connect(user, kind);
        const progress = new Promise((resolve) => t.socket.once("job_progress", ({ progress }) => resolve(progress)));
        await t.ready();
        await worker.send(user, "job_progress", { jobId: "j", progress: 7 });
        assert.equal(await progress, 7);
      });

      test("uses the transport it was given", async () => {
        const t = await connect(someone(), kind).ready();
        if (transport === "upgrade") await t.nth("(upgrade)");
        assert.equal(t.transport, transport === "polling" ? "polling" : "websocket");
      });

      test("refreshes its token in place", async () => {
        const user = someone();
        const t = await connect(user, kind).ready();
        const exp = now() + 900;
        assert.deepEqual(await t.ask("authenticate", { token: tokenOf(user, { exp }) }), {
          userId: user,
          expiresAt: rfc3339(exp),
        });
        const codeOf = async (token) => (await t.ask("authenticate", { token })).error?.code;
        assert.equal(await codeOf("garbage"), "token_malformed");
        assert.equal(await codeOf(tokenOf(user, { exp: now() - 3600 })), "token_expired");
        assert.ok(await codeOf(tokenOf(someone("other"))), "another user's token was taken");
        assert.equal(t.socket.connected, true);
      });

      test("asks who is online", async () => {
        const user = someone();
        const t = await connect(user, kind).ready();
        const answer = await t.ask("get_online_users");
        assert.ok(answer.users?.includes(user), JSON.stringify(answer));
        assert.equal(answer.count, answer.users.length);
      });

      test("is refused with the documented code", async () => {
        const user = someone();
        const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
        const claims = { sub: user, exp: now() + 600, ...good };
        const base64url = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
        const rsText = `${base64url({ alg: "RS256", typ: "JWT" })}.${base64url(claims)}`;
        const rs256 = `${rsText}.${sign("sha256", Buffer.from(rsText), privateKey).toString("base64url")}`;
        const cases = [
          ["no token", null, "token_missing"],
          ["an empty token", "", "token_missing"],
          ["garbage", "garbage", "token_malformed"],
          ["a number", 42, "token_malformed"],
          ["three parts of garbage", "a.b.c", "token_malformed"],
          ["an expired token", tokenOf(user, { exp: now() - 3600 }), "token_expired"],
          ["a token of tomorrow", tokenOf(user, { nbf: now() + 3600, exp: now() + 7200 }), "token_not_active"],
          ["alg none", jwt(claims, { alg: "none" }), "token_invalid"],
          ["alg RS256", rs256, "token_invalid"],
          ["another secret", jwt(claims, { secret: "another" }), "token_invalid"],
          ["another audience", tokenOf(user, { aud: "workers" }), "token_invalid"],
          ["no audience", tokenOf(user, { aud: undefined }), "token_invalid"],
          ["another issuer", tokenOf(user, { iss: "https://evil.example" }), "token_invalid"],
          ["no expiry", tokenOf(user, { exp: undefined }), "token_invalid"],
          ["no user", tokenOf(undefined), "token_invalid"],
        ];
        for (const [what, token, code] of cases) {
          const t = tab(user, { token, ...kind });
          const { args } = await t.nth("connect_error");
          assert.equal(args[0].message, "unauthorized", what);
          assert.equal(args[0].data?.code, code, `${what}: ${JSON.stringify(args[0])}`);
          assert.equal(typeof args[0].data.message, "string", what);
          assert.equal(t.named("authenticated").length, 0, what);
          t.close();
        }
        await connect(user, kind).ready(); // and it keeps serving
      });

      test("a token in the query string does not count", async () => {
        const user = someone();
        const t = tab(user, { token: null, query: { token: tokenOf(user), auth: tokenOf(user) }, ...kind });
        assert.equal((await t.nth("connect_error")).args[0].data.code, "token_missing");
      });

      test("a bearer token in the request's header counts", async () => {
        const user = someone();
        const t = await tab(user, { token: null, extraHeaders: { Authorization: `Bearer ${tokenOf(user)}` }, ...kind }).ready();
        assert.equal(t.named("authenticated")[0].args[0].userId, user);
      });

      test("a numeric user id becomes a string", async () => {
        const user = 900_000 + Number(someone("").slice(1));
        const t = await connect(user, kind).ready();
        assert.equal(t.named("authenticated")[0].args[0].userId, String(user));
        await worker.send(String(user), "ping.me", {});
        await t.nth("ping.me");
      });

      test("hears that its token ended, and is closed in a way it comes back from", async () => {
        const user = someone();
        let asked = 0;
        const auth = (send) => {
          asked++;
          send({ token: tokenOf(user, { exp: now() + (asked === 1 ? 2 : 600) }) });
        };
        const t = tab(user, { token: null, auth, ...kind });
        const { args } = await t.nth("unauthorized");
        assert.equal(args.length, 1);
        assert.equal(args[0].code, "token_expired");
        assert.equal(typeof args[0].message, "string");
        await t.nth("disconnect");
        assert.ok(t.events.findIndex(({ name }) => name === "unauthorized") < t.events.findIndex(({ name }) => name === "disconnect"));
        await t.nth("authenticated", 2); // by itself, with the token that auth gave the second time
        assert.equal(asked, 2);
      });

      test("is sent away by a worker", async () => {
        const user = someone();
        const t = await connect(user, kind).ready();
        const { status, body } = await worker.call("POST", `/v1/users/${user}/disconnect`, { reason: "signed out everywhere" });
        assert.deepEqual([status, body], [200, { sockets: 1 }]);
        const { args } = await t.nth("unauthorized");
        assert.equal(args[0].code, "disconnected");
        assert.match(args[0].message, /signed out everywhere/);
        assert.equal((await t.nth("disconnect")).args[0], "io server disconnect"); // which clients do not undo
      });
    });
  }
});

describe("a close in the middle of an upgrade", () => {
  const { tab, worker } = stage();

  for (const version of Object.keys(VERSIONS)) {
    test(`does not swallow what went before it (${version})`, async () => {
      for (let round = 0; round < 25; round++) {
        const user = someone();
        const t = tab(user, { version, transport: "upgrade" });
        const probing = new Promise((resolve) => t.socket.io.on("open", () => t.socket.io.engine.on("upgrading", resolve)));
        await Promise.all([t.ready(), round % 2 ? t.nth("(upgrade)") : probing]);
        await worker.call("POST", `/v1/users/${user}/disconnect`, { reason: "enough" });
        await t.nth("disconnect");
        assert.deepEqual(
          t.events.filter(({ name }) => name === "unauthorized" || name === "disconnect").map(({ args }) => args[0].code ?? args[0]),
          ["disconnected", "io server disconnect"],
          `round ${round}`,
        );
        t.close();
      }
    });
  }
});

describe("origins", () => {
  const { server, tab, worker } = stage("--origins", "https://app.example");
  const from = (origin, transport) => tab(someone(), { transport, extraHeaders: { Origin: origin } });

  for (const transport of Object.keys(TRANSPORTS)) {
    test(`${transport}: the listed one and the server's own may connect`, async () => {
      await from("https://app.example", transport).ready();
      await from(server.url, transport).ready();
    });

    test(`${transport}: any other is refused, and the server keeps serving`, async () => {
      for (const origin of ["https://evil.example", "https://app.example.evil.example", "http://app.example", "null"]) {
        const t = from(origin, transport);
        await t.nth("connect_error");
        assert.equal(t.socket.connected, false, origin);
        assert.equal(t.named("authenticated").length, 0, origin);
        t.close();
      }
      await from("https://app.example", transport).ready();
    });
  }

  test("a refusal is a plain 403 on every method", async () => {
    for (const [method, path] of [
      ["GET", "/socket.io/?EIO=4&transport=polling"],
      ["POST", "/socket.io/?EIO=4&transport=polling&sid=x"],
      ["OPTIONS", "/socket.io/?EIO=4&transport=polling"],
    ]) {
      const answer = await worker.call(method, path, undefined, { Origin: "https://evil.example" });
      assert.equal(answer.status, 403, method);
      assert.equal(answer.headers["access-control-allow-origin"], undefined, method);
    }
  });
});
