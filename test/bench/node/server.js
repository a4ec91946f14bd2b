// The official Node server as a good team would write it: socket.io on plain
// node:http, tokens checked in a middleware, one room per user, events relayed
// from an authenticated POST. It follows socket.io's own advice on memory (the
// first HTTP request of a session is not kept) and leaves the rest at defaults.

import { createServer } from "node:http";
import { timingSafeEqual } from "node:crypto";
import jwt from "jsonwebtoken";
import { Server } from "socket.io";

const env = (name) => {
  const value = process.env[name];
  if (!value) throw new Error(`${name} must be set`);
  return value;
};
const [host, port] = env("BENCH_ADDR").split(":");
const secret = env("BENCH_JWT_SECRET");
const apiKey = Buffer.from(env("BENCH_API_KEY"));
const announce = process.env.BENCH_PRESENCE === "everyone";
const maxBody = 64 * 1024;

const http = createServer((req, res) => {
  if (req.method === "POST" && req.url === "/v1/events") return postEvent(req, res);
  reply(res, 404, { error: "not_found" });
});
const io = new Server(http, { transports: ["websocket", "polling"] });
io.engine.on("connection", (raw) => {
  raw.request = null;
});

io.use((socket, next) => {
  try {
    const claims = jwt.verify(socket.handshake.auth.token, secret, { algorithms: ["HS256"] });
    socket.data.userId = String(claims.sub);
    socket.data.expiresAt = claims.exp;
    next();
  } catch {
    next(new Error("unauthorized"));
  }
});

const online = new Map(); // user id → number of sockets
io.on("connection", (socket) => {
  const { userId, expiresAt } = socket.data;
  socket.join(`user:${userId}`);
  socket.emit("authenticated", { userId, expiresAt });

  const sockets = (online.get(userId) ?? 0) + 1;
  online.set(userId, sockets);
  if (announce) {
    socket.emit("online_users", { users: [...online.keys()], count: online.size });
    if (sockets === 1) socket.broadcast.emit("user_online", { userId });
  }

  socket.on("disconnect", () => {
    const left = online.get(userId) - 1;
    if (left > 0) return void online.set(userId, left);
    online.delete(userId);
    if (announce) io.emit("user_offline", { userId });
  });
});

function authorized(req) {
  const key = Buffer.from((req.headers.authorization ?? "").replace(/^Bearer /, ""));
  return key.length === apiKey.length && timingSafeEqual(key, apiKey);
}

function postEvent(req, res) {
  if (!authorized(req)) return reply(res, 401, { error: "unauthorized" });
  const chunks = [];
  let size = 0;
  req.on("data", (chunk) => {
    size += chunk.length;
    if (size <= maxBody) chunks.push(chunk);
  });
  req.on("end", () => {
    if (size > maxBody) return reply(res, 413, { error: "too_large" });
    let message;
    try {
      message = JSON.parse(Buffer.concat(chunks).toString());
    } catch {
      return reply(res, 400, { error: "bad_request" });
    }
    const { userId, event, data } = message ?? {};
    if (typeof userId !== "string" || typeof event !== "string") {
      return reply(res, 400, { error: "bad_request" });
    }
    io.to(`user:${userId}`).emit(event, data);
    reply(res, 202, { status: "sent", sockets: online.get(userId) ?? 0 });
  });
}

function reply(res, status, body) {
  const text = JSON.stringify(body);
  res.writeHead(status, { "Content-Type": "application/json", "Content-Length": Buffer.byteLength(text) });
  res.end(text);
}

http.listen(Number(port), host);
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => process.exit(0));
