package engine

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

func TestMaxConns(t *testing.T) {
	s := newTestServer(t, Config{MaxConns: 2})
	ws, rec := s.openWebSocket(t)
	sid, _ := s.openPoll(t)
	s.get(t, "").want(t, 503, `{"code":4,"message":"Service unavailable"}`)
	nc := s.dial(t)
	io.WriteString(nc, strings.Replace(goodHandshake, "%s", "", 1))
	b := make([]byte, 100)
	if n, _ := nc.Read(b); !strings.HasPrefix(string(b[:n]), "HTTP/1.1 503 ") {
		t.Errorf("handshake answered %q", b[:n])
	}
	// Sessions that are open go on, an upgrade included, and a place that is left is free.
	up := s.websocket(t, sid)
	up.text("2probe")
	up.wantPacket("3probe")
	ws.Close()
	rec.wantClosed(t, ReasonTransportClose)
	eventually(t, "a free place", func() bool { return len(s.Server.sessions()) == 1 })
	s.openPoll(t)
	if n := s.Stats().Refused; n != 2 {
		t.Errorf("%d refused", n)
	}
}

func TestNilHandlerRefuses(t *testing.T) {
	s := newTestServer(t, Config{})
	s.refuse = true
	s.get(t, "").want(t, 403, `{"code":4,"message":"Forbidden"}`)
	nc := s.dial(t)
	io.WriteString(nc, strings.Replace(goodHandshake, "%s", "", 1))
	b := make([]byte, 100)
	if n, _ := nc.Read(b); !strings.HasPrefix(string(b[:n]), "HTTP/1.1 403 ") {
		t.Errorf("handshake answered %q", b[:n])
	}
	if n := len(s.Server.sessions()); n != 0 {
		t.Errorf("%d sessions", n)
	}
}

func TestPanickingAcceptLeavesNothingBehind(t *testing.T) {
	s := NewServer(Config{}, func(*Conn, *http.Request) Handler { panic("accept") })
	func() {
		defer func() { recover() }()
		s.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/?EIO=4&transport=polling", nil))
	}()
	if n := len(s.sessions()); n != 0 {
		t.Errorf("%d sessions", n)
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestPanickingHandlerEndsItsOwnSessionOnly(t *testing.T) {
	for where, panics := range map[string]func(*testServer){
		"message": func(s *testServer) { s.onMsg = func(*Conn, []byte, bool) { panic("handler") } },
		"task":    func(s *testServer) { s.task = func(string) { panic("task") } },
	} {
		t.Run(where, func(t *testing.T) {
			s := newTestServer(t, Config{})
			panics(s)
			c, rec := s.openWebSocket(t)
			_, other := s.openWebSocket(t)
			c.text("4panic")
			rec.wantClosed(t, ReasonForcedClose)
			sid, polling := s.openPoll(t)
			s.post(t, sid, "4panic").want(t, 200, "ok")
			polling.wantClosed(t, ReasonForcedClose)
			if n := s.Stats().Panics; n != 2 {
				t.Errorf("%d panics", n)
			}
			if !other.Open() {
				t.Error("another session was closed")
			}
		})
	}
}

func TestTasksRunBesideTheNextCalls(t *testing.T) {
	s := newTestServer(t, Config{})
	release, ended := make(chan struct{}), make(chan string, 4)
	s.task = func(message string) {
		<-release
		ended <- message
	}
	c, rec := s.openWebSocket(t)
	sid, polling := s.openPoll(t)
	c.text("4a")
	c.text("4b")
	s.post(t, sid, "4c\x1e4d").want(t, 200, "ok")
	for _, want := range []string{"a", "b"} {
		rec.wantMessage(t, want)
	}
	for _, want := range []string{"c", "d"} {
		polling.wantMessage(t, want)
	}
	s.post(t, sid, "1").want(t, 200, "ok")
	polling.wantClosed(t, ReasonTransportClose)

	done := make(chan error, 1)
	go func() { done <- s.Shutdown(t.Context()) }()
	rec.wantClosed(t, ReasonShuttingDown)
	c.wantClose(1001)
	c.Close()
	for len(s.Server.sessions()) > 0 {
		time.Sleep(time.Millisecond)
	}
	select {
	case err := <-done:
		t.Fatalf("Shutdown did not wait for the tasks: %v", err)
	case m := <-ended:
		t.Fatalf("task %s ended", m)
	case <-time.After(20 * time.Millisecond):
	}
	close(release)
	if err := recv(t, done, "end of Shutdown"); err != nil {
		t.Error(err)
	}
	if len(ended) != 4 {
		t.Errorf("%d tasks ran", len(ended))
	}
}

func TestCloseDuringAccept(t *testing.T) {
	onBothPaths(t, Config{}, func(t *testing.T, s *testServer) {
		s.onOpen = func(c *Conn, _ *http.Request) {
			c.Send(TextFrame([]byte("no")))
			c.Close("not you")
		}
		c := s.websocket(t, "")
		c.packet()
		c.wantPacket("4no")
		c.wantClose(1000)
		c.Close()
		s.session(t).wantClosed(t, "not you")
		a := s.get(t, "")
		if packets := strings.Split(a.body, "\x1e"); len(packets) != 2 || packets[1] != "4no" {
			t.Errorf("first poll %q", a.body)
		}
		s.get(t, parseOpen(t, a.body).SID).want(t, 200, "1")
		s.session(t).wantClosed(t, "not you")
	})
}

func TestTooMuchDuringAccept(t *testing.T) {
	onBothPaths(t, Config{MaxQueue: 1000}, func(t *testing.T, s *testServer) {
		s.onOpen = func(c *Conn, _ *http.Request) {
			if err := c.Send(TextFrame(make([]byte, 2000))); !errors.Is(err, ErrClosed) {
				t.Errorf("Send: %v", err)
			}
		}
		nc := s.dial(t)
		io.WriteString(nc, strings.Replace(goodHandshake, "%s", "", 1))
		if b, err := io.ReadAll(nc); len(b) > 0 {
			t.Errorf("handshake answered %q %v", b, err)
		}
		s.session(t).wantClosed(t, ReasonSlowClient)
		s.get(t, "").want(t, 400, `{"code":1,"message":"Session ID unknown"}`)
		s.session(t).wantClosed(t, ReasonSlowClient)
	})
}

func TestWriterThatCannotBeHijacked(t *testing.T) {
	s := newTestServer(t, Config{})
	r := httptest.NewRequest("GET", "/?EIO=4&transport=websocket", nil)
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Upgrade", "websocket")
	r.Header.Set("Sec-WebSocket-Version", "13")
	r.Header.Set("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	if w.Code != 400 {
		t.Errorf("status %d", w.Code)
	}
	s.session(t).wantClosed(t, ReasonTransportError)
	if n := len(s.Server.sessions()); n != 0 {
		t.Errorf("%d sessions", n)
	}
	sid, _ := s.openPoll(t)
	r.URL.RawQuery += "&sid=" + sid
	w = httptest.NewRecorder()
	s.ServeHTTP(w, r)
	if w.Code != 400 {
		t.Errorf("probe answered %d", w.Code)
	}
}

func TestShutdown(t *testing.T) {
	onBothPaths(t, Config{}, func(t *testing.T, s *testServer) {
		ws, rec := s.openWebSocket(t)
		waiting, waitingRec := s.openPoll(t)
		poll := inBackground(func() answer { return s.get(t, waiting) })
		untilWaiting(t, waitingRec.Conn)
		between, betweenRec := s.openPoll(t)
		betweenRec.Send(TextFrame([]byte("not lost")))
		probing, probingRec := s.openPoll(t)
		half := s.websocket(t, probing)
		half.text("2probe")
		half.wantPacket("3probe")

		done := make(chan error, 1)
		go func() { done <- s.Shutdown(t.Context()) }()
		recv(t, poll, "answer").want(t, 200, "1")
		rec.wantClosed(t, ReasonShuttingDown)
		s.get(t, between).want(t, 200, "4not lost")
		s.get(t, between).want(t, 200, "1")
		a := s.get(t, probing)
		for a.body == "6" { // it might yet upgrade
			a = s.get(t, probing)
		}
		a.want(t, 200, "1")
		for _, r := range []*recorder{waitingRec, betweenRec, probingRec} {
			r.wantClosed(t, ReasonShuttingDown)
		}
		ws.wantClose(1001)
		ws.Close()
		if err := recv(t, done, "end of Shutdown"); err != nil {
			t.Error(err)
		}
		s.get(t, "").want(t, 503, `{"code":4,"message":"Service unavailable"}`)
		s.get(t, between).want(t, 400, `{"code":1,"message":"Session ID unknown"}`)
		if err := s.Shutdown(t.Context()); err != nil {
			t.Errorf("again: %v", err)
		}
	})
}

// Clients that do not answer do not hold Shutdown up for longer than they may.
func TestShutdownCutsOffWhatDoesNotEnd(t *testing.T) {
	onBothPaths(t, Config{MaxQueue: 64 << 20, WriteTimeout: time.Minute}, func(t *testing.T, s *testServer) {
		_, rec := s.openWebSocket(t)
		for range 300 {
			rec.Send(BinaryFrame(make([]byte, 64<<10))) // stuck
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Shutdown: %v", err)
		}
		rec.wantClosed(t, ReasonShuttingDown)
		if n := len(s.Server.sessions()); n != 0 {
			t.Errorf("%d sessions left", n)
		}
	})
}

// A peer that never ends its side gets closeGrace, then its descriptor is closed.
func TestDescriptorIsClosedWhateverThePeerDoes(t *testing.T) {
	onBothPaths(t, Config{}, func(t *testing.T, s *testServer) {
		c, rec := s.openWebSocket(t)
		start := time.Now()
		rec.Close(ReasonForcedClose)
		rec.wantClosed(t, ReasonForcedClose)
		c.wantClose(1000) // and keeps its own side open
		eventually(t, "end of the session", func() bool { return len(s.Server.sessions()) == 0 })
		if took := time.Since(start); took > 3*closeGrace {
			t.Errorf("closed after %v", took)
		}
		if _, err := rec.nc.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("descriptor: %v", err)
		}
	})
}

// Through TLS there is no socket to write to directly, and an end is a TLS alert, not a FIN.
func TestOverTLS(t *testing.T) {
	s := newTestServer(t, Config{})
	s.echo()
	secure := httptest.NewTLSServer(s.Server)
	defer secure.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, end := range []string{"client", "server", "slow"} {
		c, _, err := websocket.Dial(ctx, secure.URL+"/?EIO=4&transport=websocket", &websocket.DialOptions{HTTPClient: secure.Client()})
		if err != nil {
			t.Fatal(err)
		}
		rec := s.session(t)
		c.Read(ctx)
		c.Write(ctx, websocket.MessageText, []byte("4hello"))
		if _, b, err := c.Read(ctx); string(b) != "4hello" {
			t.Fatalf("%q %v", b, err)
		}
		switch end {
		case "client":
			if err := c.Close(websocket.StatusNormalClosure, ""); err != nil {
				t.Errorf("closing handshake: %v", err)
			}
			rec.wantClosed(t, ReasonTransportClose)
		case "server":
			rec.Close(ReasonShuttingDown)
			if _, _, err := c.Read(ctx); websocket.CloseStatus(err) != websocket.StatusGoingAway {
				t.Errorf("read: %v", err)
			}
			rec.wantClosed(t, ReasonShuttingDown)
		case "slow":
			for rec.Send(BinaryFrame(make([]byte, 64<<10))) == nil {
			}
			rec.wantClosed(t, ReasonSlowClient)
		}
		c.CloseNow()
	}
}
