// Who is online, over tabs, reloads and tenants.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { someone, stage } from "./lib/stage.mjs";

const GRACE = 700; // ms

/** What tab was told of user after it was ready, in order. */
const heard = (tab, user) =>
  tab.events.filter(({ name, args }) => (name === "user_online" || name === "user_offline") && args[0].userId === user).map(({ name }) => name);

const told = (tab, name, user) => tab.record.until((all) => all.find((event) => event.name === name && event.args[0].userId === user), `${name} of ${user}`);

describe("presence for everyone", () => {
  const { tab, worker } = stage("--presence-grace", `${GRACE}ms`);
  const presence = async (user) => (await worker.call("GET", `/v1/presence/${user}`)).body;

  test("three tabs are one online user", async () => {
    const [watcherName, user] = [someone("watcher"), someone("ada")];
    const watcher = await tab(watcherName).ready();
    const tabs = ["websocket", "polling", "upgrade"].map((transport) => tab(user, { transport }));
    await Promise.all(tabs.map((t) => t.ready()));
    await told(watcher, "user_online", user);
    const answer = await watcher.ask("get_online_users");
    assert.deepEqual(answer, { users: answer.users, count: 2 });
    assert.deepEqual([...answer.users].sort(), [user, watcherName].sort());
    assert.deepEqual(await presence(user), { userId: user, online: true, sockets: 3 });
    assert.deepEqual((await worker.call("GET", "/v1/presence/count")).body, { count: 2 });

    tabs[0].close();
    tabs[1].close();
    await told(watcher, "user_online", user);
    tabs[2].close();
    await told(watcher, "user_offline", user);
    assert.deepEqual(heard(watcher, user), ["user_online", "user_offline"]);
  });

  test("a newcomer is told who is there, and itself is told to the others, not to itself", async () => {
    const [a, b] = [someone("ada"), someone("bob")];
    const first = await tab(a).ready();
    const second = await tab(b).ready();
    await told(first, "user_online", b);
    const [{ users, count }] = second.named("online_users")[0].args;
    assert.ok(users.includes(a) && users.includes(b), users.join());
    assert.equal(count, users.length);
    await second.ask("get_online_users");
    assert.deepEqual(heard(second, b), []);
    const [data, ...more] = first.named("user_online").find(({ args }) => args[0].userId === b).args;
    assert.deepEqual([data, more], [{ userId: b }, []]); // no trailing string: it is not stored
  });

  test("the grace holds also for a client's own disconnect, and counts from the last tab", async () => {
    const [user, remounts] = [someone("ada"), someone("strict")];
    const watcher = await tab(someone("watcher")).ready();
    const [lost, last] = await Promise.all([tab(user).ready(), tab(user).ready()]);
    await told(watcher, "user_online", user);
    lost.cut();
    const page = await tab(remounts).ready();
    await told(watcher, "user_online", remounts);
    page.close();
    await tab(remounts).ready(); // as React does in development
    const closing = Date.now();
    last.close();
    const { args } = await told(watcher, "user_offline", user);
    assert.equal(args.length, 1);
    const seen = Date.parse(args[0].lastSeen);
    assert.ok(seen >= closing - 10 && Date.now() - seen >= GRACE, `closed at ${closing}, last seen ${seen}, told at ${Date.now()}`);
    assert.deepEqual(heard(watcher, remounts), ["user_online"]);
  });

  test("a crowd that comes after a start is known to everybody in the end", async () => {
    const users = Array.from({ length: 130 }, () => someone("crowd"));
    const tabs = await Promise.all(users.map((user, i) => tab(user, { transport: i % 4 ? "websocket" : "polling" }).ready()));
    const known = ({ events }) => {
      let users = new Set();
      for (const { name, args } of events) {
        if (name === "online_users") users = new Set(args[0].users);
        else if (name === "user_online") users.add(args[0].userId);
        else if (name === "user_offline") users.delete(args[0].userId);
      }
      return users;
    };
    await Promise.all(tabs.map((t, i) => t.record.until(() => users.every((user) => known(t).has(user)), `everybody, at tab ${i}`)));
    for (const [i, t] of tabs.entries()) assert.deepEqual(heard(t, users[i]), [], "a tab was told of its own user");
  });

  for (const transport of ["websocket", "polling", "upgrade"]) {
    test(`a reload within the grace shows no flap (${transport})`, async () => {
      const [user, canary] = [someone("ada"), someone("canary")];
      const watcher = await tab(someone("watcher")).ready();
      const old = await tab(user, { transport }).ready();
      const bird = await tab(canary, { transport }).ready();
      await told(watcher, "user_online", user);
      old.cut();
      await tab(user, { transport }).ready(); // the page is back
      bird.cut(); // after the reload, so its offline comes after any that the reload could cause
      await told(watcher, "user_offline", canary);
      assert.deepEqual(heard(watcher, user), ["user_online"]);
      assert.equal((await presence(user)).online, true);
    });
  }

  test("who stays away longer than the grace is offline", async () => {
    const user = someone("ada");
    const watcher = await tab(someone("watcher")).ready();
    const t = await tab(user).ready();
    t.cut();
    await told(watcher, "user_offline", user);
    const state = await presence(user);
    assert.deepEqual([state.online, state.sockets], [false, 0]);
    assert.ok(Date.parse(state.lastSeen), JSON.stringify(state));
  });

  test("workers list, page and query", async () => {
    const users = [someone("q"), someone("q"), someone("q")];
    await Promise.all(users.map((user) => tab(user).ready()));
    const listed = [];
    let cursor = "";
    do {
      const { status, body } = await worker.call("GET", `/v1/presence?limit=2${cursor && `&cursor=${encodeURIComponent(cursor)}`}`);
      assert.equal(status, 200);
      assert.ok(body.users.length <= 2);
      listed.push(...body.users.map(({ userId }) => userId));
      cursor = body.next;
    } while (cursor);
    assert.equal(new Set(listed).size, listed.length);
    for (const user of users) assert.ok(listed.includes(user), `${user} is not in ${listed}`);
    const { body } = await worker.call("POST", "/v1/presence/query", { userIds: [users[1], "nobody", users[0]] });
    assert.deepEqual(body.users.map(({ userId, online }) => [userId, online]), [[users[1], true], ["nobody", false], [users[0], true]]);
  });
});

describe("presence among tenants", () => {
  const { server, tab } = stage("--presence-audience", "tenant", "--presence-grace", "0s");
  const member = (user, tenant) => tab(user, { token: server.token(user, { tenant }) }).ready();

  test("sees its own tenant and nobody else", async () => {
    const [a1, a2, b1, loner] = ["a1", "a2", "b1", "loner"].map(someone);
    const first = await member(a1, "acme");
    const other = await member(b1, "bolt");
    const alone = await tab(loner).ready();
    const second = await member(a2, "acme");
    await told(first, "user_online", a2);
    assert.deepEqual(other.named("online_users")[0].args[0], { users: [b1], count: 1 });
    const { users, count } = second.named("online_users")[0].args[0];
    assert.deepEqual([users.sort(), count], [[a1, a2].sort(), 2]);
    for (const t of [other, alone]) {
      const answer = await t.ask("get_online_users"); // comes behind anything that was wrongly told
      assert.ok(!answer.users.includes(a1) && !answer.users.includes(a2), answer.users.join());
      assert.deepEqual([...heard(t, a1), ...heard(t, a2)], []);
    }
    assert.deepEqual(heard(first, b1), []);
    second.close();
    await told(first, "user_offline", a2);
  });
});

describe("presence for none", () => {
  const { tab, worker } = stage("--presence-audience", "none", "--presence-grace", "0s");

  test("tells nobody, and workers still know", async () => {
    const [a, b] = [someone("ada"), someone("bob")];
    const first = await tab(a).ready();
    const second = await tab(b).ready();
    const answer = await first.ask("get_online_users");
    assert.ok(!answer.users.includes(b), JSON.stringify(answer));
    assert.deepEqual(heard(first, b), []);
    assert.deepEqual((await worker.call("GET", "/v1/presence/count")).body, { count: 2 });
    second.close();
    await worker.send(a, "barrier", {});
    await first.nth("barrier");
    assert.deepEqual(heard(first, b), []);
  });
});
