// Copies the official browser script of the pinned socket.io-client to the
// folder that the binary embeds the page from. Run by `make demo` and
// `make build` after `npm ci`.
import { copyFile, readFile } from "node:fs/promises";

const dist = new URL("./node_modules/socket.io-client/dist/socket.io.min.js", import.meta.url);
const page = new URL("./page/lib/socket.io.min.js", import.meta.url);

const unchanged = await Promise.all([readFile(dist), readFile(page).catch(() => null)]).then(
  ([wanted, present]) => present !== null && wanted.equals(present),
);
// An unchanged file keeps its time, so that a Go build after this one is still cached.
if (!unchanged) await copyFile(dist, page);
