package engine

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"
)

// servePost takes in a POST's packets.
func (s *Server) servePost(w http.ResponseWriter, r *http.Request, c *Conn) {
	c.mu.Lock()
	p := c.poll
	var why *refusal
	switch {
	case c.on == webSocket:
		why = errRequest
	case c.state == stateDead || c.departed:
		why = errSession
	case p.post != noPost: // packets would come out of order
		c.endLocked(ReasonTransportError, 0, abruptly)
		why = errRequest
	default:
		p.post = receiving
	}
	c.mu.Unlock()
	if why != nil {
		s.reject(w, why)
		return
	}

	body := newBuffer()
	defer body.free()
	why = c.readBody(w, r, p, body)

	c.mu.Lock()
	p.reading = nil
	switch {
	case c.state == stateDead:
		why = errSession
	case why != nil:
		// A hole in the client's stream; it gives the session up too.
		c.endLocked(ReasonTransportError, 0, abruptly)
	case c.live():
		p.post = dispatching
		// default: the client has yet to come for what is queued before the close packet, and would give up over a refusal of
		// its pongs. What it sends is of no use any more.
	}
	dispatch := p.post == dispatching
	c.mu.Unlock()
	if dispatch {
		why = c.dispatch(body.b)
	}

	// Before the answer, which the client may follow up at once.
	c.mu.Lock()
	p.post = noPost
	if p.quiet != nil {
		close(p.quiet)
		p.quiet = nil
	}
	c.mu.Unlock()
	if why != nil {
		w.Header().Set("Connection", "close") // the rest of the body is not wanted
		s.reject(w, why)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=UTF-8")
	h.Set("Cache-Control", "no-store")
	w.Write([]byte("ok"))
}

// readBody reads a POST's body, bounded in size, memory and time, and no longer than the session lives.
func (c *Conn) readBody(w http.ResponseWriter, r *http.Request, p *poll, body *buffer) *refusal {
	cfg := &c.srv.cfg
	limit := cfg.MaxPayload
	switch {
	case strings.HasPrefix(r.Header.Get("Content-Type"), "application/octet-stream"):
		return errRequest // binary packets are base64 in protocol 4
	case r.ContentLength > int64(limit):
		return errTooLarge
	}
	rc := http.NewResponseController(w)
	c.mu.Lock()
	if c.state == stateDead { // die has been called already
		c.mu.Unlock()
		return errSession
	}
	// A pong could not come in meanwhile, so a slower body would not be of use.
	rc.SetReadDeadline(time.Now().Add(cfg.PingInterval + cfg.PingTimeout))
	p.reading = w
	c.mu.Unlock()
	src := http.MaxBytesReader(w, r.Body, int64(limit))
	for {
		n, err := src.Read(body.room(limit + 1 - len(body.b)))
		body.b = body.b[:len(body.b)+n]
		if err == nil {
			continue
		}
		var large *http.MaxBytesError
		switch {
		case errors.As(err, &large):
			return errTooLarge
		case err != io.EOF:
			return errRequest
		}
		rc.SetReadDeadline(time.Time{})
		return nil
	}
}

// dispatch hands a payload's packets to the handler, on the request's own goroutine. Tasks are left to runners.
func (c *Conn) dispatch(payload []byte) *refusal {
	if !utf8.Valid(payload) {
		return c.malformed()
	}
	broken := false
	err := splitPayload(payload, func(data []byte, binary bool) bool {
		k, ok := c.packet(data, binary)
		if !ok {
			c.mu.Lock()
			broken = c.reason == ReasonParseError
			c.mu.Unlock()
			return false
		}
		if rest := k.do(); rest != nil {
			c.srv.runners.start(c, rest)
		}
		return true
	})
	if err != nil {
		return c.malformed()
	}
	if broken {
		return errRequest
	}
	return nil // also when the session ended in between: what came before that was taken in
}

func (c *Conn) malformed() *refusal {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.violatedLocked(closeProtocol)
	return errRequest
}
