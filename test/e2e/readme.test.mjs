// The README is the first thing people try, so it is held to the program.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { binary, now, Server } from "./lib/server.mjs";
import { Tab, VERSIONS } from "./lib/tab.mjs";
import { Record } from "./lib/wait.mjs";
import { Worker } from "./lib/worker.mjs";

const readme = readFileSync(new URL("../../README.md", import.meta.url), "utf8");
const help = execFileSync(binary(), ["--help"], { encoding: "utf8" });

/** Every flag of --help with its default, "" for none. */
const flags = Object.fromEntries(
  [...help.matchAll(/^ {2}(--[a-z-]+).*\n((?: {6}.*\n)+)/gm)].map(([, flag, text]) => [flag, /\(default ([^)]+)\)/.exec(text)?.[1] ?? ""]),
);

test("names flags that there are, with their defaults", () => {
  const rows = [...readme.matchAll(/^\| (`--[^|]+)\|([^|]*)\|/gm)];
  assert.ok(rows.length > 8, "the table of flags was not found");
  for (const [, names, preset] of rows) {
    for (const [flag] of names.matchAll(/--[a-z-]+/g)) assert.equal(flags[flag], preset.trim().replaceAll("`", ""), flag);
  }
  for (const [flag] of readme.matchAll(/(?<=[ `])--[a-z][a-z-]+/g)) {
    assert.ok(flag in flags || ["--user", "--help"].includes(flag), `${flag} is not in --help`);
  }
});

test("names variables as the program does", () => {
  for (const [name] of readme.matchAll(/JOBWIRE_[A-Z_]+/g)) assert.ok(help.includes(`${name}\n`), `${name} is not in --help`);
});

test("names targets of make that there are", () => {
  const makefile = readFileSync(new URL("../../Makefile", import.meta.url), "utf8");
  const targets = [...readme.matchAll(/(?:^|`)make ([a-z]+)/gm)].map(([, target]) => target);
  assert.ok(targets.includes("demo"), targets.join());
  for (const target of targets) assert.ok(makefile.includes(`\n${target}:`), target);
});

test("the proxy keeps the port of the host, or pages of the same origin on other ports than 80 and 443 are refused", () => {
  assert.deepEqual([...readme.matchAll(/proxy_set_header Host (\S+);/g)].map(([, host]) => host), ["$http_host"]);
});

test("links to files that there are", () => {
  for (const [, path] of readme.matchAll(/\]\((?!http)([^)#]+)\)/g)) readFileSync(new URL(`../../${path}`, import.meta.url));
});

test("the frontend's code survives a token that cannot be had, one that has expired, and one that expires", { timeout: 60_000 }, async () => {
  const code = /```js\n(import \{ io \}[\s\S]*?)```/.exec(readme)[1].replace(/^import .*\n/, "");
  const server = new Server(["--presence-grace", "10ms"]);
  const record = new Record();
  const warned = [];
  let asked = 0;
  let connects = 0;
  const token = async () => {
    if (++asked === 1) throw new Error("the backend is away");
    if (asked === 2) return server.token("ada", { exp: now() - 100 });
    return connects === 0 ? server.token("ada", { exp: now() + 2 }) : server.token("ada"); // soon over, until one was let in
  };
  const page = {
    io: (_, options) => {
      socket = VERSIONS["4.8"](server.url, { ...options, forceNew: true, reconnectionDelay: 10 });
      socket.on("connect", () => record.add({ connects: ++connects }));
      return socket;
    },
    getToken: token,
    bar: (job) => ({
      set: (progress) => record.add({ job, progress }),
      done: (result) => record.add({ job, result }),
      failed: (error) => record.add({ job, error }),
    }),
    show: (job) => record.add({ shown: job.jobId, state: job.state }),
    light: (user, on) => record.add({ user, on }),
    console: { warn: (...words) => warned.push(words.join(" ")) },
    setTimeout: (retry, ms) => {
      record.add({ retries: ms });
      setImmediate(retry);
    },
  };
  let socket;
  let other;
  const worker = new Worker(server);
  try {
    await server.start();
    new Function(...Object.keys(page), code)(...Object.values(page));
    const connected = (n) => record.until((all) => all.some(({ connects }) => connects === n), `connect ${n}`);
    await connected(1);
    assert.deepEqual(warned.slice(0, 2), ["unauthorized token_missing", "unauthorized token_expired"]);
    await connected(2); // its token has expired, and it has come back with a fresh one
    assert.ok(warned.slice(2).every((words) => words === "unauthorized token_expired"), warned.join()); // on its way, on a busy machine
    assert.ok(record.all.every(({ retries }) => retries === undefined || retries === 5000));
    await worker.send("ada", "job_progress", { jobId: "j", progress: 40 });
    await worker.send("ada", "job_completed", { jobId: "j", result: "r" });
    await worker.send("ada", "job_failed", { jobId: "k", error: "e" });
    await record.until((all) => all.find(({ error }) => error === "e"), "the last event");
    assert.deepEqual(record.all.filter(({ job }) => job), [{ job: "j", progress: 40 }, { job: "j", result: "r" }, { job: "k", error: "e" }]);
    other = await new Tab(server.url, { auth: { token: server.token("bob") } }).ready();
    await record.until((all) => all.find(({ user, on }) => user === "bob" && on), "bob's light");
    other.close();
    await record.until((all) => all.find(({ user, on }) => user === "bob" && on === false), "bob's light goes out");
    socket.io.engine.close();
    await record.until((all) => all.find(({ shown, state }) => shown === "k" && state === "failed"), "the jobs after a reconnect");
  } finally {
    other?.close();
    socket?.close();
    worker.close();
    await server.stop();
  }
});
