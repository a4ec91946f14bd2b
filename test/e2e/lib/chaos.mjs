// What a chaos test needs: reproducible choices, a network that can be broken,
// and a ledger that knows what workers were told and what pages have shown.

import { Agent } from "node:http";
import { Tab } from "./tab.mjs";

/** Pseudo-random choices (mulberry32). Actors that run at the same time each take their own, by name. */
export class Random {
  #state;

  constructor(seed, name = "") {
    this.#state = seed | 0;
    for (const char of name) this.#state = (Math.imul(this.#state, 31) + char.charCodeAt(0)) | 0;
    for (let i = 0; i < 3; i++) this.next(); // so that neighbouring names part
  }

  /** From 0 to below 1. */
  next() {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let t = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  }

  /** An integer from low to high, both included. */
  between(low, high) {
    return low + Math.floor(this.next() * (high - low + 1));
  }

  chance(share) {
    return this.next() < share;
  }

  /** A key of weights, each as likely as its weight. */
  pick(weights) {
    let at = this.next() * Object.values(weights).reduce((a, b) => a + b);
    return Object.keys(weights).find((key) => (at -= weights[key]) < 0);
  }
}

/** The seed that the environment names, or a new one. */
export const seedOf = (env) => (env ? Number(env) : Math.floor(Math.random() * 2 ** 31));

/** The TCP connections of one page, so that they can be broken as networks break. */
export class Wire extends Agent {
  #open = new Set();

  constructor() {
    // A connection for each poll, as clients in Node have by default. With kept
    // ones, xmlhttprequest-ssl 2.1 tries again after a reset and never ends
    // that request: the client hangs until its heartbeat fails.
    super({ keepAlive: false });
  }

  createConnection(...args) {
    const socket = super.createConnection(...args);
    this.#open.add(socket);
    socket.once("close", () => this.#open.delete(socket));
    return socket;
  }

  /** From now on nothing is read: the server still writes into connections that nobody hears. */
  deafen() {
    for (const socket of this.#open) socket.pause();
  }

  /** Neither a Socket.IO goodbye nor a websocket close: the connections are gone. */
  cut() {
    for (const socket of this.#open) {
      // While its FIN waits to be sent, a socket cannot be reset (EINVAL from
      // libuv), and Node 20 would never close it and hang in its own exit.
      if (socket.writableEnded) socket.destroy();
      else socket.resetAndDestroy();
    }
  }
}

const [ms, seq] = [0, 1];
const parts = (id) => id.split("-").map(Number);
/** Whether id a is higher than id b; b may be undefined. */
export function higher(a, b) {
  if (b === undefined) return true;
  const [x, y] = [parts(a), parts(b)];
  return x[ms] > y[ms] || (x[ms] === y[ms] && x[seq] > y[seq]);
}

const TRANSIENT = new Set(["authenticated", "online_users", "user_online", "user_offline", "unauthorized"]);
const isProgress = (name) => name === "job_progress";
const isTerminal = (name) => name === "job_completed" || name === "job_failed";

/**
 * One page instance: it lives until it is closed or reloaded, over any number
 * of connections. It judges every event as it arrives.
 *
 * Data of every event: {user, jobId, n, …}; n counts the events of its job.
 *
 * - Messages have ids, progress has none. Within one connection ids rise, and
 *   so does n for each job: of its job events and of its messages. (A progress
 *   that was held back comes after messages that are newer; the end of a job is
 *   never overtaken.)
 * - What comes below the highest id of the page, after a reconnect, is a
 *   repeat: its id was seen before by this user.
 * - Progress never follows the end of its attempt.
 */
export class Page extends Tab {
  closed = false;
  /** The connection's state. */
  #last; // highest id of this connection
  #steps = new Map(); // "job class" → highest n of this connection
  #epoch = 0; // which run of the server it belongs to, at the earliest
  /** The page's own. */
  high; // highest id
  #highEpoch = 0;
  #ends = new Map(); // job → highest n of an end
  /** When it first had an offset: from then on it misses nothing (if it keeps one). */
  offsetSince = Infinity;
  seen = new Set(); // keys of durable events
  shown = new Map(); // job → n of the progress shown last
  wire;

  constructor(ledger, url, user, { version, transport, token }) {
    const wire = new Wire();
    super(url, { version, transport, agent: wire, auth: { token } });
    Object.assign(this, { ledger, user, version, transportKind: transport, wire, name: `${user}/${++ledger.pages}` });
    this.socket.on("connect", () => {
      this.#last = undefined;
      this.#steps.clear();
      this.#epoch = ledger.starts;
      ledger.count.connects++;
    });
    this.socket.on("connect_error", (error) => {
      if (error.data) this.#fault(`was refused: ${JSON.stringify(error.data)}`);
    });
    this.socket.on("disconnect", (reason) => {
      if (reason === "io server disconnect") this.#fault("was sent away");
    });
    this.socket.onAny((name, ...args) => !this.closed && this.#arrived(name, ...args));
  }

  get keepsOffset() {
    return this.version !== "4.5";
  }

  /** Ends the page instance; what comes later, nobody sees. Its wire's owner destroys that in the end. */
  end({ polite }) {
    this.closed = true;
    if (!polite) this.wire.cut();
    this.close();
  }

  #fault(text) {
    this.ledger.fault(`page ${this.name} (${this.version}, ${this.transportKind}) ${text}`, this);
  }

  /** Its state and what came last, for messages. */
  describe() {
    const { engine } = this.socket.io;
    const state = `${engine.id} ${engine.readyState} ${engine.transport?.name} ${engine.transport?.readyState ?? ""}${engine.upgrading ? " upgrading" : ""}`;
    const trail = this.events.slice(-30).map(({ name, args }) => `      ${name} ${JSON.stringify(args).slice(0, 160)}`);
    return [`page ${this.name} (${this.version}, ${this.transportKind}): ${this.socket.connected ? "connected" : "not connected"}; ${state}`, ...trail].join("\n");
  }

  #arrived(name, data, ...more) {
    const { ledger } = this;
    if (TRANSIENT.has(name)) {
      if (typeof more.at(-1) === "string") this.#fault(`got ${name} with an id`);
      if (name === "authenticated") this.#authenticated(data);
      return;
    }
    ledger.count.arrivals++;
    const [id] = more;
    const what = `${name} ${data?.jobId} n=${data?.n}${id === undefined ? "" : ` id ${id}`}`;
    if (data?.user !== this.user) return this.#fault(`got ${what} of ${data?.user}`);
    if (isProgress(name)) {
      if (more.length !== 0) return this.#fault(`got ${what}: progress has no id`);
      this.#inOrder(name, data, what);
      this.shown.set(data.jobId, data.n);
      return;
    }
    if (more.length !== 1 || !/^\d+-\d+$/.test(id)) return this.#fault(`got ${what}: no id`);

    const account = ledger.account(this.user);
    const key = `${data.jobId}#${data.n}`;
    const known = account.seen.get(id);
    if (known !== undefined && known !== key) this.#fault(`got ${what}: that id was ${known}`);
    if (!higher(id, this.#last)) this.#fault(`got ${what} after ${this.#last} in one connection`);
    if (!higher(id, this.high) && known === undefined) this.#fault(`got ${what} after ${this.high}, and no page had seen it`);
    if (known !== undefined) ledger.count.repeats++;
    this.#inOrder(name, data, what);
    const first = account.durable.get(key);
    if (first !== undefined && first !== id) this.#fault(`got ${what}: it had come as ${first}`);
    account.durable.set(key, id);
    this.seen.add(key);
    account.seen.set(id, key);
    this.#last = id;
    if (higher(id, this.high)) [this.high, this.#highEpoch] = [id, this.#epoch];
    this.offsetSince = Math.min(this.offsetSince, performance.now());
  }

  #inOrder(name, { jobId, n }, what) {
    const classes = isProgress(name) ? ["job"] : isTerminal(name) ? ["job", "durable"] : ["durable"];
    for (const each of classes) {
      const before = this.#steps.get(`${jobId} ${each}`) ?? -1;
      if (n < before || (n === before && !isProgress(name))) this.#fault(`got ${what} after n=${before}`);
      this.#steps.set(`${jobId} ${each}`, n);
    }
    const end = this.#ends.get(jobId) ?? -1;
    if (isProgress(name) && n < end) this.#fault(`got ${what} after the job's end n=${end}`);
    if (isTerminal(name)) this.#ends.set(jobId, Math.max(n, end));
  }

  /** Without a crash the server knows every offset that it gave out. */
  #authenticated({ userId, recovered }) {
    if (userId !== this.user) this.#fault(`was taken for ${userId}`);
    if (recovered) return;
    this.ledger.count.unrecovered++;
    if (this.ledger.kills < this.#highEpoch) this.#fault(`is not recovered from ${this.high}, though nothing had happened to the server`);
  }
}

/** What workers were answered, and what all pages of each user have seen. */
export class Ledger {
  /** How often the server was ready, and how often it was killed. Between a kill and the next start, connects count as old ones. */
  starts = 0;
  kills = 0;
  pages = 0;
  faults = [];
  count = { connects: 0, arrivals: 0, repeats: 0, unrecovered: 0, retries: 0, durable: 0, progress: 0 };
  #accounts = new Map();

  account(user) {
    if (!this.#accounts.has(user)) {
      // proof: when the latest durable POST of the user began that has been answered
      this.#accounts.set(user, { user, seen: new Map(), durable: new Map(), accepted: new Map(), jobs: new Map(), proof: -1 });
    }
    return this.#accounts.get(user);
  }

  get users() {
    return [...this.#accounts.values()];
  }

  fault(text, page) {
    if (this.faults.length >= 20) return;
    this.faults.push(page ? `${text}\n  ${page.describe()}` : text);
  }

  /** A POST was answered 202. began and run (of kills) are those of its last try. */
  accepted({ userId, event, data }, { id, status, reason }, { began, run, first, repeated }) {
    const account = this.account(userId);
    const answered = performance.now();
    const what = `${event} ${data.jobId} n=${data.n} of ${userId}`;
    if (status === "ignored") return this.fault(`${what} was ignored: ${reason}`);
    if (!account.jobs.has(data.jobId)) account.jobs.set(data.jobId, { progress: [], end: -1 });
    const job = account.jobs.get(data.jobId);
    if (isProgress(event)) {
      this.count.progress++;
      job.progress.push({ n: data.n, answered, safe: run === this.kills ? undefined : false }); // undefined: no crash since
      return;
    }
    if (isTerminal(event)) job.end = data.n;
    this.count.durable++;
    account.accepted.set(`${data.jobId}#${data.n}`, { id, event, first });
    if (run === this.kills && !repeated) account.proof = Math.max(account.proof, began); // a repeat writes nothing
  }

  /**
   * The server is killed now. A crash may take the progress along that was not
   * written yet. A durable write takes its user's progress along: progress is
   * safe when a durable POST of the same user that began after its answer has
   * been answered.
   */
  killed() {
    this.kills++;
    for (const account of this.#accounts.values()) {
      for (const { progress } of account.jobs.values()) {
        for (const p of progress) {
          if (p.safe === undefined) p.safe = p.answered < account.proof;
        }
      }
      account.proof = -1;
    }
  }

  /** Durable events whose POST was answered and that no page of their user has. */
  missing() {
    const lines = [];
    for (const account of this.#accounts.values()) {
      for (const [key, { id, event }] of account.accepted) {
        const as = account.durable.get(key);
        if (as === undefined) lines.push(`${event} ${key} ${id} of ${account.user}: no page has it`);
        else if (as !== id) lines.push(`${event} ${key} of ${account.user} was answered as ${id} and came as ${as}`);
      }
    }
    return lines;
  }

  /** What a page lacks though it was posted since the page has an offset that it keeps; of a closed one, up to what it saw last. */
  owed(page) {
    if (!page.keepsOffset) return [];
    return [...this.account(page.user).accepted]
      .filter(([key, { id, first }]) => first > page.offsetSince && !page.seen.has(key) && !(page.closed && higher(id, page.high)))
      .map(([key, { id, event }]) => `${event} ${key} ${id}: page ${page.name} (${page.version}, ${page.transportKind}) does not have it`);
  }

  /** What is wrong with the progress that a page shows; a fresh one shows none of finished jobs. */
  stale(page, { fresh = false } = {}) {
    const lines = [];
    for (const [job, { progress, end }] of this.account(page.user).jobs) {
      const last = page.shown.get(job);
      const shown = fresh || last > end ? last : undefined;
      const open = progress.filter(({ n }) => n > end);
      const latest = open.at(-1)?.n;
      const least = open.findLast(({ safe }) => safe !== false)?.n;
      const right = shown === undefined ? least === undefined : open.some(({ n }) => n === shown) && shown >= (least ?? -1);
      const what = latest === least ? `n=${latest}` : `n=${least} to n=${latest} (later than n=${least} may have gone with a crash)`;
      if (!right) lines.push(`page ${page.name} shows n=${shown} of ${job}, which ${latest === undefined ? `ended at n=${end}` : `is at ${what}`}`);
    }
    return lines;
  }
}
