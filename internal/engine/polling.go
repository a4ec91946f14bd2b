package engine

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"
)

// poll is what a session needs while its transport is HTTP long-polling. It is guarded by Conn.mu.
type poll struct {
	wake  chan struct{} // capacity 1: something that the waiting GET should look at
	done  chan struct{} // closed when output is over
	quiet chan struct{} // made by who waits for a POST to have called the handler

	reading http.ResponseWriter // of the POST whose body is being read; nil when there is none

	waiting bool // a GET waits for packets
	writing bool // a GET writes what it took: the next one waits, and so does a new transport
	release bool // the waiting GET is to end with a noop: a probe was answered
	corks   bool // the end of writing pulls the cork that the upgrade put in
	taken   int  // bytes that the writing GET took from the queue
	post    postState
}

// postState is what becomes of a session's POST.
type postState uint8

const (
	noPost      postState = iota
	receiving             // its body is being read
	dispatching           // it calls the handler
)

// notify makes the waiting GET look. It needs no lock.
func (p *poll) notify() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// die releases the waiting GET, if any, the POST that waits for its body, and endPolling.
func (p *poll) die() {
	close(p.done)
	p.notify()
	if p.reading != nil {
		http.NewResponseController(p.reading).SetReadDeadline(longAgo)
	}
}

// openPolling opens a polling session; its handshake is the first poll.
func (s *Server) openPolling(w http.ResponseWriter, r *http.Request) {
	c := s.open(w, r, false)
	if c == nil {
		return
	}
	c.start(nil, nil)
	s.servePoll(w, r, c)
}

// servePoll answers a GET with the next packets, when there are any.
func (s *Server) servePoll(w http.ResponseWriter, r *http.Request, c *Conn) {
	c.mu.Lock()
	p := c.poll
	var why *refusal
	switch {
	case c.on == webSocket:
		why = errRequest
	case c.state == stateDead, c.state == stateClosing && c.out.empty(): // the last packet is out, or on its way
		why = errSession
	case p.waiting: // packets would come out of order
		c.endLocked(ReasonTransportError, 0, abruptly)
		why = errRequest
	default:
		p.waiting = true
	}
	c.mu.Unlock()
	if why != nil {
		s.reject(w, why)
		return
	}

	frames, why := c.awaitPackets(r.Context(), p)
	if why != nil {
		s.reject(w, why)
		return
	}
	if frames == nil {
		return // the client is gone
	}
	err := answerPoll(w, frames, s.cfg.WriteTimeout)

	c.mu.Lock()
	defer c.mu.Unlock()
	c.polledLocked(p, err)
}

// probedPoll is how long a poll waits that comes when the upgrade should: a client that has not seen the probe's answer yet
// would otherwise come again and again.
const probedPoll = 100 * time.Millisecond

// awaitPackets returns what the poll is answered with; nothing at all when its client went away.
func (c *Conn) awaitPackets(ctx context.Context, p *poll) ([]*Frame, *refusal) {
	var release <-chan time.Time
	for {
		c.mu.Lock()
		frames, why := c.takeLocked(p)
		released := c.on == probed
		c.mu.Unlock()
		if frames != nil || why != nil {
			return frames, why
		}
		if released && release == nil {
			timer := time.NewTimer(probedPoll)
			defer timer.Stop()
			release = timer.C
		}
		select {
		case <-p.wake:
		case <-release:
			release = nil
			c.mu.Lock()
			p.release = c.on == probed
			c.mu.Unlock()
		case <-ctx.Done():
			// Nothing has been taken, but a client whose poll broke off gives the session up.
			c.mu.Lock()
			defer c.mu.Unlock()
			p.waiting = false
			if c.on == webSocket {
				c.releasePollLocked()
			} else {
				c.endLocked(ReasonTransportError, 0, abruptly)
			}
			return nil, nil
		}
	}
}

// takeLocked takes what the waiting GET may be answered with now, nil for nothing. From here on the client may send its next
// GET: it can have the whole answer before the handler of this one has returned.
func (c *Conn) takeLocked(p *poll) (frames []*Frame, why *refusal) {
	switch {
	case p.writing:
		return nil, nil
	case c.state == stateDead:
		frames = []*Frame{closeFrame}
	case c.on == webSocket: // a client that upgrades has no poll under way
		p.waiting = false
		c.releasePollLocked()
		return nil, errRequest
	case c.corked == 0 && !c.out.empty():
		frames = c.takePayloadLocked(p)
	case p.release:
		frames = []*Frame{noopFrame}
	default:
		return nil, nil
	}
	p.waiting, p.writing, p.release = false, true, false
	return frames, nil
}

// takePayloadLocked takes as many packets as fit in one payload, at least one. The close packet travels alone: clients act on
// it before they have handled the messages that came with it.
func (c *Conn) takePayloadLocked(p *poll) []*Frame {
	n, size := 0, -1 // the first has no separator
	for _, f := range c.out.frames {
		if size += payloadSize(f); n > 0 && (size > c.srv.cfg.MaxPayload || f == closeFrame) {
			break
		}
		p.taken += len(f.wire)
		n++
	}
	frames := append([]*Frame(nil), c.out.frames[:n]...)
	c.out.drop(n)
	return frames
}

// polledLocked ends a poll. A session whose answer could not be written is over: what was taken may be lost.
func (c *Conn) polledLocked(p *poll, err error) {
	p.writing = false
	taken := p.taken
	p.taken = 0
	if c.state != stateDead { // else the queue has been written off as a whole
		c.out.bytes -= taken
		c.srv.count.buffered.Add(-int64(taken))
	}
	switch {
	case err != nil && (taken > 0 || c.on != webSocket):
		c.endLocked(ReasonTransportError, 0, abruptly)
	case c.on == webSocket:
		if p.corks {
			p.corks = false
			c.uncorkLocked()
		}
		c.releasePollLocked()
	case c.state == stateClosing && c.out.empty():
		c.cutLocked() // the close packet is out
	}
	p.notify() // a next GET may be waiting for this one
}

// releasePollLocked drops the polling state of an upgraded session once no GET needs it.
func (c *Conn) releasePollLocked() {
	if p := c.poll; p != nil && !p.waiting && !p.writing {
		c.poll = nil
	}
}

// answerPoll writes a payload, and everything net/http has buffered of it, within the timeout.
func answerPoll(w http.ResponseWriter, frames []*Frame, timeout time.Duration) error {
	buf := newBuffer()
	defer buf.free()
	for _, f := range frames {
		buf.b = appendPacket(buf.b, f)
	}
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=UTF-8")
	h.Set("Content-Length", strconv.Itoa(len(buf.b)))
	h.Set("Cache-Control", "no-store")
	http.NewResponseController(w).SetWriteDeadline(time.Now().Add(timeout))
	w.WriteHeader(http.StatusOK)
	_, err := w.Write(buf.b)
	if err == nil {
		err = flush(w)
	}
	return err // net/http lifts the deadline before the connection's next request
}

// flush flushes w and reports whether that failed, also through wrappers (Gin's) whose own Flush does not say. The request's
// context would not do: a client may close its connection as soon as it has the whole answer.
func flush(w http.ResponseWriter) error {
	if err := http.NewResponseController(w).Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	for {
		switch inner := w.(type) {
		case interface{ FlushError() error }:
			return inner.FlushError() // a failure sticks, so asking twice does no harm
		case interface{ Unwrap() http.ResponseWriter }:
			w = inner.Unwrap()
		default:
			return nil
		}
	}
}

// endPolling is the goroutine of a polling session that ends: it tells the handler, once no POST is calling it, and waits for
// the client to come for the close packet.
func (c *Conn) endPolling() {
	c.mu.Lock()
	p := c.poll
	var quiet chan struct{}
	if p.post == dispatching {
		quiet = make(chan struct{})
		p.quiet = quiet
	}
	linger := c.srv.cfg.WriteTimeout
	if c.departed {
		linger = min(closeGrace, linger)
	}
	c.mu.Unlock()
	if quiet != nil {
		<-quiet
	}
	c.ended()

	timer := time.NewTimer(linger)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
	case <-c.srv.stop:
		c.lingerWhileComing(p, min(2*closeGrace, linger))
	}
	c.mu.Lock()
	c.cutLocked()
	c.mu.Unlock()
	c.srv.forget(c)
}

// lingerWhileComing waits while the client comes for what is queued, at the latest after each grace. Shutdown's context is the
// bound of it all.
func (c *Conn) lingerWhileComing(p *poll, grace time.Duration) {
	timer := time.NewTimer(grace)
	defer timer.Stop()
	for left := c.Buffered(); ; timer.Reset(grace) {
		select {
		case <-p.done:
			return
		case <-timer.C:
		}
		now := c.Buffered()
		if now == left {
			return
		}
		left = now
	}
}
