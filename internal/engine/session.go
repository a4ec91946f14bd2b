package engine

import (
	"errors"
	"time"
)

// read is the goroutine of a websocket session: it takes everything in and, when that ends, ends the session. Its stack must
// stay at the 2 kB it starts with, so what is deep goes to a runner.
func (c *Conn) read() {
	for {
		op, data, err := c.in.next(c.srv.cfg.MaxPayload)
		if err != nil {
			c.readFailed(err)
			break
		}
		if !c.frame(op, data) {
			break
		}
	}
	c.endWebSocket()
}

// readFailed ends a session whose client broke RFC 6455 or is gone.
func (c *Conn) readFailed(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.live() {
		return // a passed deadline is how endLocked wakes the reader
	}
	var broken *violation
	if errors.As(err, &broken) {
		c.violatedLocked(broken.code)
		return
	}
	c.endLocked(ReasonTransportClose, 0, abruptly)
}

// violatedLocked ends a session whose client broke the protocol. A websocket client is told its close code.
func (c *Conn) violatedLocked(code uint16) {
	if !c.live() {
		return
	}
	c.srv.count.protocol.Add(1)
	how := politely
	if c.on != webSocket {
		how = abruptly
	}
	c.endLocked(ReasonParseError, code, how)
}

// frame handles one websocket message or control frame; false ends the reading.
func (c *Conn) frame(op opcode, data []byte) bool {
	switch op {
	case opPong:
		return true
	case opPing:
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.live() && c.sendLocked(newFrame(opPong, data, nil)) == nil
	case opClose:
		c.mu.Lock()
		defer c.mu.Unlock()
		code, err := peerClose(data)
		if err != nil {
			c.violatedLocked(err.code)
			return false
		}
		c.departed = true
		c.endLocked(ReasonTransportClose, code, politely)
		return false
	}
	k, ok := c.packet(data, op == opBinary)
	if ok && k.kind != callNothing {
		c.srv.runners.run(k)
	}
	return ok
}

// packet judges one Engine.IO packet of an open session and returns the handler call that it asks for. False means that the
// session is over, by this packet or before it.
func (c *Conn) packet(data []byte, binary bool) (call, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.live() {
		return call{}, false
	}
	c.srv.count.packetsIn.Add(1)
	c.srv.count.bytesIn.Add(uint64(len(data)))
	if binary {
		return call{conn: c, kind: callMessage, binary: true, data: data}, true
	}
	if len(data) > 0 {
		switch data[0] {
		case packetMessage:
			return call{conn: c, kind: callMessage, data: data[1:]}, true
		case packetPong:
			if seq, ok := c.pongLocked(); ok {
				return call{conn: c, kind: callPong, seq: seq}, true
			}
		case packetClose:
			c.departed = c.on != webSocket
			c.endLocked(ReasonTransportClose, closeNormal, politely)
			return call{}, false
		}
	}
	// Everything else only a server sends, or belongs to a probe.
	c.violatedLocked(closeProtocol)
	return call{}, false
}

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
