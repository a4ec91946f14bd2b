// Package realtime is the Socket.IO side of the house: the [Hub] owns the Socket.IO library's server, every connected
// [Session], and the rooms they are in.
//
// In flow connections (from package engine) and messages for users and rooms (from delivery and presence); out flow calls to
// a [Lifecycle] (authenticate, connected, disconnected, confirmed) and to the typed handlers of client events ([Handle]).
// Nothing outside sees the library, its callbacks or its []any.
//
// # The way of a packet
//
//	engine reader → ingress (copies, counts, never blocks others) → that session's task → decoder → connect | handler
//	EmitUser → snapshot of the room → one engine.Frame → Conn.Send of each session
//
// The ingress stands before the library. It decodes every packet itself, strictly (codec.go), and lets the library see one
// thing only: a CONNECT to the main namespace that is well formed and is the first of its connection. The library then does
// what it is good at (middleware, CONNECT and CONNECT_ERROR, socket identity, io.To(room).Emit through our [socket.Adapter]);
// it is told when the connection is gone. Events never reach it: it would run each in a goroutine of its own and lose their
// order.
//
// All packets of one session are handled one at a time, in order, on a goroutine that lives only while there is work. The
// goroutine that reads from the client only hands over, so its stack stays small and a slow handler holds back nobody but
// its own client.
//
// # What is refused, and how
//
// The namespace is "/". A CONNECT to another one is answered CONNECT_ERROR {"message":"Invalid namespace"}, at most three
// times a connection. A refused CONNECT is answered CONNECT_ERROR {"message":…,"data":{"code":…,"message":…}}, and the
// connection is closed a second later. Everything else that is not allowed closes the connection at once, under a reason
// that is counted ([Stats].Closed): packets that are not Socket.IO 5, events before the CONNECT was answered, a second
// CONNECT, attachments beyond eight or beyond 1 MiB, more events than Config.EventRate allows. Clients
// with socket.io-msgpack-parser send their CONNECT as a binary message; they are answered CONNECT_ERROR in msgpack, so that
// they stay away, and closed as "unsupported parser".
//
// An ACK that nobody asked for is ignored, as the official servers do: the server asks for none. It counts as an event
// against the rate.
//
// # Order
//
// Two emits made one after the other reach every session in that order: an emit hands its frame to every connection before
// it returns, and a connection keeps the order of its sends. Emits made at the same time by different goroutines may reach
// two sockets in different order; who needs one order for a user serializes its emits, as delivery does.
//
// No lock is held while sending. An emit copies the list of members under the lock of the room's shard and sends after it:
// it reaches those who were in the room when it began, and a session that leaves meanwhile drops it.
//
// # Receipts
//
// A message with Confirm is followed by an Engine.IO ping. Clients answer pings in the order of what they received, so the
// pong proves that the client's Socket.IO runtime has had the message. One such ping is in flight per session at a time.
package realtime
