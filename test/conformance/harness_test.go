package conformance

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"

	"jobwire/test/conformance/server"
)

// base is the URL of the server under test, without a slash at its end.
var base string

func TestMain(m *testing.M) {
	if base = strings.TrimSuffix(os.Getenv("CONFORMANCE_URL"), "/"); base != "" {
		fmt.Println("conformance: testing", base)
		os.Exit(m.Run())
	}
	handler := server.New(slog.New(slog.DiscardHandler))
	srv := httptest.NewServer(handler)
	base = srv.URL
	code := m.Run()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := handler.Shutdown(ctx); err != nil {
		fmt.Println("conformance: shutdown:", err)
		code = 1
	}
	srv.Close()
	http.DefaultClient.CloseIdleConnections()
	if err := goleak.Find(); err != nil {
		fmt.Println("conformance:", err)
		code = 1
	}
	os.Exit(code)
}

// patience bounds every wait for something that must happen.
const patience = 5 * time.Second

const (
	engineIO = "/engine.io/"
	socketIO = "/socket.io/"
)

// request makes one HTTP request and returns status and body. A server may also break an offending request off: status 0.
func request(t *testing.T, method, url, body string) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, base+url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "text/plain;charset=UTF-8")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(data)
}

func wantStatus(t *testing.T, what string, want, got int, body string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: status %d, want %d (%.200s)", what, got, want, body)
	}
}

// open is the payload of the open packet.
type open struct {
	Sid          string
	Upgrades     []string
	PingInterval int
	PingTimeout  int
	MaxPayload   int
}

func parseOpen(t *testing.T, packet string) open {
	t.Helper()
	text, ok := strings.CutPrefix(packet, "0")
	if !ok {
		t.Fatalf("not an open packet: %q", packet)
	}
	var o open
	dec := json.NewDecoder(strings.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&o); err != nil {
		t.Fatalf("open packet %q: %v", packet, err)
	}
	return o
}

// polling is a session over HTTP long-polling.
type polling struct {
	t    *testing.T
	url  string
	open open
}

func openPolling(t *testing.T, path string) *polling {
	t.Helper()
	url := path + "?EIO=4&transport=polling"
	status, body := request(t, "GET", url, "")
	wantStatus(t, "handshake", 200, status, body)
	o := parseOpen(t, body)
	return &polling{t, url + "&sid=" + o.Sid, o}
}

// receive polls until packets other than pings have come; pings are answered.
func (p *polling) receive() []string {
	p.t.Helper()
	for {
		status, body := request(p.t, "GET", p.url, "")
		if status != 200 {
			p.t.Fatalf("poll: status %d (%.200s)", status, body)
		}
		var packets []string
		for _, packet := range strings.Split(body, "\x1e") {
			if packet == "2" {
				p.send("3")
			} else {
				packets = append(packets, packet)
			}
		}
		if len(packets) > 0 {
			return packets
		}
	}
}

// expect polls until these packets have come.
func (p *polling) expect(want ...string) {
	p.t.Helper()
	var got []string
	for len(got) < len(want) {
		got = append(got, p.receive()...)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		p.t.Fatalf("got %q, want %q", got, want)
	}
}

func (p *polling) send(packets ...string) {
	p.t.Helper()
	status, body := request(p.t, "POST", p.url, strings.Join(packets, "\x1e"))
	if status != 200 || body != "ok" {
		p.t.Fatalf("POST: %d %q", status, body)
	}
}

// expectClosed wants the session to be unknown, soon.
func (p *polling) expectClosed() {
	p.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		status, body := request(p.t, "GET", p.url, "")
		if status == 400 {
			return
		}
		if time.Now().After(end) {
			p.t.Fatalf("the session is still known: %d %.200s", status, body)
		}
	}
}

// wsConn is a websocket, to whatever session.
type wsConn struct {
	t  *testing.T
	ws *websocket.Conn
}

func dialWS(t *testing.T, url string) (*wsConn, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, base+url, nil)
	if err != nil {
		return nil, err
	}
	ws.SetReadLimit(-1)
	t.Cleanup(func() { ws.CloseNow() })
	return &wsConn{t, ws}, nil
}

func openWS(t *testing.T, path string) (*wsConn, open) {
	t.Helper()
	c, err := dialWS(t, path+"?EIO=4&transport=websocket")
	if err != nil {
		t.Fatal(err)
	}
	return c, parseOpen(t, c.readRaw())
}

func (c *wsConn) send(packets ...string) {
	c.t.Helper()
	for _, p := range packets {
		c.write(websocket.MessageText, []byte(p))
	}
}

func (c *wsConn) sendBinary(data ...byte) {
	c.t.Helper()
	c.write(websocket.MessageBinary, data)
}

func (c *wsConn) write(kind websocket.MessageType, data []byte) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	if err := c.ws.Write(ctx, kind, data); err != nil {
		c.t.Fatal(err)
	}
}

func (c *wsConn) tryRead() (websocket.MessageType, []byte, error) {
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	return c.ws.Read(ctx)
}

// readRaw returns the next text frame, pings included.
func (c *wsConn) readRaw() string {
	c.t.Helper()
	kind, data, err := c.tryRead()
	if err != nil {
		c.t.Fatal(err)
	}
	if kind != websocket.MessageText {
		c.t.Fatalf("binary frame %x", data)
	}
	return string(data)
}

// read returns the next text frame that is not a ping; pings are answered.
func (c *wsConn) read() string {
	c.t.Helper()
	for {
		if packet := c.readRaw(); packet != "2" {
			return packet
		}
		c.send("3")
	}
}

func (c *wsConn) expect(want ...string) {
	c.t.Helper()
	for _, w := range want {
		if got := c.read(); got != w {
			c.t.Fatalf("got %q, want %q", got, w)
		}
	}
}

func (c *wsConn) expectBinary(want ...byte) {
	c.t.Helper()
	for {
		kind, data, err := c.tryRead()
		if err != nil {
			c.t.Fatal(err)
		}
		if kind == websocket.MessageText && string(data) == "2" {
			c.send("3")
			continue
		}
		if kind != websocket.MessageBinary || !bytes.Equal(data, want) {
			c.t.Fatalf("got %v %q, want binary %x", kind, data, want)
		}
		return
	}
}

// expectClosed wants the server to close, answering pings until then: the heartbeat must not be the reason.
func (c *wsConn) expectClosed() {
	c.t.Helper()
	for end := time.Now().Add(patience); ; {
		kind, data, err := c.tryRead()
		if errors.Is(err, context.DeadlineExceeded) || err == nil && time.Now().After(end) {
			c.t.Fatal("the connection stays open")
		}
		if err != nil {
			return
		}
		if kind == websocket.MessageText && string(data) == "2" {
			ctx, cancel := context.WithTimeout(c.t.Context(), patience)
			_ = c.ws.Write(ctx, websocket.MessageText, []byte("3")) // may have closed meanwhile
			cancel()
		}
	}
}

// wantRefusedWS wants a websocket handshake to fail, or the websocket to be closed at once.
func wantRefusedWS(t *testing.T, url string) {
	t.Helper()
	c, err := dialWS(t, url)
	if err != nil {
		return
	}
	_, data, err := c.tryRead()
	if err == nil {
		t.Errorf("%s: accepted, and greeted with %q", url, data)
	} else if errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%s: the websocket stays open", url)
	}
}
