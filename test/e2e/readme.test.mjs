// The README is the first thing people try, so it is held to the program.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { binary } from "./lib/server.mjs";

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
