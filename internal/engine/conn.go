package engine

import (
	"errors"
	"net"
	"sync"
	"time"
)

// ErrClosed is returned by Send on a connection that is closed or closing.
var ErrClosed = errors.New("engine: connection is closed")

// Reasons for which a session ends, as Handler.Closed gets them. Conn.Close may give any other.
const (
	ReasonTransportClose = "transport close" // the client left
	ReasonTransportError = "transport error" // the network failed, or requests overlapped or broke off
	ReasonPingTimeout    = "ping timeout"    // no pong within PingTimeout
	ReasonParseError     = "parse error"     // the client broke the protocol
	ReasonSlowClient     = "slow client"     // the client does not read
	ReasonShuttingDown   = "server shutting down"
	ReasonForcedClose    = "forced close"
)

var reasons = [...]string{
	ReasonTransportClose, ReasonTransportError, ReasonPingTimeout, ReasonParseError,
	ReasonSlowClient, ReasonShuttingDown, ReasonForcedClose,
}

// connState is how far a session is on its way from its handshake to its end, see Conn. It only moves forward.
type connState uint8

const (
	stateOpen connState = iota
	stateLeaving
	stateClosing
	stateFlushed
	stateDead
)

// transportState is what a session's packets go over, see Conn.
type transportState uint8

const (
	polling transportState = iota
	probing
	probed
	webSocket
)

// Conn is one session with one client, on whichever transport it currently is. Its methods may be called from any goroutine,
// also from inside its Handler.
//
// A session is in one of five states:
//
//	state    begins when                              Send     from the client  ends when
//	open     the handshake has come                   accepts  is handled       endLocked, or Close
//	leaving  Close was called while probed            refuses  is handled       the probe is over
//	closing  endLocked: it is over for the handler    refuses  is dropped       the queue is out, or time is up
//	flushed  websocket: the kernel has everything     refuses  is dropped       the client ends, or time is up
//	dead     the queue is dropped, the socket closed  refuses  is not read      endWebSocket, endPolling forget it
//
// An abrupt end goes from any of them to dead at once. Beside that it is on one of four transports:
//
//	transport  packets out              nc and in belong to     next
//	polling    answer polls             none, nc is nil         probing: a websocket with its sid came
//	probing    answer polls             the probe               probed: 2probe; polling: the probe failed
//	probed     answer polls; an idle    the probe               webSocket: 5; polling: the probe failed
//	           poll ends with a noop
//	webSocket  go to nc                 the reader; writes to   stays
//	                                    fd under mu, or to
//	                                    nc by the flusher
//
// A polling session has a poll as well, of which one GET may wait while another still writes, beside one POST; once upgraded it
// is dropped when the last GET is through.
//
// An idle websocket session is this struct, its descriptor and one parked goroutine, so the fields are few and small.
type Conn struct {
	// What a send looks at comes first: to a fan-out every connection is cold, and this is one cache line.

	srv *Server

	// mu guards everything below except in. It is a leaf but for that of Server.beats; no Handler is called under it, and
	// nothing under it waits for the client.
	mu       sync.Mutex
	state    connState
	on       transportState
	direct   bool // fd may be written to, see directWrite
	flushing bool // a flusher goroutine owns the writing side of nc
	started  bool // the handshake is over: the session's goroutine, or its polls, own its end
	awaiting bool // the heartbeat's ping has not been answered
	lingers  bool // the reader only waits for the peer's end of the connection
	departed bool // the client has said goodbye: only the answer is still to go

	fd     int32 // of nc
	corked int32
	out    queue

	nc      net.Conn
	handler Handler // set before started
	poll    *poll   // nil once upgraded and unused
	reason  string  // why the session ended, or is leaving

	id, remote string // constant

	pings, pongs uint32 // seq of the last ping sent, of the last one answered
	beat         beat

	in reader // belongs to the goroutine that reads nc
}

// ID returns the session id. It is a secret between server and client.
func (c *Conn) ID() string { return c.id }

// RemoteAddr returns the RemoteAddr of the handshake request.
func (c *Conn) RemoteAddr() string { return c.remote }

// Transport returns "polling" or "websocket".
func (c *Conn) Transport() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.on == webSocket {
		return "websocket"
	}
	return "polling"
}

// Open reports whether Send would still accept something.
func (c *Conn) Open() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state == stateOpen
}

// live reports whether the session is not over yet. The caller holds mu.
func (c *Conn) live() bool { return c.state <= stateLeaving }

// Buffered returns how many bytes are queued, not yet handed to the kernel.
func (c *Conn) Buffered() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.out.bytes
}

// Send hands the frames over, adjacent and in order. It never blocks: what the socket does not take at once is queued. It
// returns ErrClosed when the connection is closed or closing, and when the queue would pass MaxQueue, which closes the
// connection as a "slow client".
func (c *Conn) Send(frames ...*Frame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state != stateOpen {
		return ErrClosed
	}
	return c.sendLocked(frames...)
}

// Cork holds output back until as many Uncork calls have followed, which write it all at once. On a connection that is closed
// or closing it does nothing, or the client would be told of the end too late.
func (c *Conn) Cork() {
	c.mu.Lock()
	if c.live() {
		c.corked++
	}
	c.mu.Unlock()
}

// Uncork ends Cork.
func (c *Conn) Uncork() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.uncorkLocked()
}

func (c *Conn) uncorkLocked() {
	if c.corked == 0 {
		return // the end of the session has pulled every cork, and lets none in
	}
	if c.corked--; c.corked == 0 {
		c.writeLocked()
	}
}

// Ping sends the frames, if any, and a ping behind them in one write. It returns the ping's seq, which Handler.Pong gets back
// when the client has answered: in order, after everything sent before. It is 0 when the connection does not take them.
func (c *Conn) Ping(frames ...*Frame) uint32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state != stateOpen || c.pingLocked(frames...) != nil {
		return 0
	}
	return c.pings
}

// pingLocked sends a ping behind the frames, if any. It counts the ping before it is written: a pong cannot overtake it.
func (c *Conn) pingLocked(frames ...*Frame) error {
	c.pings = nextSeq(c.pings)
	if len(frames) == 0 {
		return c.sendLocked(pingFrame)
	}
	var few [4]*Frame
	return c.sendLocked(append(append(few[:0], frames...), pingFrame)...)
}

// Close ends the session: what is queued is still written, bounded by WriteTimeout, then the client is told. It returns at
// once; only the first call counts.
func (c *Conn) Close(reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.state == stateOpen && c.on == probed:
		// The client may have paused its polls, and hears of nothing but the websocket from now on: without it, what is queued
		// would be lost. So the upgrade comes first, or fails, within closeGrace.
		c.state, c.reason = stateLeaving, reason
		c.nc.SetReadDeadline(time.Now().Add(closeGrace))
	case c.state != stateLeaving:
		c.endLocked(reason, closeCode(reason), politely)
	}
}

// leaveLocked ends a session whose Close has waited for the upgrade.
func (c *Conn) leaveLocked() {
	if c.state == stateLeaving {
		c.endLocked(c.reason, closeCode(c.reason), politely)
	}
}

// ending says how a session ends.
type ending uint8

const (
	politely ending = iota // hand over what is queued, tell the client, wait a little for its own end
	abruptly               // drop everything
)

// endLocked ends an open session. Whoever calls first gives the reason; an abrupt end cuts a polite one short.
func (c *Conn) endLocked(reason string, code uint16, how ending) {
	if !c.live() {
		if how == abruptly {
			c.cutLocked()
		}
		return
	}
	c.state, c.reason, c.corked = stateClosing, reason, 0
	if c.started {
		c.srv.beats.Cancel((*beating)(c))
		c.srv.closed(c, reason)
	}
	switch {
	case c.on == webSocket:
		if how == abruptly {
			if reason == ReasonSlowClient {
				reset(c.nc)
			}
			c.cutLocked()
			return
		}
		if c.departed {
			reason = "" // the client knows why
		}
		c.pushLocked(closingFrame(code, reason))
		c.writeLocked()
		c.wakeLocked()
	default:
		if c.on != polling {
			cut(c.nc)
		}
		switch {
		case how == abruptly:
			c.cutLocked()
		case c.departed:
			// The client knows. Its poll need only end, be it here or still on its way.
			c.advanceLocked(c.out.bytes - c.poll.taken)
			c.pushLocked(noopFrame)
		default:
			c.pushLocked(closeFrame)
		}
		c.poll.notify()
		if c.started {
			go c.endPolling()
		}
	}
}

// cutLocked makes an ending session dead: the queue is dropped, the socket closed, a pending poll released.
func (c *Conn) cutLocked() {
	if c.state == stateDead {
		return
	}
	c.state, c.direct = stateDead, false // before the descriptor may be used again for another socket
	c.srv.count.buffered.Add(-int64(c.out.bytes))
	c.out = queue{}
	if c.on == webSocket && c.nc != nil {
		cut(c.nc)
	}
	if c.poll != nil {
		c.poll.die()
	}
}

// cut ends what a polite close has left.
func (c *Conn) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.endLocked(ReasonShuttingDown, 0, abruptly)
}

// start ends the handshake: output may flow, the heartbeat beats, the end of the session has an owner. The session may have
// been closed while its handler was made.
func (c *Conn) start(nc net.Conn, response []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.started = true
	c.srv.opened(c)
	if nc != nil {
		c.nc = nc
		if c.state == stateDead {
			cut(nc)
		} else {
			c.fd, c.direct = c.srv.descriptor(nc)
			c.out.unshift(&Frame{wire: response, kind: controlFrame})
			c.srv.count.buffered.Add(int64(len(response)))
		}
	}
	if c.state == stateOpen {
		c.restLocked()
		c.uncorkLocked()
		return
	}
	c.srv.closed(c, c.reason)
	switch {
	case c.on != webSocket:
		go c.endPolling()
	case c.state == stateClosing:
		c.writeLocked()
		c.wakeLocked()
	}
}

// wakeLocked wakes the goroutine that reads a websocket, which then calls Closed.
func (c *Conn) wakeLocked() {
	if c.nc != nil {
		c.nc.SetReadDeadline(longAgo)
	}
}

// discard forgets a session that has no Handler.
func (c *Conn) discard() {
	c.mu.Lock()
	c.state = stateClosing
	c.cutLocked()
	c.mu.Unlock()
	c.srv.forget(c)
}

// longAgo is a deadline that has passed.
var longAgo = time.Unix(1, 0)

// opened and closed keep the numbers of a session that has started.
func (s *Server) opened(c *Conn) {
	s.count.opened.Add(1)
	if c.on == webSocket {
		s.count.websocket.Add(1)
	} else {
		s.count.polling.Add(1)
	}
}

func (s *Server) closed(c *Conn, reason string) {
	if c.on == webSocket {
		s.count.websocket.Add(-1)
	} else {
		s.count.polling.Add(-1)
	}
	if reason == ReasonSlowClient {
		s.count.slow.Add(1)
	}
	for i, known := range reasons {
		if reason == known || i == len(reasons)-1 {
			s.count.closed[i].Add(1)
			return
		}
	}
}
