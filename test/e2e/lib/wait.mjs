// Waiting for what is announced by events, never for an amount of time.

/** The promise's value, or an error that explain describes when ms have passed. */
export function deadline(promise, ms, explain) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${explain()} (waited ${ms} ms)`)), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** A record of things that happened, which can be waited on. */
export class Record {
  all = [];
  #waiting = new Set();

  add(thing) {
    this.all.push(thing);
    for (const check of this.#waiting) check();
  }

  /** Resolves to the first truthy value of find(all), now or at a later add. */
  until(find, what, ms = 15_000) {
    let check;
    const found = new Promise((resolve) => {
      check = () => {
        const value = find(this.all);
        if (value) resolve(value);
      };
      this.#waiting.add(check);
      check();
    });
    return deadline(found, ms, () => `${what} did not happen; what did: ${brief(this.all)}`).finally(() => this.#waiting.delete(check));
  }
}

function brief(all) {
  const text = all.slice(-12).map((thing) => JSON.stringify(thing)).join("\n  ");
  return `${all.length} in all, the last ones\n  ${text}`;
}
