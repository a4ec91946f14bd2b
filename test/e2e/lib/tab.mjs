// A browser tab, as far as a server can see: an unmodified socket.io-client.

import { io as io48 } from "sio-48";
import { io as io45 } from "sio-45";
import { io as io31 } from "sio-31";
import { deadline, Record } from "./wait.mjs";

export const VERSIONS = { "4.8": io48, "4.5": io45, "3.1": io31 };
export const TRANSPORTS = { websocket: ["websocket"], polling: ["polling"], upgrade: ["polling", "websocket"] };

export class Tab {
  /** What the socket raised, in order: {name, args}; connect, disconnect and connect_error are among it. */
  record = new Record();
  /** The text of every Socket.IO packet as it came in. */
  frames = [];
  socket;

  constructor(url, { version = "4.8", transport = "upgrade", ...options } = {}) {
    this.socket = VERSIONS[version](url, {
      transports: TRANSPORTS[transport],
      autoConnect: false,
      forceNew: true,
      reconnectionDelay: 20,
      reconnectionDelayMax: 200,
      ...options,
    });
    this.socket.onAny((name, ...args) => this.record.add({ name, args }));
    this.socket.on("connect", () => this.record.add({ name: "connect", args: [this.socket.id] }));
    this.socket.on("disconnect", (reason) => this.record.add({ name: "disconnect", args: [reason] }));
    this.socket.on("connect_error", (error) => this.record.add({ name: "connect_error", args: [{ message: error.message, data: error.data }] }));
    this.socket.io.on("open", () => this.#watchEngine());
    this.socket.connect();
  }

  #watchEngine() {
    const { engine } = this.socket.io;
    engine.on("packet", ({ type, data }) => {
      if (type === "message") this.frames.push(data);
    });
    engine.on("upgrade", ({ name }) => this.record.add({ name: "(upgrade)", args: [name] }));
  }

  get transport() {
    return this.socket.io.engine.transport.name;
  }

  get events() {
    return this.record.all;
  }

  named(name) {
    return this.events.filter((event) => event.name === name);
  }

  /** The nth (from 1) event of that name, when it is there. */
  nth(name, n = 1) {
    return this.record.until(() => this.named(name)[n - 1], `${name} number ${n}`);
  }

  /** Until everything that a connect brings by itself has arrived. */
  async ready() {
    await this.nth("online_users");
    return this;
  }

  /** Emits with an ack, as every version can. */
  ask(event, ...args) {
    const answered = new Promise((resolve) => this.socket.emit(event, ...args, resolve));
    return deadline(answered, 10_000, () => `${event} was not acknowledged`);
  }

  /** Cuts the connection as a crash or a page reload does: no Socket.IO goodbye. */
  cut() {
    this.socket.io.reconnection(false);
    this.socket.io.engine.close();
  }

  close() {
    this.socket.io.reconnection(false);
    this.socket.disconnect();
  }
}
