// Package conformance holds tests that check a server against the two public protocol documents, Engine.IO 4 and
// Socket.IO 5. Each clause is a test that carries its name.
//
// By default they run against the little server of package server, in this process. CONFORMANCE_URL points them at any
// other: a base URL under which /engine.io/ echoes every message and /socket.io/ serves the handlers that the protocols' own
// test suites expect (see package server). The server must use a ping interval of 300 ms, a ping timeout of 200 ms and a
// maximum payload of 1,000,000 bytes.
package conformance
