package engine

import (
	"bytes"
	"crypto/sha1"
	"encoding/base64"
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
	var text [keyLen + len(acceptSalt)]byte
	var key [keyLen]byte
	if len(keys[0]) != keyLen {
		return "", errRequest
	}
	if n, err := base64.StdEncoding.Decode(key[:], append(text[:0], keys[0]...)); err != nil || n != 16 {
		return "", errRequest
	}
	copy(text[keyLen:], acceptSalt)
	sum := sha1.Sum(text[:])
	return base64.StdEncoding.EncodeToString(sum[:]), nil
}

const (
	keyLen     = 24                                     // of 16 bytes in base64
	acceptSalt = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11" // the RFC's constant
)

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
