// A run is one job in the hands of a worker: it posts progress at a steady
// pace and ends with a result or an error.

const KINDS = [
  { title: "Render holiday film", stages: ["Reading clips", "Cutting scenes", "Encoding", "Writing file"], result: "film.mp4, 214 MB", error: "Encoder ran out of disk" },
  { title: "Import 48,210 contacts", stages: ["Reading file", "Matching names", "Merging doubles", "Saving"], result: "48,102 new, 108 merged", error: "Row 31,877 has no address" },
  { title: "Build release 4.2", stages: ["Fetching modules", "Compiling", "Testing", "Packing"], result: "release-4.2.tar.gz", error: "2 of 3,104 tests failed" },
  { title: "Translate handbook", stages: ["Splitting pages", "Translating", "Checking terms", "Joining"], result: "312 pages in 4 languages", error: "Glossary is locked" },
];
let next = 0;

const shortId = () => crypto.getRandomValues(new Uint32Array(1))[0].toString(36).slice(-5).padStart(5, "0");
const STEP = 4; // percent
const FAILS_AT = 60; // percent
const STALE_AFTER = 15; // seconds without a post until the server may call the job stalled

/** One job: what is posted waits for the answer before, so order is the worker's order. */
export class Run {
  userId;
  jobId;
  title;
  failing;
  progress = 0;
  state = "paused"; // paused, running, completed, failed
  problem = "";
  #api;
  #kind;
  #pace;
  #timer = 0;
  #last = Promise.resolve();
  #onChange;

  constructor(api, { userId, pace, failing = false, job = null, onChange }) {
    this.#api = api;
    this.#pace = pace;
    this.#onChange = onChange;
    this.#kind = KINDS.find((kind) => kind.title === job?.title) ?? KINDS[next++ % KINDS.length];
    this.userId = userId;
    this.jobId = job?.jobId ?? `job-${shortId()}`;
    this.title = job?.title || (job ? job.jobId : this.#kind.title);
    this.failing = failing;
    this.progress = job?.progress ?? 0;
  }

  get finished() {
    return this.state === "completed" || this.state === "failed";
  }

  start() {
    this.#become("running");
    this.#post(() => this.#progressEvent());
    this.#schedule(this.#pace);
  }

  pause() {
    clearTimeout(this.#timer);
    if (!this.finished) this.#become("paused");
  }

  complete() {
    return this.#finish("completed", () => ({ event: "job_completed", data: { jobId: this.jobId, result: this.#kind.result, title: this.title } }));
  }

  fail() {
    return this.#finish("failed", () => ({ event: "job_failed", data: { jobId: this.jobId, error: this.#kind.error, title: this.title } }));
  }

  /** Posts the rest in big steps and completes; resolves when all is answered. */
  async hurry() {
    clearTimeout(this.#timer);
    this.#become("running");
    const answers = [];
    while (this.progress < 90 && !this.problem) {
      this.progress = Math.min(90, this.progress + 20);
      answers.push(await this.#post(() => this.#progressEvent()));
      await new Promise((resolve) => setTimeout(resolve, this.#pace / 2)); // long enough to see that the page is away
    }
    if (!this.problem) answers.push(await this.complete());
    return answers.filter(Boolean);
  }

  #schedule(delay) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#step(), delay);
  }

  async #step() {
    if (this.failing && this.progress >= FAILS_AT) {
      await this.fail();
      return;
    }
    this.progress = Math.min(100, this.progress + STEP);
    this.#onChange(this);
    if (this.progress >= 100) await this.complete();
    else {
      await this.#post(() => this.#progressEvent());
      if (this.state === "running") this.#schedule(this.#pace);
    }
  }

  #finish(state, event) {
    clearTimeout(this.#timer);
    if (this.finished) return Promise.resolve(null);
    if (state === "completed") this.progress = 100;
    this.#become(state);
    return this.#post(event);
  }

  #progressEvent() {
    const { stages } = this.#kind;
    const message = stages[Math.min(stages.length - 1, Math.floor((this.progress / 100) * stages.length))];
    return {
      event: "job_progress",
      data: { jobId: this.jobId, progress: this.progress, message, title: this.title },
      staleAfter: STALE_AFTER,
    };
  }

  #become(state) {
    this.state = state;
    this.problem = "";
    this.#onChange(this);
  }

  #post(event) {
    const posted = this.#last.then(() => this.#api.event({ userId: this.userId, ...event() }));
    const answered = posted.catch((error) => {
      clearTimeout(this.#timer);
      this.state = "paused"; // also a result that was not taken: the worker can try again
      this.problem = error.code ?? error.message;
      this.#onChange(this);
      return null;
    });
    this.#last = answered;
    return answered;
  }
}

/** Posts `of` numbered events in batches of 100, in order. */
export async function burst(api, userId, of = 1000) {
  const id = shortId();
  for (let first = 1; first <= of; first += 100) {
    const events = [];
    for (let n = first; n < first + 100 && n <= of; n++) events.push({ userId, event: "burst_tick", data: { burst: id, n, of } });
    await api.batch(events);
  }
}
