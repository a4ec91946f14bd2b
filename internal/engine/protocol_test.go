package engine

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// The clauses of the Engine.IO protocol 4 document, in its order.

func TestHandshakeOverPolling(t *testing.T) {
	s := newTestServer(t, Config{PingInterval: 300 * time.Millisecond, PingTimeout: 200 * time.Millisecond, MaxPayload: 1e6})
	a := s.get(t, "")
	if a.status != 200 {
		t.Fatalf("status %d", a.status)
	}
	open := parseOpen(t, a.body)
	if len(open.SID) != 20 || !slices.Equal(open.Upgrades, []string{"websocket"}) ||
		open.PingInterval != 300 || open.PingTimeout != 200 || open.MaxPayload != 1e6 {
		t.Errorf("open packet %q", a.body)
	}
	if got := a.header.Get("Content-Type"); got != "text/plain; charset=UTF-8" {
		t.Errorf("content type %q", got)
	}
	if got := a.header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("cache control %q", got)
	}
}

func TestHandshakeOverWebSocket(t *testing.T) {
	onBothPaths(t, Config{}, func(t *testing.T, s *testServer) {
		s.echo()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		c, _, err := websocket.Dial(ctx, s.http.URL+"/socket.io/?EIO=4&transport=websocket", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer c.CloseNow()
		kind, b, err := c.Read(ctx)
		if err != nil || kind != websocket.MessageText {
			t.Fatalf("%v %v", kind, err)
		}
		open := parseOpen(t, string(b))
		if open.Upgrades == nil || len(open.Upgrades) != 0 || open.PingInterval != 25000 || open.PingTimeout != 20000 || open.MaxPayload != 64<<10 {
			t.Errorf("open packet %q", b)
		}
		if err := c.Write(ctx, websocket.MessageText, []byte("4hello")); err != nil {
			t.Fatal(err)
		}
		if kind, b, err = c.Read(ctx); string(b) != "4hello" || kind != websocket.MessageText {
			t.Fatalf("%v %q %v", kind, b, err)
		}
		if err := c.Write(ctx, websocket.MessageBinary, []byte{1, 2, 3, 4}); err != nil {
			t.Fatal(err)
		}
		if kind, b, err = c.Read(ctx); string(b) != "\x01\x02\x03\x04" || kind != websocket.MessageBinary {
			t.Fatalf("%v %q %v", kind, b, err)
		}
		if err := c.Close(websocket.StatusNormalClosure, ""); err != nil {
			t.Errorf("closing handshake: %v", err)
		}
		s.session(t).wantClosed(t, ReasonTransportClose)
	})
}

func TestRefusedRequests(t *testing.T) {
	s := newTestServer(t, Config{})
	sid, rec := s.openPoll(t)
	ws, _ := s.openWebSocket(t)
	_ = ws
	base := s.http.URL + "/socket.io/"
	for name, tc := range map[string]struct {
		method, query string
		status        int
		body          string
	}{
		"no transport":                 {"GET", "?EIO=4", 400, `{"code":0,"message":"Transport unknown"}`},
		"unknown transport":            {"GET", "?EIO=4&transport=abc", 400, `{"code":0,"message":"Transport unknown"}`},
		"unknown session, poll":        {"GET", "?EIO=4&transport=polling&sid=nope", 400, `{"code":1,"message":"Session ID unknown"}`},
		"unknown session, post":        {"POST", "?EIO=4&transport=polling&sid=nope", 400, `{"code":1,"message":"Session ID unknown"}`},
		"unknown session, websocket":   {"GET", "?EIO=4&transport=websocket&sid=nope", 400, `{"code":1,"message":"Session ID unknown"}`},
		"handshake by POST":            {"POST", "?EIO=4&transport=polling", 400, `{"code":2,"message":"Bad handshake method"}`},
		"handshake by PUT":             {"PUT", "?EIO=4&transport=polling", 400, `{"code":2,"message":"Bad handshake method"}`},
		"websocket without upgrade":    {"GET", "?EIO=4&transport=websocket", 400, `{"code":3,"message":"Bad request"}`},
		"DELETE of a session":          {"DELETE", "?EIO=4&transport=polling&sid=" + sid, 400, `{"code":3,"message":"Bad request"}`},
		"JSONP":                        {"GET", "?EIO=4&transport=polling&j=0", 400, `{"code":3,"message":"Bad request"}`},
		"no protocol version":          {"GET", "?transport=polling", 400, `{"code":5,"message":"Unsupported protocol version"}`},
		"protocol version 3":           {"GET", "?EIO=3&transport=polling", 400, `{"code":5,"message":"Unsupported protocol version"}`},
		"protocol version 3 websocket": {"GET", "?EIO=3&transport=websocket", 400, `{"code":5,"message":"Unsupported protocol version"}`},
		"protocol version abc":         {"GET", "?EIO=abc&transport=polling", 400, `{"code":5,"message":"Unsupported protocol version"}`},
		"OPTIONS":                      {"OPTIONS", "?EIO=4&transport=polling&sid=" + sid, 204, ``},
	} {
		t.Run(name, func(t *testing.T) {
			s.do(t, tc.method, base+tc.query, nil).want(t, tc.status, tc.body)
		})
	}
	// None of it has harmed the session.
	rec.Send(TextFrame([]byte("still here")))
	s.get(t, sid).want(t, 200, "4still here")
	if st := s.Stats(); st.Rejected != 14 || st.Opened != 2 {
		t.Errorf("rejected %d, opened %d", st.Rejected, st.Opened)
	}
}
