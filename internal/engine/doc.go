// Package engine is the Engine.IO server under the Socket.IO library.
//
// It speaks Engine.IO protocol 4 (github.com/socketio/engine.io-protocol) over websocket (RFC 6455) and HTTP long-polling, with
// the upgrade from one to the other. HTTP requests flow in through Server.ServeHTTP; for every session a Handler gets the
// client's messages, and a Conn takes what goes to the client. It knows nothing of users, tokens or Socket.IO packets; only
// binding.go, which presents a Conn to the library, imports the library.
//
// # Protocol
//
//   - EIO=4 only. Other revisions are answered 400 {"code":5,"message":"Unsupported protocol version"}; JSONP is refused.
//   - Packets are open 0, close 1, ping 2, pong 3, message 4, upgrade 5, noop 6. From a client come close, pong and message;
//     2probe and 5 belong to a probe; anything else, and a pong that answers no ping, is a "parse error".
//   - Websocket: one packet a message; binary messages are websocket binary frames. Client frames must be masked; reserved bits
//     and opcodes, control frames over 125 bytes or fragmented, text that is not UTF-8 and close codes that may not be on the
//     wire close the connection with 1002, 1007 or 1009. Fragmented messages and control frames in between are understood.
//     Close frames are echoed. No extension (permessage-deflate) and no subprotocol is ever selected.
//   - Long-polling: packets are separated by \x1e, binary ones base64 behind a 'b'. POSTs are answered 200 "ok". A second GET
//     or POST beside one under way is answered 400 and ends the session, as does a GET or POST that breaks off. A poll answer
//     that could not be written ends the session too, so nothing is lost inside one that lives.
//   - Upgrade: a websocket with a session's sid probes (2probe, 3probe), waiting polls end with a noop, 5 completes. What was
//     queued follows on the websocket, in order. A probe that fails leaves polling alive; a second one, or one after the
//     upgrade, is accepted and closed with 1008.
//   - Close: what is queued goes out first, then a close packet to the poll, or a websocket close frame: 1000, 1001 when the
//     server shuts down (clients reconnect), 1008 for ping timeouts. The reason is the close frame's text.
//
// # Bounds
//
//   - A message, a POST body: Config.MaxPayload. A longer frame is refused by its header, a longer body is answered 413. Memory
//     grows with the bytes that have arrived, by doubling, not with what is announced.
//   - A poll answer: Config.MaxPayload, or one packet if that alone is larger.
//   - Queued output of a client: Config.MaxQueue bytes, besides what the kernel takes. A client that takes no 32 KiB within
//     Config.WriteTimeout is slow as well; slow clients are reset.
//   - A POST body must arrive within PingInterval+PingTimeout and while its session lives.
//   - A closing session ends after WriteTimeout plus one second, whatever its client does; Closed is told at once.
//
// # Goroutines and locks
//
// An idle websocket session is one parked goroutine with a 2 kB stack and about 1.3 kB of heap, descriptor included; an idle
// polling session is the goroutine of its waiting request. Writes go straight to the socket from the caller's goroutine where
// the system has non-blocking writes (build tag unix, plain TCP); what does not fit there, and all output elsewhere (TLS, other
// systems), goes through the session's queue and a flusher that lives while there is a queue. Shutdown waits for all
// goroutines.
//
// Conn.mu guards one session and is a leaf, but for that of Server.beats below it. Server.mu and the runners' lock are never
// held together with it. No Handler, logger or library call is made under any of them.
package engine
