// What most tests want: a server, its worker, and tabs that are closed afterwards.

import { after, before, afterEach } from "node:test";
import { Server } from "./server.mjs";
import { Tab } from "./tab.mjs";
import { Worker } from "./worker.mjs";

/** One server for all tests of a describe block (or file). */
export function stage(...flags) {
  const server = new Server(flags);
  const tabs = new Set();
  const set = {
    server,
    worker: new Worker(server),
    /** A tab of user; options.token null sends none. */
    tab(user, { token = server.token(user), ...options } = {}) {
      const tab = new Tab(server.url, { ...(token === null ? {} : { auth: { token } }), ...options });
      tabs.add(tab);
      return tab;
    },
  };
  before(() => server.start());
  afterEach(() => {
    for (const tab of tabs) tab.close();
    tabs.clear();
  });
  after(async () => {
    set.worker.close();
    await server.stop();
  });
  return set;
}

let users = 0;
/** A user id that no other test of this process uses. */
export const someone = (name = "user") => `${name}-${++users}`;
