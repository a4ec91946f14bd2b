// What make does where something is missing.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { copyFileSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { deadline } from "./lib/wait.mjs";

test("the check stops with an error where git knows no files", async () => {
  const dir = mkdtempSync(join(tmpdir(), "jobwire-make-"));
  copyFileSync(new URL("../../Makefile", import.meta.url), join(dir, "Makefile"));
  const { MAKEFLAGS, MAKELEVEL, ...env } = process.env; // those of the make that runs this test
  const make = spawn("make", ["check"], { cwd: dir, env: { ...env, GIT_DIR: join(dir, ".git") }, stdio: ["pipe", "pipe", "pipe"] }); // an input that does not end
  let said = "";
  for (const stream of [make.stdout, make.stderr]) stream.setEncoding("utf8").on("data", (text) => (said += text));
  const ended = new Promise((resolve) => make.once("close", resolve));
  try {
    assert.notEqual(await deadline(ended, 20_000, () => `make check does not end:\n${said}`), 0);
    assert.match(said, /not a git repository/);
    assert.doesNotMatch(said, /go vet/);
  } finally {
    make.stdin.destroy();
    make.kill("SIGKILL");
    rmSync(dir, { recursive: true, force: true });
  }
});
