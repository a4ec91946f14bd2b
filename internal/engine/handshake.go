package engine

import (
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"net"
	"net/http"
	"strings"
	"time"
)

// serveWebSocket opens a websocket session, or probes the upgrade of the polling session c.
func (s *Server) serveWebSocket(w http.ResponseWriter, r *http.Request, c *Conn) {
	accept, why := websocketAccept(r)
	if why != nil {
		if why == errUpgrade {
			w.Header().Set("Sec-WebSocket-Version", "13")
		}
		s.reject(w, why)
		return
	}
	if c != nil {
		s.probe(w, accept, c)
		return
	}
	if c = s.open(w, r, true); c == nil {
		return
	}
	nc, early, err := hijack(w)
	if err != nil {
		// HTTP/2, or a writer that hides the connection. The handler has been told of the session, so it hears of its end.
		s.reject(w, errRequest)
		c.start(nil, nil)
		c.Close(ReasonTransportError)
		c.endWebSocket()
		return
	}
	c.in.reset(nc, early)
	c.start(nc, switching(w.Header(), accept))
	go c.read()
}

// websocketAccept checks a client's opening handshake (RFC 6455, section 4.2.1) and returns the Sec-WebSocket-Accept that
// answers it.
func websocketAccept(r *http.Request) (string, *refusal) {
	if r.Method != http.MethodGet || !r.ProtoAtLeast(1, 1) ||
		!hasToken(r.Header["Connection"], "upgrade") || !hasToken(r.Header["Upgrade"], "websocket") {
		return "", errRequest
	}
	if v := r.Header["Sec-Websocket-Version"]; len(v) != 1 || v[0] != "13" {
		return "", errUpgrade
	}
	keys := r.Header["Sec-Websocket-Key"]
	if len(keys) != 1 {
		return "", errRequest
	}
	if key, err := base64.StdEncoding.DecodeString(keys[0]); err != nil || len(key) != 16 {
		return "", errRequest
	}
	sum := sha1.Sum([]byte(keys[0] + acceptSalt))
	return base64.StdEncoding.EncodeToString(sum[:]), nil
}

const acceptSalt = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11" // the RFC's constant

// hasToken reports whether one of a list header's comma-separated values is token, in any case.
func hasToken(values []string, token string) bool {
	for _, v := range values {
		for part := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.Trim(part, " \t"), token) {
				return true
			}
		}
	}
	return false
}

// switching is the response that ends a handshake, with the headers that middleware has set. No extension or subprotocol is
// ever selected.
func switching(h http.Header, accept string) []byte {
	var b bytes.Buffer
	b.WriteString("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ")
	b.WriteString(accept)
	b.WriteString("\r\n")
	_ = h.WriteSubset(&b, notSwitching)
	b.WriteString("\r\n")
	return b.Bytes()
}

// notSwitching are headers that middleware may have set and a switching response does not have.
var notSwitching = map[string]bool{
	"Upgrade": true, "Connection": true, "Content-Length": true, "Content-Type": true, "Transfer-Encoding": true,
	"Sec-Websocket-Accept": true, "Sec-Websocket-Extensions": true, "Sec-Websocket-Protocol": true,
}

// hijack takes the connection away from net/http, with what it had read ahead, which is to be copied. Its buffers, the request
// and the goroutine that served it go away when the handler returns.
func hijack(w http.ResponseWriter) (nc net.Conn, early []byte, err error) {
	nc, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, nil, err
	}
	nc.SetDeadline(time.Time{})
	early, _ = rw.Reader.Peek(rw.Reader.Buffered())
	return nc, early, nil
}

// probe serves the websocket handshake of a session that exists. One session has one probe at a time, and upgrades once; any
// other websocket is accepted and closed, as the reference server does.
func (s *Server) probe(w http.ResponseWriter, accept string, c *Conn) {
	if !s.track() {
		s.reject(w, errUnavailable)
		return
	}
	nc, early, err := hijack(w)
	if err != nil {
		s.wg.Done()
		s.reject(w, errRequest)
		return
	}
	nc.SetDeadline(time.Now().Add(s.cfg.UpgradeTimeout))

	c.mu.Lock()
	free := c.state == stateOpen && c.on == polling
	if free {
		c.on = probing
		c.nc = nc // for endLocked, which closes it; else it is the probe's until the upgrade
	}
	c.mu.Unlock()
	response := switching(w.Header(), accept)
	if !free {
		s.count.rejected.Add(1)
		go s.turnAway(nc, response)
		return
	}
	c.in.reset(nc, early)
	go c.upgrade(nc, response)
}

// turnAway accepts a websocket only to close it.
func (s *Server) turnAway(nc net.Conn, response []byte) {
	defer s.wg.Done()
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(closeGrace))
	if _, err := nc.Write(append(response, closingFrame(closePolicy, "").wire...)); err != nil {
		return
	}
	halfClose(nc)
	var scratch [64]byte
	for {
		if _, err := nc.Read(scratch[:]); err != nil {
			return
		}
	}
}

// upgrade is the goroutine of a probe. When the client completes it, it becomes that of the websocket session.
func (c *Conn) upgrade(nc net.Conn, response []byte) {
	defer c.srv.wg.Done()
	code, ok := c.probing(nc, response)
	if ok {
		c.read()
		return
	}
	// The session goes on polling.
	c.srv.count.upgradeFail.Add(1)
	c.in.free()
	c.mu.Lock()
	if c.on != webSocket {
		c.on, c.nc = polling, nil
		c.leaveLocked()
	}
	c.mu.Unlock()
	nc.SetWriteDeadline(time.Now().Add(closeGrace))
	_, _ = nc.Write(closingFrame(code, "").wire)
	nc.Close()
}

// probing talks to the client until the upgrade packet, within the deadline that nc has; else it returns the close code.
func (c *Conn) probing(nc net.Conn, response []byte) (uint16, bool) {
	if _, err := nc.Write(response); err != nil {
		return closeNormal, false
	}
	for answered := false; ; {
		op, data, err := c.in.next(maxControl)
		var broken violation
		if errors.As(err, &broken) {
			return uint16(broken), false
		} else if err != nil {
			return closeNormal, false
		}
		switch {
		case op == opPing:
			if _, err := nc.Write(newFrame(opPong, data, nil).wire); err != nil {
				return closeNormal, false
			}
		case op == opPong:
		case op == opText && string(data) == "2probe" && !answered:
			answered = true
			c.mu.Lock()
			ended := !c.live()
			if !ended {
				c.on = probed // before the client can know
			}
			c.mu.Unlock()
			if ended {
				return closeNormal, false
			}
			if _, err := nc.Write(probedFrame.wire); err != nil {
				return closeNormal, false
			}
			c.mu.Lock()
			if c.live() {
				c.poll.release = c.poll.waiting
				c.poll.notify()
			}
			c.mu.Unlock()
		case op == opText && string(data) == "5" && answered:
			return closeNormal, c.switchTransport(nc)
		case op == opClose:
			return closeNormal, false
		default:
			return closeProtocol, false
		}
	}
}

// switchTransport makes the probe's websocket the session's transport. A client that upgrades has had the answer to its last
// poll, so everything still queued follows it on the websocket, in order.
func (c *Conn) switchTransport(nc net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.poll
	if !c.live() {
		return false
	}
	if p.post != noPost {
		// Its packets and the websocket's would mix.
		c.violatedLocked(closeProtocol)
		return false
	}
	c.on = webSocket
	c.srv.count.polling.Add(-1)
	c.srv.count.websocket.Add(1)
	c.srv.count.upgrades.Add(1)
	nc.SetDeadline(time.Time{})
	c.fd, c.direct = c.srv.descriptor(nc)
	if p.writing {
		// The client has the answer, but its handler has not heard so yet. What was taken goes out before what was not.
		p.corks = true
		c.corked++
	}
	p.notify()
	c.releasePollLocked()
	c.writeLocked()
	c.leaveLocked()
	return true
}
