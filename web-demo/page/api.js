// The worker API as any worker calls it. The page is not privileged: without
// a key it gets the same 401 as everybody.

export class WorkerAPI {
  #base;
  #key;
  #onAnswer;

  /**
   * onAnswer is told of every call: {call, ok, status, text, ms, began, count, ids}; count is how many events it took,
   * ids are those that went out to a socket at once, for progress what tells it: it has no id on the wire.
   */
  constructor(base, key, onAnswer) {
    this.#base = base;
    this.#key = key;
    this.#onAnswer = onAnswer;
  }

  set key(key) {
    this.#key = key;
  }

  /** Posts one event; resolves to the answer's body, rejects with an Error that carries code. */
  async event(event) {
    const key = progressKey(event.event, event.data);
    return this.#post("/events", event, (body) => ({ text: outcome(body), count: 1, ids: key ? atOnce([{ ...body, id: key }]) : atOnce([body]) }));
  }

  /** Posts up to 100 events in one call; resolves to the results, in order. */
  async batch(events) {
    return this.#post("/events/batch", { events }, (body) => {
      const results = body.results ?? [];
      const bad = results.filter(({ error }) => error);
      return {
        text: bad.length ? `${bad.length} of ${results.length} refused` : `${results.length} events, ${outcome(results.at(-1) ?? {})}`,
        count: results.length,
        ids: atOnce(results),
      };
    });
  }

  async #post(path, body, describe) {
    const began = performance.now();
    const told = { call: `POST ${this.#base}${path}`, began };
    let response;
    let answer;
    try {
      response = await fetch(this.#base + path, {
        method: "POST",
        headers: { "Content-Type": "application/json", Authorization: `Bearer ${this.#key}` },
        body: JSON.stringify(body),
      });
      answer = await response.json();
    } catch {
      this.#onAnswer({ ...told, ok: false, status: "", text: "no answer", ms: performance.now() - began, count: 1, ids: [] });
      throw Object.assign(new Error("The server did not answer."), { code: "no_answer" });
    }
    const ms = performance.now() - began;
    if (!response.ok) {
      const code = answer.code ?? "error";
      this.#onAnswer({ ...told, ok: false, status: response.status, text: code, ms, count: 1, ids: [] });
      throw Object.assign(new Error(answer.detail ?? answer.title ?? code), { code, status: response.status });
    }
    this.#onAnswer({ ...told, ok: true, status: response.status, ms, ...describe(answer) });
    return answer;
  }
}

/** What tells one progress of a job from others; undefined for other events. */
export const progressKey = (name, data) => (name === "job_progress" ? `${data?.jobId} at ${data?.progress}` : undefined);

const atOnce = (results) => results.filter(({ status }) => status === "sent").map(({ id }) => id);

function outcome({ status = "", sockets, reason }) {
  const parts = [status];
  if (sockets > 0) parts.push(`to ${sockets} ${sockets === 1 ? "socket" : "sockets"}`);
  if (reason) parts.push(`(${reason})`);
  return parts.join(" ");
}
