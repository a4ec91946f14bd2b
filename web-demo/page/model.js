// What the page knows, from the events of its socket alone. No DOM in here.

const REMEMBERED_IDS = 5000;

/** Tells repeats: a message may come more than once, and its id says so. Progress has none; showing it twice is harmless. */
export class Seen {
  #ids = new Set();

  /** Whether id is new; remembers it, the oldest being forgotten first. */
  add(id) {
    if (this.#ids.has(id)) return false;
    this.#ids.add(id);
    if (this.#ids.size > REMEMBERED_IDS) this.#ids.delete(this.#ids.values().next().value);
    return true;
  }
}

const FINISHED = new Set(["completed", "failed"]);
const KEPT_JOBS = 100;

/** The user's jobs, newest first when listed. The server sends nothing older after something newer, so the latest word counts. */
export class Jobs {
  #jobs = new Map(); // jobId → job; the oldest first

  get(jobId) {
    return this.#jobs.get(jobId);
  }

  list() {
    return [...this.#jobs.values()].reverse();
  }

  unfinished() {
    return this.list().filter((job) => !FINISHED.has(job.state));
  }

  /** Takes the answer of get_jobs: the server's records, the latest change first. Jobs beyond them are kept as they are. */
  snapshot(records) {
    for (const { jobId, attempt, state, progress, end } of [...records].reverse()) {
      this.#jobs.delete(jobId); // to the end of the order
      const job = this.#add(jobId);
      if (progress) CHANGES.job_progress(job, progress);
      if (end) CHANGES[state === "completed" ? "job_completed" : "job_failed"](job, end.data ?? {});
      if (state === "stalled") CHANGES.job_stalled(job);
      Object.assign(job, { attempt, title: [end?.data?.title, progress?.title].find((title) => typeof title === "string") ?? "" });
    }
  }

  /** Takes one job event and returns its job, or null when it is not about a job, or about an earlier attempt. */
  apply(name, data) {
    const jobId = data?.jobId;
    if (typeof jobId !== "string" && typeof jobId !== "number") return null;
    const change = CHANGES[name];
    if (!change) return null;
    const key = String(jobId);
    const job = this.#jobs.get(key) ?? this.#add(key);
    if (data.attempt < job.attempt) return null;
    if (data.attempt > job.attempt) Object.assign(job, { attempt: data.attempt, progress: 0, note: "" });
    if (typeof data.title === "string") job.title = data.title;
    change(job, data);
    return job;
  }

  #add(jobId) {
    const job = { jobId, title: "", state: "running", attempt: 0, progress: 0, note: "" };
    this.#jobs.set(jobId, job);
    this.#forgetOldest();
    return job;
  }

  #forgetOldest() {
    if (this.#jobs.size <= KEPT_JOBS) return;
    const oldest = [...this.#jobs.values()].find((job) => FINISHED.has(job.state)) ?? this.#jobs.values().next().value;
    this.#jobs.delete(oldest.jobId);
  }
}

const CHANGES = {
  __proto__: null, // a worker may call its event "constructor"
  job_progress(job, data) {
    job.state = "running";
    job.progress = percent(data.progress, job.progress);
    job.note = text(data.message);
  },
  job_completed(job, data) {
    job.state = "completed";
    job.progress = 100;
    job.note = text(data.result);
  },
  job_failed(job, data) {
    job.state = "failed";
    job.note = text(data.error);
  },
  job_stalled(job) {
    if (FINISHED.has(job.state)) return;
    job.state = "stalled";
    job.note = "Nothing heard from its worker for a while";
  },
};

function percent(value, otherwise) {
  const n = Number(value);
  return Number.isFinite(n) ? Math.min(100, Math.max(0, n)) : otherwise;
}

function text(value) {
  if (value === undefined || value === null) return "";
  return typeof value === "string" ? value : JSON.stringify(value);
}

/** Bursts of numbered events, to see that none is lost and none overtakes another. */
export class Bursts {
  #bursts = new Map();

  list() {
    return [...this.#bursts.values()].reverse();
  }

  apply(name, data) {
    if (name !== "burst_tick" || typeof data?.burst !== "string") return null;
    let burst = this.#bursts.get(data.burst);
    if (!burst) {
      burst = { burst: data.burst, of: Number(data.of) || 0, received: 0, last: 0, inOrder: true, began: performance.now(), took: 0 };
      this.#bursts.set(data.burst, burst);
      if (this.#bursts.size > 5) this.#bursts.delete(this.#bursts.keys().next().value);
    }
    burst.inOrder &&= data.n === burst.last + 1;
    burst.last = data.n;
    burst.received++;
    burst.took = performance.now() - burst.began;
    return burst;
  }
}

/** Who is online, as the server tells it: a bounded list and an exact count. */
export class People {
  #self;
  #online = new Set();
  #lately = new Map(); // userId → lastSeen, the latest to leave last
  count = 0;

  constructor(self) {
    this.#self = self;
    this.#online.add(self);
    this.count = 1;
  }

  snapshot({ users = [], count = 0 } = {}) {
    this.#online = new Set(users.map(String));
    this.#online.add(this.#self);
    this.count = Math.max(Number(count) || 0, this.#online.size);
    for (const user of this.#online) this.#lately.delete(user);
  }

  online(userId) {
    this.#lately.delete(userId);
    if (this.#online.has(userId)) return;
    this.#online.add(userId);
    this.count++;
  }

  offline(userId, lastSeen) {
    this.#online.delete(userId);
    this.count = Math.max(this.count - 1, this.#online.size);
    this.#lately.delete(userId);
    this.#lately.set(userId, lastSeen);
    if (this.#lately.size > 4) this.#lately.delete(this.#lately.keys().next().value);
  }

  /** Online users, this one first, then by name. */
  list() {
    const others = [...this.#online].filter((user) => user !== this.#self).sort((a, b) => a.localeCompare(b));
    return [this.#self, ...others];
  }

  /** Who left lately, the latest first: [userId, lastSeen]. */
  lately() {
    return [...this.#lately].reverse();
  }
}
