// A worker: anything that can POST JSON.

import { Agent, request } from "node:http";

export class Worker {
  #server;
  #agent = new Agent({ keepAlive: true });

  /** server has url and key; they may still change until the first call. */
  constructor(server) {
    this.#server = server;
  }

  /** Any request: {status, headers, text, body}; body is the parsed JSON, if it is JSON. */
  call(method, path, body, headers = {}) {
    const payload = body === undefined || typeof body === "string" || Buffer.isBuffer(body) ? body : JSON.stringify(body);
    const own = { Authorization: `Bearer ${this.#server.key}` };
    if (payload !== undefined) own["Content-Type"] = "application/json";
    const all = Object.fromEntries(Object.entries({ ...own, ...headers }).filter(([, value]) => value !== null));
    return new Promise((resolve, reject) => {
      const sent = request(this.#server.url + path, { method, headers: all, agent: this.#agent, timeout: 15_000 }, (answer) => {
        const chunks = [];
        answer.on("data", (chunk) => chunks.push(chunk));
        answer.on("error", reject);
        answer.on("end", () => {
          const text = Buffer.concat(chunks).toString();
          const json = /json/.test(answer.headers["content-type"] ?? "");
          resolve({ status: answer.statusCode, headers: answer.headers, text, body: json ? JSON.parse(text) : undefined });
        });
      });
      sent.on("timeout", () => sent.destroy(new Error(`${method} ${path} is not answered`)));
      sent.on("error", reject);
      sent.end(payload);
    });
  }

  /** Sends one event and wants it taken. */
  async send(userId, event, data, more = {}) {
    const { status, body, text } = await this.call("POST", "/v1/events", { userId, event, data, ...more });
    if (status !== 202) throw new Error(`POST /v1/events: ${status} ${text}`);
    return body;
  }

  async batch(events) {
    const { status, body, text } = await this.call("POST", "/v1/events/batch", { events });
    if (status !== 200) throw new Error(`POST /v1/events/batch: ${status} ${text}`);
    return body.results;
  }

  close() {
    this.#agent.destroy();
  }
}
