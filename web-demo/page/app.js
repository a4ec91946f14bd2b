// Wires the page: sign in, connect, show what comes.

import { progressKey, WorkerAPI } from "./api.js";
import { announce, byId, milliseconds, setText } from "./dom.js";
import { Bursts, Jobs, People, Seen } from "./model.js";
import { Panel } from "./panel.js";
import { Session } from "./session.js";
import { JobsView, LogView, PeopleView } from "./views.js";
import { Wire } from "./wire.js";

const STORED = "jobwire.demo"; // in sessionStorage: who, not with what token or key
const DEFAULT_PACE = 350; // ms between two posts of a demo worker
const REPLAY_PATIENCE = 3000; // ms to wait for a result after coming back

const query = new URLSearchParams(location.search);
let desk = null; // what belongs to the signed-in user

if (typeof window.io === "function") welcome();
else byId("missing").hidden = false;

function welcome() {
  const who = remembered();
  byId("sign-in-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const form = new FormData(event.target);
    const user = form.get("user").trim();
    if (user) signIn({ user, tenant: form.get("tenant").trim(), transport: form.get("transport") });
  });
  byId("sign-out").addEventListener("click", signOut);
  byId("again").addEventListener("click", () => desk.session.connect());
  byId("log-clear").addEventListener("click", () => desk.log.clear());
  byId("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    desk.api.key = byId("key").value;
    byId("key").value = "";
    askForKey(false);
  });
  if (who) signIn(who);
  else show("sign-in");
}

function remembered() {
  const user = query.get("user")?.trim();
  if (user) return { user, tenant: query.get("tenant") ?? "", transport: query.get("transport") ?? "upgrade" };
  try {
    return JSON.parse(sessionStorage.getItem(STORED));
  } catch {
    return null;
  }
}

async function signIn(who) {
  sessionStorage.setItem(STORED, JSON.stringify(who));
  const { api: base, apiKey } = await settings();
  const jobs = new Jobs();
  const bursts = new Bursts();
  const people = new People(who.user);
  const wire = new Wire();
  const api = new WorkerAPI(base, apiKey, (answer) => {
    wire.posted(answer);
    desk.panel.answered(answer);
    if (answer.status === 401 || answer.status === 403) askForKey(true);
  });
  desk = {
    who,
    api,
    jobs,
    bursts,
    people,
    wire,
    seen: new Seen(),
    log: new LogView(),
    jobsView: new JobsView(jobs, bursts),
    peopleView: new PeopleView(people, who.user),
    panel: new Panel(api, {
      self: who.user,
      pace: Number(query.get("pace")) || DEFAULT_PACE,
      unfinished: () => jobs.unfinished(),
      away: () => away(),
    }),
    session: new Session(who, { onState: showState, onEvent: received, onJobs: listed }),
    arrivals: new Map(), // jobId → function that waits for its end
  };
  askForKey(!apiKey);
  setText(byId("who-name"), who.user);
  byId("who").hidden = false;
  show("desk");
  desk.session.connect();
}

async function settings() {
  try {
    const response = await fetch("config.json");
    if (response.ok) return await response.json();
  } catch {
    // The page is here but its server is not; the panel asks for a key, the socket keeps trying.
  }
  return { api: "/v1" };
}

function signOut() {
  desk.panel.stop();
  desk.session.leave();
  desk = null;
  sessionStorage.removeItem(STORED);
  if (location.search) history.replaceState(null, "", location.pathname);
  byId("who").hidden = true;
  byId("again").hidden = true;
  byId("answers").replaceChildren();
  byId("away-note").hidden = true;
  showState({ phase: "signed-out" });
  show("sign-in");
}

function received(name, data, id) {
  if (!desk) return;
  const { jobs, bursts, people, wire, log, seen } = desk;
  const repeat = typeof id === "string" && !seen.add(id);
  wire.received(id ?? progressKey(name, data));
  log.add(name, data, id, repeat);
  if (repeat) return;
  if (name === "online_users") people.snapshot(data);
  else if (name === "user_online") people.online(data.userId);
  else if (name === "user_offline") people.offline(data.userId, data.lastSeen);
  else if (bursts.apply(name, data)) desk.jobsView.update();
  else jobChanged(name, jobs.apply(name, data));
  desk.peopleView.update();
}

function listed(records) {
  if (!desk) return;
  desk.jobs.snapshot(records);
  desk.jobsView.update();
  desk.panel.refresh();
}

function jobChanged(name, job) {
  if (!job) return;
  desk.jobsView.update();
  desk.panel.refresh();
  if (name === "job_progress") return; // hearing every step would drown the rest
  announce(`${job.title || job.jobId}: ${job.state}`);
  desk.arrivals.get(job.jobId)?.();
}

/** Leaves, has the worker finish a job meanwhile, and returns to its result. */
async function away() {
  const { session, panel, jobs } = desk;
  const run = panel.running() ?? panel.start({ userId: desk.who.user, posting: false });
  run.pause();
  session.leave();
  const left = performance.now();
  const answers = await run.hurry();
  if (!desk) return;
  const back = performance.now();
  const here = new Promise((resolve) => desk.arrivals.set(run.jobId, () => resolve(true)));
  const patience = new Promise((resolve) => setTimeout(resolve, REPLAY_PATIENCE, false));
  session.connect();
  const came = await Promise.race([here, patience]);
  if (!desk) return;
  desk.arrivals.delete(run.jobId);
  const status = answers.at(-1)?.status ?? "nothing";
  const words = came
    ? `Finished while you were away; the result (${status}) was here ${milliseconds(performance.now() - back)} after coming back.`
    : `Away for ${milliseconds(back - left)}. The server answered “${status}”: this result was not kept for you.`;
  setText(byId("away-note"), words);
  byId("away-note").hidden = false;
}

const PHASES = {
  "signed-out": () => "Not connected",
  connecting: () => "Connecting",
  connected: ({ transport }) => `Connected · ${transport}`,
  reconnecting: ({ detail }) => `Reconnecting${detail ? ` · ${detail}` : ""}`,
  refused: ({ code, detail }) => `Refused · ${code}${detail ? `: ${detail}` : ""}`,
  offline: () => "Offline, on purpose",
  closed: ({ detail }) => `Closed · ${detail}`,
};

function showState(state) {
  byId("state").dataset.phase = state.phase;
  setText(byId("state-text"), PHASES[state.phase](state));
  byId("again").hidden = state.phase !== "refused" && state.phase !== "closed";
  byId("desk").classList.toggle("stale", state.phase !== "connected");
}

function askForKey(ask) {
  byId("key-form").hidden = !ask;
  byId("worker-panel").hidden = ask;
}

function show(section) {
  byId("sign-in").hidden = section !== "sign-in";
  byId("desk").hidden = section !== "desk";
  if (section === "sign-in") byId("name").select();
}
