package engine

import (
	"net"
	"sync/atomic"
	"time"
)

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

// start ends the handshake: output may flow, the heartbeat beats, the end of the session has an owner. The session may have
// been closed while its handler was made.
func (c *Conn) start(nc net.Conn, response []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.started = true
	c.srv.count.opened.Add(1)
	c.gauge().Add(1)
	if nc != nil {
		c.nc = nc
		if c.state == stateDead {
			cut(nc)
		} else {
			c.fd, c.direct = c.srv.descriptor(nc)
			c.out.unshift(&Frame{wire: response})
			c.srv.count.buffered.Add(int64(len(response)))
		}
	}
	if c.state == stateOpen {
		c.restLocked()
		c.uncorkLocked()
		return
	}
	c.uncountLocked()
	switch {
	case c.on != webSocket:
		go c.endPolling()
	case c.state == stateClosing:
		c.writeLocked()
		c.wakeLocked()
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
		c.uncountLocked()
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

// wakeLocked wakes the goroutine that reads a websocket, which then calls Closed.
func (c *Conn) wakeLocked() {
	if c.nc != nil {
		c.nc.SetReadDeadline(longAgo)
	}
}

// longAgo is a deadline that has passed.
var longAgo = time.Unix(1, 0)

// endWebSocket tells the handler that a websocket session is over, gives the peer time to take in the end of the connection,
// and closes the descriptor.
func (c *Conn) endWebSocket() {
	c.in.free()
	c.ended()

	c.mu.Lock()
	nc := c.nc
	flushed := c.state == stateFlushed
	wait := nc != nil && (c.state == stateClosing || flushed && !c.departed)
	if wait {
		c.lingers = true
		grace := c.srv.cfg.WriteTimeout
		if flushed {
			grace = closeGrace
		}
		nc.SetReadDeadline(time.Now().Add(grace))
	}
	c.mu.Unlock()
	// Closing with unread input would make the kernel reset the connection, and the client lose the close frame.
	for wait {
		_, err := nc.Read(c.in.buf[:])
		wait = err == nil
	}

	c.mu.Lock()
	c.cutLocked()
	c.mu.Unlock()
	c.srv.forget(c)
}

// ended tells the handler. It is called once a session, when no other call is being made.
func (c *Conn) ended() {
	c.srv.runners.run(call{conn: c, kind: callClosed})
	c.srv.cfg.Logger.Debug("engine: session ended", "remote", c.remote, "reason", c.reason)
}

// halfClose ends the server's direction, after the close frame.
func halfClose(nc net.Conn) {
	if half, ok := nc.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite() // fails on what is gone already
	}
}

// cut closes a socket at once. Under TLS a close may wait for a last record to be written, so the socket below goes first.
func cut(nc net.Conn) {
	if tls, ok := nc.(interface{ NetConn() net.Conn }); ok {
		tls.NetConn().Close()
	}
	nc.Close()
}

// reset makes the kernel drop what it still holds for a client that does not read.
func reset(nc net.Conn) {
	if tcp, ok := nc.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
}

// gauge is the number of open sessions on c's transport.
func (c *Conn) gauge() *atomic.Int64 {
	if c.on == webSocket {
		return &c.srv.count.websocket
	}
	return &c.srv.count.polling
}

// uncountLocked is called once for every session that has started.
func (c *Conn) uncountLocked() {
	c.gauge().Add(-1)
	if c.reason == ReasonSlowClient {
		c.srv.count.slow.Add(1)
	}
}
