// Package conformance holds tests that check a server against the two public protocol documents, Engine.IO 4 and
// Socket.IO 5. Each clause is a test that carries its name.
//
// By default they run against the little server of package server, in this process. CONFORMANCE_URL points them at any
// other: a base URL under which /engine.io/ echoes every message and /socket.io/ serves the handlers that the protocols' own
// test suites expect (see package server). The server must use a ping interval of 300 ms, a ping timeout of 200 ms and a
// maximum payload of 1,000,000 bytes.
//
// The tests hold what the documents say, where they say it. The reference server (socket.io 4.8 on engine.io 6.6) passes
// them but for two points: it does not close the connection for an EVENT without a payload, nor for a websocket client's
// "close" packet.
//
// Of the protocols' own suites, Engine.IO's passes as a whole against package server. Of Socket.IO's, the three tests that
// want a namespace "/custom" do not, since there is only "/". Some others need a client that hands out one message a tick,
// as browsers do (with the ws package: allowSynchronousEvents: false): they listen for the CONNECT reply and the event
// behind it one after the other, and here both come in one write.
package conformance
