// The worker's side of the page.

import { byId, el, milliseconds, perFrame, setText } from "./dom.js";
import { burst, Run } from "./run.js";

const SHOWN_ANSWERS = 4;
const SHOWN_ORPHANS = 4;
const KEPT_FINISHED = 4000; // ms that a finished job stays in hand, to be seen
const STORED = "jobwire.demo.running"; // in sessionStorage: the jobs whose worker ends with the page, and whether they fail

export class Panel {
  #api;
  #pace;
  #runs = new Map(); // jobId → Run
  #rows = new Map(); // jobId → row
  #unfinished;
  #cutOff = stored(); // what the page before a reload was working on: jobId → failing
  #self;
  #update = perFrame(() => this.#draw());

  /** unfinished lists the jobs of this user that a worker could take over. */
  constructor(api, { self, pace, unfinished, away }) {
    this.#api = api;
    this.#pace = pace;
    this.#self = self;
    this.#unfinished = unfinished;
    byId("target").value = self;
    byId("start").onclick = () => this.start();
    byId("start-failing").onclick = () => this.start({ failing: true });
    byId("burst").onclick = (event) => this.#whileBusy(event.currentTarget, () => burst(this.#api, this.target));
    byId("away").onclick = (event) => this.#whileBusy(event.currentTarget, away);
    this.#update();
  }

  get target() {
    return byId("target").value.trim() || this.#self;
  }

  start({ failing = false, userId = this.target, posting = true } = {}) {
    const run = new Run(this.#api, { userId, pace: this.#pace, failing, onChange: (changed) => this.#changed(changed) });
    this.#runs.set(run.jobId, run);
    if (posting) run.start();
    this.#update();
    return run;
  }

  /** A job of this user that is under way here, if there is one. */
  running() {
    return [...this.#runs.values()].find((run) => !run.finished && run.userId === this.#self);
  }

  /** The board has changed: jobs may have appeared that nobody here works on. Goes on with those that a reload cut off. */
  refresh() {
    for (const job of this.#unfinished()) {
      if (!this.#cutOff.has(job.jobId)) continue;
      const failing = this.#cutOff.get(job.jobId);
      this.#cutOff.delete(job.jobId);
      this.#adopt(job, failing).start();
    }
    this.#update();
  }

  stop() {
    for (const run of this.#runs.values()) run.pause();
    this.#runs.clear();
    sessionStorage.removeItem(STORED);
    this.#update();
  }

  /** One answer of the server, for the list. */
  answered({ call, ok, status, text, ms }) {
    const answers = byId("answers");
    answers.prepend(
      el(
        "li",
        { className: ok ? "ok" : "bad" },
        el("code", {}, call),
        el("b", {}, String(status || "×")),
        el("span", {}, text),
        el("small", {}, milliseconds(ms)),
      ),
    );
    while (answers.childElementCount > SHOWN_ANSWERS) answers.lastElementChild.remove();
  }

  #changed(run) {
    const running = [...this.#runs.values()].filter((other) => other.state === "running" && other.userId === this.#self);
    sessionStorage.setItem(STORED, JSON.stringify([...this.#cutOff, ...running.map((other) => [other.jobId, other.failing])]));
    if (run.finished) {
      setTimeout(() => {
        if (run.finished) this.#runs.delete(run.jobId);
        this.#update();
      }, KEPT_FINISHED);
    }
    this.#update();
  }

  async #whileBusy(button, work) {
    button.disabled = true;
    try {
      await work();
    } catch {
      // Every refusal is already in the list of answers.
    } finally {
      button.disabled = false;
    }
  }

  #adopt(job, failing = false) {
    const run = new Run(this.#api, { userId: this.#self, pace: this.#pace, failing, job, onChange: (changed) => this.#changed(changed) });
    this.#runs.set(run.jobId, run);
    return run;
  }

  #draw() {
    const inHand = [...this.#runs.values()];
    const orphans = this.#unfinished().filter((job) => !this.#runs.has(job.jobId)).slice(0, SHOWN_ORPHANS);
    const wanted = [...inHand, ...orphans];
    const keys = new Set(wanted.map((job) => job.jobId));
    for (const [key, row] of this.#rows) {
      if (keys.has(key)) continue;
      row.element.remove();
      this.#rows.delete(key);
    }
    for (const job of wanted) {
      let row = this.#rows.get(job.jobId);
      if (!row) {
        row = this.#row(job.jobId);
        this.#rows.set(job.jobId, row);
        byId("in-hand").prepend(row.element);
      }
      row.draw(job, this.#runs.get(job.jobId));
    }
    byId("in-hand").hidden = wanted.length === 0;
  }

  #row(jobId) {
    const title = el("span", { className: "title" });
    const remark = el("small");
    const toggle = el("button", { type: "button", className: "small" });
    const complete = el("button", { type: "button", className: "small" }, "Complete");
    const fail = el("button", { type: "button", className: "small" }, "Fail");
    const run = () => this.#runs.get(jobId) ?? this.#adopt(this.#unfinished().find((job) => job.jobId === jobId));
    toggle.onclick = () => (run().state === "running" ? run().pause() : run().start());
    complete.onclick = () => run().complete();
    fail.onclick = () => run().fail();
    return {
      element: el("li", {}, el("span", { className: "what" }, title, remark), el("span", { className: "moves" }, toggle, complete, fail)),
      draw: (job, held) => {
        const name = held?.title ?? (job.title || job.jobId);
        setText(title, name);
        setText(remark, remarkOn(job, held, this.#self));
        setText(toggle, !held ? "Take over" : held.state === "running" ? "Pause" : "Go on");
        for (const button of [toggle, complete, fail]) {
          button.hidden = Boolean(held?.finished);
          button.setAttribute("aria-label", `${button.textContent}: ${name}`);
        }
      },
    };
  }
}

function stored() {
  try {
    return new Map(JSON.parse(sessionStorage.getItem(STORED)));
  } catch {
    return new Map();
  }
}

function remarkOn(job, held, self) {
  if (!held) return `${Math.round(job.progress)}% · ${job.state === "stalled" ? "stalled" : "another worker's"}`;
  const whose = held.userId === self ? "" : ` · for ${held.userId}`;
  const how = held.problem ? ` · ${held.problem}` : held.state === "running" ? "" : ` · ${held.state}`;
  return `${held.progress}%${whose}${how}`;
}
