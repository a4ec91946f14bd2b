package engine

import (
	"errors"
	"log/slog"
	"runtime/debug"
	"sync"
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
		code, broken := peerClose(data)
		if broken != 0 {
			c.violatedLocked(uint16(broken))
			return false
		}
		c.departed = true
		c.endLocked(ReasonTransportClose, code, politely)
		return false
	}
	k, ok := c.packet(data, op == opBinary)
	if ok {
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

// readFailed ends a session whose client broke RFC 6455 or is gone.
func (c *Conn) readFailed(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.live() {
		return // a passed deadline is how endLocked wakes the reader
	}
	var broken violation
	if errors.As(err, &broken) {
		c.violatedLocked(uint16(broken))
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

// call is one call of a connection's Handler, or what such a call has left to do.
type call struct {
	conn   *Conn
	kind   callKind
	binary bool
	seq    uint32
	data   []byte
	rest   Task
}

type callKind uint8

const (
	callMessage callKind = iota
	callPong
	callClosed
	callRest // its caller does not wait
)

// do makes the call, and returns what it leaves to do. What panics in a handler ends its own connection, not the process.
func (k *call) do() (rest Task) {
	defer func() {
		if v := recover(); v != nil {
			k.conn.srv.count.panics.Add(1)
			k.conn.srv.cfg.Logger.Error("engine: handler panicked", slog.Any("panic", v), slog.String("stack", string(debug.Stack())))
			k.conn.Close(ReasonForcedClose)
		}
	}()
	switch h := k.conn.handler; k.kind {
	case callMessage:
		return h.Message(k.data, k.binary)
	case callPong:
		h.Pong(k.seq)
	case callClosed:
		return h.Closed(k.conn.reason) // written once, before the session's end was told
	case callRest:
		k.rest.Run()
	}
	return nil
}

// runners make the handler calls of websocket sessions, on a few goroutines whose stacks are grown already.
//
// The goroutine that reads a connection must keep its first 2 kB of stack for as long as the connection lives, and what a
// handler does (JSON, tokens, stores) needs more. The reader hands a call over and waits for it, so order and backpressure are
// those of a plain call. The Task that a call returns is run by the same runner, when the reader has gone on.
type runners struct {
	mu   sync.Mutex
	idle []*runner // last in, first out: the warmest stack, and the rest can go
	left bool      // there is no session: no runner stays idle
	wg   sync.WaitGroup
}

// maxIdleRunners is what a burst of connects keeps busy; their stacks are a megabyte at most.
const maxIdleRunners = 64

type runner struct {
	calls chan call
	done  chan struct{} // without a buffer: when the runner goes on, its reader has let go of it
}

// run makes the call on a runner and returns when it has returned.
func (p *runners) run(k call) {
	r := p.take()
	r.calls <- k
	<-r.done
}

// start runs the task on a runner and returns at once.
func (p *runners) start(c *Conn, rest Task) {
	p.take().calls <- call{conn: c, kind: callRest, rest: rest}
}

// take returns an idle runner, or a new one, for a session that holds the server's own count.
func (p *runners) take() *runner {
	p.mu.Lock()
	p.left = false
	if n := len(p.idle); n > 0 {
		r := p.idle[n-1]
		p.idle[n-1] = nil
		p.idle = p.idle[:n-1]
		p.mu.Unlock()
		return r
	}
	p.mu.Unlock()
	r := &runner{make(chan call, 1), make(chan struct{})}
	p.wg.Go(func() { p.serve(r) })
	return r
}

func (p *runners) serve(r *runner) {
	for k := range r.calls {
		rest := k.do()
		if k.kind != callRest {
			r.done <- struct{}{}
		}
		if rest != nil {
			k = call{conn: k.conn, kind: callRest, rest: rest}
			k.do()
		}
		if !p.keep(r) {
			return
		}
	}
}

// keep makes a runner idle, unless there are enough of them.
func (p *runners) keep(r *runner) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.left || len(p.idle) >= maxIdleRunners {
		return false
	}
	p.idle = append(p.idle, r)
	return true
}

// leave lets the idle runners go, and the others when they are done: there is no session left.
func (p *runners) leave() {
	p.mu.Lock()
	idle := p.idle
	p.idle, p.left = nil, true
	p.mu.Unlock()
	for _, r := range idle {
		close(r.calls)
	}
}
