// One user's connection: an unmodified socket.io-client, and a token that is
// fetched when it is needed and kept nowhere but here.

const TRANSPORTS = {
  upgrade: ["polling", "websocket"],
  websocket: ["websocket"],
  polling: ["polling"],
};

async function fetchToken({ user, tenant }) {
  const response = await fetch("token", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ userId: user, tenant }),
  });
  const body = await response.json();
  if (!response.ok) throw Object.assign(new Error(body.detail), { code: body.code });
  return { value: body.token, expires: Date.parse(body.expiresAt) };
}

/**
 * Connects a user. onState is told {phase, transport, detail, code} at every
 * change, phase being connecting, connected, reconnecting, refused, offline or
 * closed; onEvent is told every event as (name, data, id); onJobs the user's
 * jobs as the server has them, after each connect and what it has replayed.
 */
export class Session {
  #identity;
  #socket;
  #token = null;
  #refresh = 0;
  #onState;
  #warning = "";

  constructor({ user, tenant, transport }, { onState, onEvent, onJobs }) {
    this.#identity = { user, tenant };
    this.#onState = onState;
    this.#socket = window.io({
      autoConnect: false,
      forceNew: true,
      transports: TRANSPORTS[transport] ?? TRANSPORTS.upgrade,
      reconnectionDelay: 300,
      reconnectionDelayMax: 5000,
      auth: (send) => this.#authenticate(send),
    });
    this.#watch(onEvent, onJobs);
  }

  connect() {
    this.#say("connecting");
    this.#socket.connect();
  }

  /** Leaves on purpose: others see it after the grace. connect() comes back. */
  leave() {
    clearTimeout(this.#refresh);
    this.#socket.disconnect();
  }

  get transport() {
    return this.#socket.io.engine?.transport?.name ?? "";
  }

  #say(phase, more = {}) {
    this.#onState({ phase, transport: phase === "connected" ? this.transport : "", detail: "", code: "", ...more });
  }

  #watch(onEvent, onJobs) {
    const socket = this.#socket;
    socket.onAny((name, data, id) => onEvent(name, data, id));
    socket.on("connect", () => {
      this.#warning = "";
      this.#say("connected");
      socket.io.engine.once("upgrade", () => this.#say("connected"));
      this.#refreshInTime();
      this.#askForJobs(onJobs);
    });
    socket.on("unauthorized", ({ code, message } = {}) => {
      this.#token = null;
      this.#warning = message ?? code ?? "";
    });
    socket.on("disconnect", (reason) => {
      clearTimeout(this.#refresh);
      if (reason === "io client disconnect") this.#say("offline");
      else if (socket.active) this.#say("reconnecting", { detail: this.#warning || reason });
      else this.#say("closed", { detail: this.#warning || "by the server" });
    });
    socket.on("connect_error", (error) => {
      if (socket.active) {
        this.#say("reconnecting", { detail: error.message });
        return;
      }
      this.#token = null;
      this.#say("refused", { code: error.data?.code ?? error.message, detail: error.data?.message ?? "" });
    });
  }

  async #askForJobs(onJobs) {
    try {
      const { jobs } = await this.#socket.timeout(10_000).emitWithAck("get_jobs", {});
      if (jobs) onJobs(jobs);
    } catch {
      // The connection was lost meanwhile: the next one asks again.
    }
  }

  // The client asks at every connect, also after a lost connection, so a token
  // that ended in the meantime is never sent.
  async #authenticate(send) {
    try {
      if (!this.#token || this.#token.expires - Date.now() < 5000) this.#token = await fetchToken(this.#identity);
      send({ token: this.#token.value });
    } catch (error) {
      this.#token = null;
      if (error.code) {
        this.#socket.disconnect();
        this.#say("refused", { code: error.code, detail: error.message });
        return;
      }
      this.#socket.io.engine.close(); // no answer at all: let the client try again in its own time
    }
  }

  // Refreshes the token in place at four fifths of its life: no reconnect.
  #refreshInTime() {
    clearTimeout(this.#refresh);
    if (!this.#token) return;
    const left = (this.#token.expires - Date.now()) * 0.8;
    this.#refresh = setTimeout(async () => {
      try {
        const fresh = await fetchToken(this.#identity);
        const reply = await this.#socket.timeout(5000).emitWithAck("authenticate", { token: fresh.value });
        if (reply?.error) throw new Error(reply.error.code);
        this.#token = fresh;
        this.#refreshInTime();
      } catch {
        this.#token = null; // the server will close at the expiry, and the next connect fetches one
      }
    }, Math.min(Math.max(left, 1000), 2 ** 31 - 1));
  }
}
