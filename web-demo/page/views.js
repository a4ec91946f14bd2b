// How jobs, people and events look. Each view draws from the model, at most
// once a frame, and keeps its elements so that bars glide and focus stays.

import { byId, el, icon, milliseconds, number, perFrame, setText } from "./dom.js";

const STATE_WORDS = { running: "Running", completed: "Completed", failed: "Failed", stalled: "Stalled" };

/** One card with a bar; used for jobs and for bursts. */
class Card {
  #badge = el("span", { className: "badge" });
  #title = el("h3");
  #id = el("code", { className: "id" });
  #percent = el("span", { className: "percent" });
  #fill = el("i");
  #bar = el("div", { className: "bar", role: "progressbar", "aria-valuemin": "0", "aria-valuemax": "100" }, this.#fill);
  #note = el("p", { className: "note-line" });
  #state = "";
  element = el(
    "li",
    { className: "job card" },
    el("div", { className: "line" }, this.#title, this.#badge),
    el("div", { className: "line" }, this.#bar, this.#percent),
    el("div", { className: "line sub" }, this.#note, this.#id),
  );

  draw({ state, word, title, id, percent, note }) {
    if (state !== this.#state) {
      this.#state = state;
      this.element.dataset.state = state;
      this.#badge.replaceChildren(icon(state), word);
    }
    setText(this.#title, title);
    setText(this.#id, id);
    setText(this.#note, note);
    setText(this.#percent, `${Math.round(percent)}%`);
    this.#bar.setAttribute("aria-label", title);
    this.#bar.setAttribute("aria-valuenow", String(Math.round(percent)));
    this.#bar.setAttribute("aria-valuetext", `${Math.round(percent)} percent, ${word.toLowerCase()}`);
    this.#fill.style.setProperty("--done", String(percent / 100));
  }
}

export class JobsView {
  #jobs;
  #bursts;
  #cards = new Map();
  #list = byId("jobs");
  update = perFrame(() => this.#draw());

  constructor(jobs, bursts) {
    this.#jobs = jobs;
    this.#bursts = bursts;
    this.#list.replaceChildren();
    this.update();
  }

  #draw() {
    const rows = [
      ...this.#bursts.list().map(burstRow),
      ...this.#jobs.list().map(jobRow),
    ];
    const wanted = new Set(rows.map((row) => row.key));
    for (const [key, card] of this.#cards) {
      if (wanted.has(key)) continue;
      card.element.remove();
      this.#cards.delete(key);
    }
    rows.forEach((row, at) => {
      let card = this.#cards.get(row.key);
      if (!card) this.#cards.set(row.key, (card = new Card()));
      card.draw(row);
      if (this.#list.children[at] !== card.element) this.#list.insertBefore(card.element, this.#list.children[at] ?? null);
    });
    byId("jobs-empty").hidden = rows.length > 0;
    const tally = Object.groupBy ? Object.groupBy(this.#jobs.list(), (job) => job.state) : {};
    const words = Object.keys(STATE_WORDS).filter((state) => tally[state]).map((state) => `${tally[state].length} ${state}`);
    setText(byId("jobs-count"), words.join(" · "));
  }
}

function jobRow(job) {
  return {
    key: `job ${job.jobId}`,
    state: job.state,
    word: STATE_WORDS[job.state],
    title: job.title || job.jobId,
    id: job.title ? job.jobId : "",
    percent: job.progress,
    note: job.note,
  };
}

function burstRow(burst) {
  const done = burst.received >= burst.of;
  const words = [`${number.format(burst.received)} of ${number.format(burst.of)} received`, burst.inOrder ? "in order" : "out of order"];
  if (done) words.push(`within ${milliseconds(burst.took)}`);
  const state = !burst.inOrder ? "failed" : done ? "completed" : "running";
  return {
    key: `burst ${burst.burst}`,
    state,
    word: !burst.inOrder ? "Out of order" : done ? "All here" : "Arriving",
    title: `Burst of ${number.format(burst.of)} events`,
    id: burst.burst,
    percent: burst.of ? (100 * burst.received) / burst.of : 0,
    note: words.join(", "),
  };
}

/** A steady hue for a name, so that a person is recognised across tabs. */
function hue(name) {
  let h = 7;
  for (const c of name) h = (h * 31 + c.codePointAt(0)) % 360;
  return h;
}

export class PeopleView {
  #people;
  #self;
  update = perFrame(() => this.#draw());

  constructor(people, self) {
    this.#people = people;
    this.#self = self;
    this.update();
  }

  #draw() {
    const people = this.#people;
    const online = people.list();
    const more = people.count - online.length;
    byId("people").replaceChildren(
      ...online.map((user) => chip(user, user === this.#self ? "you" : "")),
      ...(more > 0 ? [el("li", { className: "person more" }, `and ${number.format(more)} more`)] : []),
      ...people.lately().map(([user, lastSeen]) => chip(user, lastSeenWords(lastSeen), "gone")),
    );
    byId("people-names").replaceChildren(...online.map((user) => el("option", { value: user })));
    setText(byId("people-count"), number.format(people.count));
  }
}

function chip(user, remark, look = "") {
  const face = el("span", { className: "face", "aria-hidden": "true" }, [...user][0]?.toUpperCase() ?? "?");
  face.style.setProperty("--hue", String(hue(user)));
  const li = el("li", { className: `person ${look}` }, face, el("span", { className: "name", title: user }, user));
  if (remark) li.append(el("small", {}, remark));
  return li;
}

function lastSeenWords(lastSeen) {
  const at = new Date(lastSeen);
  return Number.isNaN(at.getTime()) ? "left" : `left ${at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" })}`;
}

const SHOWN_EVENTS = 200;

/** Every event the socket received, the latest first; a burst takes one line. */
export class LogView {
  #list = byId("log");
  #pending = [];
  #total = 0;
  #group = null; // the line that a running burst is counted on
  #update = perFrame(() => this.#draw());

  constructor() {
    this.clear();
  }

  clear() {
    this.#list.replaceChildren();
    this.#pending = [];
    this.#group = null;
    this.#total = 0;
    this.#update();
  }

  add(name, data, id, repeat) {
    this.#total++;
    this.#pending.push({ at: new Date(), name, data, id, repeat });
    this.#update();
  }

  #draw() {
    for (const entry of this.#pending) {
      const burst = entry.name === "burst_tick" ? entry.data?.burst : undefined;
      if (burst !== undefined && this.#group?.burst === burst) {
        this.#group.add(entry);
        continue;
      }
      const line = logLine(entry);
      this.#group = burst === undefined ? null : { burst, ...line };
      this.#list.prepend(line.element);
    }
    this.#pending = [];
    while (this.#list.childElementCount > SHOWN_EVENTS) this.#list.lastElementChild.remove();
    byId("log-empty").hidden = this.#total > 0;
    byId("log-clear").hidden = this.#total === 0;
    setText(byId("log-count"), this.#total ? number.format(this.#total) : "");
  }
}

function logLine({ at, name, data, id, repeat }) {
  const text = el("span", { className: "data" }, brief(data));
  const times = el("b", { className: "times" });
  const idText = el("code", { className: "id" }, id ?? "no id");
  const summary = el(
    "summary",
    {},
    el("time", { dateTime: at.toISOString() }, clock(at)),
    el("span", { className: "event" }, name, repeat ? el("b", { className: "times" }, "repeat") : times),
    text,
    idText,
  );
  const details = el("details", {}, summary);
  details.addEventListener("toggle", () => {
    if (details.open && !details.querySelector("pre")) details.append(el("pre", {}, JSON.stringify(data, null, 2) ?? ""));
  });
  let count = 1;
  return {
    element: el("li", { className: repeat ? "repeat" : "", "data-event": name }, details),
    add(entry) {
      count++;
      setText(times, `× ${number.format(count)}`);
      setText(text, brief(entry.data));
      setText(idText, entry.id ?? "no id");
    },
  };
}

function brief(data) {
  return (JSON.stringify(data) ?? "").slice(0, 300);
}

function clock(at) {
  return `${at.toLocaleTimeString("en-GB")}.${String(at.getMilliseconds()).padStart(3, "0")}`;
}
