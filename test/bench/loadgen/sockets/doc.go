// Package sockets is a client with thousands of connections in one thread,
// lean enough to share a small machine with the server it measures. It goes
// over websocket, or over HTTP long-polling for Socket.IO.
//
// Specs (user, token) flow in through [Pool.Connect]; authenticated
// connections answer heartbeats by themselves unless they are told to wait,
// and every event a server sends flows out through one callback on the pool's
// own thread. What the client says on a connection is decided by a Dialect:
// Socket.IO, centrifuge's JSON, or the bare server's.
//
// It runs on Linux only (epoll) and talks to servers that do not fragment
// their messages; anything it does not expect ends that connection and is
// reported, never ignored.
package sockets
