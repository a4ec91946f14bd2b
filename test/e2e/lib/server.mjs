// The real binary, on a loopback port of its own, with secrets of its own.

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { createHmac, randomBytes } from "node:crypto";
import { existsSync, mkdtempSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { deadline } from "./wait.mjs";

const root = fileURLToPath(new URL("../../../", import.meta.url));
const DRAIN = 15_000; // ms; a server that works needs none of it, but on a busy machine

let built = "";

/** Path of the binary: JOBWIRE_BIN as `make test` builds it (with -race), or one built here. */
export function binary() {
  if (built) return built;
  if (process.env.JOBWIRE_BIN) {
    built = process.env.JOBWIRE_BIN;
    assert.ok(existsSync(built), `JOBWIRE_BIN: ${built} does not exist`);
    return built;
  }
  built = join(mkdtempSync(join(tmpdir(), "jobwire-e2e-")), "jobwire");
  execFileSync("go", ["build", "-o", built, "."], { cwd: root, stdio: "inherit" });
  return built;
}

function freePort() {
  return new Promise((resolve, reject) => {
    const probe = createServer();
    probe.once("error", reject);
    probe.listen(0, "127.0.0.1", () => {
      const { port } = probe.address();
      probe.close(() => resolve(port));
    });
  });
}

const base64url = (value) => Buffer.from(typeof value === "string" ? value : JSON.stringify(value)).toString("base64url");

/** A JWT with these claims, signed as its header says; alg "none" signs nothing. */
export function jwt(claims, { secret, alg = "HS256" }) {
  const text = `${base64url({ alg, typ: "JWT" })}.${base64url(claims)}`;
  const signature = alg === "none" ? "" : createHmac(alg.replace("HS", "sha"), secret).update(text).digest("base64url");
  return `${text}.${signature}`;
}

export const now = () => Math.floor(Date.now() / 1000); // as JWTs count, in seconds

export class Server {
  secret = randomBytes(32).toString("hex");
  key = randomBytes(24).toString("hex");
  log = "";
  #flags;
  #process = null;
  #exited = null;

  constructor(flags = []) {
    this.#flags = flags;
  }

  get url() {
    return `http://127.0.0.1:${this.port}`;
  }

  get pid() {
    return this.#process.pid;
  }

  /** A token for a user that this server accepts, unless claims say otherwise. */
  token(sub, claims = {}) {
    return jwt({ sub, exp: now() + 600, ...claims }, { secret: this.secret });
  }

  /** Starts on the port it had before, or on a free one; resolves when it is ready. */
  async start() {
    this.port ??= await freePort();
    const env = {
      PATH: process.env.PATH,
      HOME: process.env.HOME,
      JOBWIRE_ADDR: `127.0.0.1:${this.port}`,
      JOBWIRE_JWT_SECRET: this.secret,
      JOBWIRE_API_KEYS: `e2e=${this.key}`,
      JOBWIRE_DATA_DIR: "memory",
      JOBWIRE_DRAIN: `${DRAIN}ms`,
    };
    this.#process = spawn(binary(), this.#flags, { env, stdio: ["ignore", "pipe", "pipe"] });
    for (const stream of [this.#process.stdout, this.#process.stderr]) {
      stream.setEncoding("utf8").on("data", (text) => (this.log += text));
    }
    this.#exited = new Promise((resolve) => this.#process.once("exit", (code, signal) => resolve({ code, signal })));
    await deadline(this.#ready(), 20_000, () => `the server is not ready:\n${this.log}`);
    return this;
  }

  async #ready() {
    let gone = null;
    this.#exited.then((exit) => (gone = exit));
    for (;;) {
      if (gone) throw new Error(`the server ended with ${JSON.stringify(gone)}:\n${this.log}`);
      const answer = await fetch(`${this.url}/readyz`).catch(() => null);
      await answer?.arrayBuffer();
      if (answer?.ok) return;
      await new Promise((resolve) => setTimeout(resolve, 20)); // nothing tells when a process will listen
    }
  }

  /** Asks it to end, and holds it to a clean end within its drain time. */
  async stop() {
    if (!this.#process) return;
    const begun = performance.now();
    const running = this.#process.exitCode === null && this.#process.signalCode === null;
    if (running) this.#process.kill("SIGTERM");
    const exit = await deadline(this.#exited, DRAIN + 5_000, () => `the server does not end:\n${this.log}`).finally(() => this.#process.kill("SIGKILL"));
    this.#process = null;
    assert.ok(!this.log.includes("DATA RACE"), this.log);
    assert.deepEqual(exit, { code: 0, signal: null }, `the server ended badly:\n${this.log.slice(-8000)}`);
    return performance.now() - begun;
  }

  /** Ends it at once, as a crash or a power cut would. */
  async kill() {
    this.#process.kill("SIGKILL");
    await this.#exited;
    this.#process = null;
  }
}

export { DRAIN };
