package engine

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// patience bounds what a test waits for; nothing waits that long when it works.
const patience = 10 * time.Second

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// onBothPaths runs a test with direct writes and with the portable queue and flusher.
func onBothPaths(t *testing.T, cfg Config, test func(t *testing.T, s *testServer)) {
	for _, portable := range []bool{false, true} {
		cfg.portable = portable
		t.Run(map[bool]string{false: "direct", true: "portable"}[portable], func(t *testing.T) {
			test(t, newTestServer(t, cfg))
		})
	}
}

// testServer is an engine behind net/http whose handlers record what they are told.
type testServer struct {
	*Server
	http     *httptest.Server
	sessions chan *recorder

	mu         sync.Mutex
	onOpen     func(*Conn, *http.Request)           // runs inside accept
	onMsg      func(c *Conn, b []byte, binary bool) // runs inside Message
	task       func(message string)                 // what Message leaves to do; set before the first session
	refuse     bool
	whenClosed func(*Conn, string) // runs inside Closed; set before the first session
}

// recorder is a Handler that records.
type recorder struct {
	*Conn
	srv      *testServer
	messages chan string // binary ones with the prefix "b:"
	pongs    chan uint32
	closed   chan string
	ends     int
	busy     sync.Mutex // held during every call: two at a time fail TryLock
	t        testing.TB
}

func newTestServer(t testing.TB, cfg Config) *testServer {
	s := &testServer{sessions: make(chan *recorder, 4096)}
	s.Server = NewServer(cfg, func(c *Conn, r *http.Request) Handler {
		s.mu.Lock()
		refuse, onOpen := s.refuse, s.onOpen
		s.mu.Unlock()
		if refuse {
			return nil
		}
		rec := &recorder{
			Conn: c, srv: s, t: t,
			messages: make(chan string, 4096), pongs: make(chan uint32, 1024), closed: make(chan string, 8),
		}
		if onOpen != nil {
			onOpen(c, r)
		}
		s.sessions <- rec
		return rec
	})
	s.http = httptest.NewServer(s.Server)
	t.Cleanup(func() {
		for _, c := range s.Server.sessions() {
			if c.Transport() == "polling" {
				c.cut() // its client will not come for the close packet
			}
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		s.http.CloseClientConnections()
		s.http.Close()
		st := s.Stats()
		if st.Polling != 0 || st.WebSocket != 0 || st.Buffered != 0 {
			t.Errorf("gauges after shutdown: %d polling, %d websocket, %d buffered", st.Polling, st.WebSocket, st.Buffered)
		}
	})
	return s
}

// echo makes every session send back what it gets.
func (s *testServer) echo() {
	s.onMessage(func(c *Conn, b []byte, binary bool) {
		if binary {
			c.Send(BinaryFrame(b))
		} else {
			c.Send(TextFrame(b))
		}
	})
}

func (s *testServer) onMessage(fn func(c *Conn, b []byte, binary bool)) {
	s.mu.Lock()
	s.onMsg = fn
	s.mu.Unlock()
}

func (r *recorder) enter() func() {
	if !r.busy.TryLock() {
		r.t.Error("two handler calls at a time")
		return func() {}
	}
	return r.busy.Unlock
}

func (r *recorder) Message(data []byte, binary bool) Task {
	defer r.enter()()
	if r.ends > 0 {
		r.t.Error("Message after Closed")
	}
	r.srv.mu.Lock()
	fn := r.srv.onMsg
	r.srv.mu.Unlock()
	if fn != nil {
		fn(r.Conn, data, binary)
	}
	prefix := ""
	if binary {
		prefix = "b:"
	}
	select {
	case r.messages <- prefix + string(data):
	default:
	}
	if r.srv.task == nil {
		return nil
	}
	message := string(data)
	return taskFunc(func() { r.srv.task(message) })
}

type taskFunc func()

func (f taskFunc) Run() { f() }

func (r *recorder) Pong(seq uint32) {
	defer r.enter()()
	if r.ends > 0 {
		r.t.Error("Pong after Closed")
	}
	r.pongs <- seq
}

func (r *recorder) Closed(reason string) Task {
	defer r.enter()()
	if r.ends++; r.ends > 1 {
		r.t.Errorf("Closed called %d times", r.ends)
	}
	if r.srv.whenClosed != nil {
		r.srv.whenClosed(r.Conn, reason)
	}
	r.closed <- reason
	return nil
}

// session returns the recorder of the session opened last.
func (s *testServer) session(t testing.TB) *recorder { return recv(t, s.sessions, "session") }

func recv[T any](t testing.TB, ch <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatalf("no %s", what)
		panic("unreachable")
	}
}

func (r *recorder) wantClosed(t testing.TB, want string) {
	t.Helper()
	if got := recv(t, r.closed, "Closed"); got != want {
		t.Fatalf("closed with %q, want %q", got, want)
	}
}

func (r *recorder) wantMessage(t testing.TB, want string) {
	t.Helper()
	if got := recv(t, r.messages, "message"); got != want {
		t.Fatalf("message %.80q, want %.80q", got, want)
	}
}

// --- a websocket client that can break every rule

type wsClient struct {
	net.Conn
	t  testing.TB
	rd *bufio.Reader
}

const goodHandshake = "GET /socket.io/?EIO=4&transport=websocket%s HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\n" +
	"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"

func (s *testServer) dial(t testing.TB) net.Conn {
	t.Helper()
	nc, err := net.Dial("tcp", s.http.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(patience))
	return nc
}

// websocket opens a websocket and reads the handshake's response; sid "" opens a session.
func (s *testServer) websocket(t testing.TB, sid string) *wsClient {
	t.Helper()
	return s.websocketWith(t, sid, nil)
}

// websocketWith sends early in the same segment as the handshake.
func (s *testServer) websocketWith(t testing.TB, sid string, early []byte) *wsClient {
	t.Helper()
	nc := s.dial(t)
	query := ""
	if sid != "" {
		query = "&sid=" + sid
	}
	if _, err := nc.Write(append(fmt.Appendf(nil, goodHandshake, query), early...)); err != nil {
		t.Fatal(err)
	}
	c := &wsClient{nc, t, bufio.NewReader(nc)}
	res, err := http.ReadResponse(c.rd, nil)
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("handshake answered %s", res.Status)
	}
	if got := res.Header.Get("Sec-WebSocket-Accept"); got != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		t.Fatalf("Sec-WebSocket-Accept %q", got) // the RFC's own example
	}
	return c
}

// open opens a websocket session and reads its open packet.
func (s *testServer) openWebSocket(t testing.TB) (*wsClient, *recorder) {
	t.Helper()
	c := s.websocket(t, "")
	open := c.packet()
	if !strings.HasPrefix(open, `0{"sid":"`) {
		t.Fatalf("first packet %q", open)
	}
	return c, s.session(t)
}

// clientFrame is a masked frame.
func clientFrame(b0 byte, payload string) []byte {
	b := []byte{b0}
	switch n := len(payload); {
	case n <= 125:
		b = append(b, 0x80|byte(n))
	case n <= 0xffff:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	mask := [4]byte{0x12, 0x34, 0x56, 0x78}
	b = append(b, mask[:]...)
	for i := range len(payload) {
		b = append(b, payload[i]^mask[i&3])
	}
	return b
}

func (c *wsClient) write(b []byte) {
	c.t.Helper()
	if _, err := c.Conn.Write(b); err != nil {
		c.t.Fatalf("write: %v", err)
	}
}

func (c *wsClient) text(packet string) { c.t.Helper(); c.write(clientFrame(0x81, packet)) }

// frame reads one frame.
func (c *wsClient) frame() (b0 byte, payload []byte, err error) {
	var head [2]byte
	if _, err := io.ReadFull(c.rd, head[:]); err != nil {
		return 0, nil, err
	}
	if head[1]&0x80 != 0 {
		return 0, nil, errors.New("masked server frame")
	}
	n := uint64(head[1])
	switch n {
	case 126:
		var ext [2]byte
		io.ReadFull(c.rd, ext[:])
		n = uint64(binary.BigEndian.Uint16(ext[:]))
	case 127:
		var ext [8]byte
		io.ReadFull(c.rd, ext[:])
		n = binary.BigEndian.Uint64(ext[:])
	}
	payload = make([]byte, n)
	_, err = io.ReadFull(c.rd, payload)
	return head[0], payload, err
}

// packet reads one text frame.
func (c *wsClient) packet() string {
	c.t.Helper()
	b0, payload, err := c.frame()
	if err != nil || b0 != 0x81 {
		c.t.Fatalf("no text frame: first byte %#x, payload %q, error %v", b0, payload, err)
	}
	return string(payload)
}

func (c *wsClient) wantPacket(want string) {
	c.t.Helper()
	if got := c.packet(); got != want {
		c.t.Fatalf("packet %.80q, want %.80q", got, want)
	}
}

// wantSilence checks that nothing comes for a moment.
func (c *wsClient) wantSilence() {
	c.t.Helper()
	c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	var timeout net.Error
	if b0, payload, err := c.frame(); !errors.As(err, &timeout) || !timeout.Timeout() {
		c.t.Fatalf("not silent: %#x %q %v", b0, payload, err)
	}
	c.SetReadDeadline(time.Now().Add(patience))
}

// wantClose reads until a close frame and checks its code, then the end of the connection. Other frames may come before.
func (c *wsClient) wantClose(code uint16) {
	c.t.Helper()
	for {
		b0, payload, err := c.frame()
		if err != nil {
			c.t.Fatalf("no close frame: %v", err)
		}
		if b0 != 0x88 {
			continue
		}
		got := uint16(closeNoStatus)
		if len(payload) >= 2 {
			got = binary.BigEndian.Uint16(payload)
		}
		if got != code {
			c.t.Fatalf("close code %d, want %d", got, code)
		}
		c.wantEnd()
		return
	}
}

// wantEnd checks that the server ends the connection in an orderly way.
func (c *wsClient) wantEnd() {
	c.t.Helper()
	if b, err := io.ReadAll(c.rd); err != nil || len(b) > 0 {
		c.t.Fatalf("after the close frame: %q, %v", b, err)
	}
}

// --- polling

type answer struct {
	status int
	body   string
	header http.Header
}

func (s *testServer) url(sid string) string {
	u := s.http.URL + "/socket.io/?EIO=4&transport=polling"
	if sid != "" {
		u += "&sid=" + sid
	}
	return u
}

func (s *testServer) do(t testing.TB, method, url string, body io.Reader, header ...string) answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := s.http.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{res.StatusCode, string(b), res.Header}
}

func (s *testServer) get(t testing.TB, sid string) answer {
	t.Helper()
	return s.do(t, "GET", s.url(sid), nil)
}

func (s *testServer) post(t testing.TB, sid, body string) answer {
	t.Helper()
	return s.do(t, "POST", s.url(sid), strings.NewReader(body))
}

// openPacket is the JSON of an open packet.
type openPacket struct {
	SID                                   string   `json:"sid"`
	Upgrades                              []string `json:"upgrades"`
	PingInterval, PingTimeout, MaxPayload int64
}

func parseOpen(t testing.TB, packet string) openPacket {
	t.Helper()
	var open openPacket
	dec := json.NewDecoder(strings.NewReader(strings.TrimPrefix(packet, "0")))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&open); err != nil || packet[0] != '0' {
		t.Fatalf("open packet %q: %v", packet, err)
	}
	return open
}

// openPoll opens a polling session.
func (s *testServer) openPoll(t testing.TB) (string, *recorder) {
	t.Helper()
	a := s.get(t, "")
	if a.status != 200 {
		t.Fatalf("handshake answered %d %q", a.status, a.body)
	}
	return parseOpen(t, a.body).SID, s.session(t)
}

func (a answer) want(t testing.TB, status int, body string) {
	t.Helper()
	if a.status != status || a.body != body {
		t.Fatalf("answered %d %.200q, want %d %.200q", a.status, a.body, status, body)
	}
}

// inBackground starts a request and returns where its answer will be.
func inBackground(fn func() answer) <-chan answer {
	ch := make(chan answer, 1)
	go func() { ch <- fn() }()
	return ch
}

// untilWaiting returns once a GET of the session waits in the engine.
func untilWaiting(t testing.TB, c *Conn) {
	t.Helper()
	eventually(t, "a waiting poll", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.poll != nil && c.poll.waiting
	})
}

// eventually polls a condition that nothing announces.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("no %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func repeat(s string, n int) string { return string(bytes.Repeat([]byte(s), n)) }

// Transport returns "polling" or "websocket".
func (c *Conn) Transport() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.on == webSocket {
		return "websocket"
	}
	return "polling"
}
