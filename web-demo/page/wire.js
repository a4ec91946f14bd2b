// The strip at the top: every POST and every event is a spark on the wire.

import { byId, milliseconds, number, perFrame, setText } from "./dom.js";

const MAX_SPARKS = 14; // on one lane at a time; a burst is a stream, not a thousand elements
const WAITING = 2000; // POSTs and events that wait for their other half

export class Wire {
  #lanes = Object.fromEntries([...document.querySelectorAll(".lane")].map((lane) => [lane.dataset.lane, lane]));
  #posts = 0;
  #events = 0;
  #latency = 0;
  #begun = new Map(); // event id → when its POST began
  #arrived = new Map(); // event id → when it came here
  #still = matchMedia("(prefers-reduced-motion: reduce)");
  #update = perFrame(() => this.#draw());

  /** A POST of count events was answered; began is when it was sent, ids went out at once. */
  posted({ began, ids, count }) {
    this.#posts += count;
    for (const id of ids) {
      const arrived = this.#arrived.get(id);
      if (arrived >= began) this.#latency = arrived - began;
      else remember(this.#begun, id, began); // not here yet, or what came before was a replay
    }
    this.#spark("post");
    this.#update();
  }

  received(id) {
    this.#events++;
    const now = performance.now();
    const began = this.#begun.get(id);
    if (began !== undefined) this.#latency = now - began;
    else if (id) remember(this.#arrived, id, now);
    this.#spark("event");
    this.#update();
  }

  #draw() {
    setText(byId("n-posts"), number.format(this.#posts));
    setText(byId("n-events"), number.format(this.#events));
    setText(byId("n-latency"), this.#latency ? `${milliseconds(this.#latency)} through` : "ready");
  }

  #spark(name) {
    const lane = this.#lanes[name];
    if (this.#still.matches || document.hidden || lane.childElementCount >= MAX_SPARKS) return;
    const spark = document.createElement("i");
    spark.addEventListener("animationend", () => spark.remove(), { once: true });
    lane.append(spark);
  }
}

function remember(map, id, value) {
  map.set(id, value);
  if (map.size > WAITING) map.delete(map.keys().next().value);
}
