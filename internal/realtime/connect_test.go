package realtime

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"jobwire/internal/auth"
	"jobwire/internal/engine"
	"jobwire/internal/events"
)

func TestConnectReplyIsFollowedByWhatConnectedEmits(t *testing.T) {
	s := newStand(t, Config{}, func(r *recorder, _ *Hub) {
		r.connected = func(s *Session) {
			s.Emit(message("authenticated", `{"userId":"`+s.UserID()+`"}`, 0))
			s.Emit(message("online_users", `{}`, 0))
		}
	})
	c := s.dial(t)
	c.write(`40{"token":"alice"}`)
	var reply struct{ Sid, Pid string }
	if err := json.Unmarshal([]byte(strings.TrimPrefix(c.read(), "40")), &reply); err != nil {
		t.Fatal(err)
	}
	if len(reply.Sid) < 16 || len(reply.Pid) < 16 || reply.Sid == reply.Pid {
		t.Errorf("CONNECT reply: %+v", reply)
	}
	c.expect(`42["authenticated",{"userId":"alice"}]`, `42["online_users",{}]`)
}

func TestNoRecoveryLeavesThePidOut(t *testing.T) {
	s := newStand(t, Config{NoRecovery: true})
	c := s.dial(t)
	c.write(`40{"token":"alice"}`)
	if reply := c.read(); strings.Contains(reply, "pid") {
		t.Error(reply)
	}
}

// On polling one answer holds everything that was written at once, so it shows what leaves in one write.
func TestConnectAnswerLeavesInOneWrite(t *testing.T) {
	s := newStand(t, Config{}, func(r *recorder, h *Hub) {
		r.connected = func(s *Session) {
			s.Emit(message("authenticated", `{}`, 0))
			s.JoinUser()
			h.EmitUser("alice", message("job_progress", `{"n":1}`, 5))
			s.Live(events.ID{})
		}
	})
	p := s.poll(t)
	answer := make(chan string)
	go func() { answer <- p.get() }()
	if ok := p.post(`40{"token":"alice"}`); ok != "ok" {
		t.Fatal(ok)
	}
	got := strings.Split(<-answer, "\x1e")
	if len(got) != 3 || !strings.HasPrefix(got[0], "40{") || got[1] != `42["authenticated",{}]` ||
		got[2] != `42["job_progress",{"n":1},"5-0"]` {
		t.Errorf("%q", got)
	}
}

// A replay that is larger than the queue waits for the client inside Connected, so its beginning must leave before its end.
func TestLongGreetingLeavesAsItGoes(t *testing.T) {
	const n, size = 300, 16 << 10
	s := newStand(t, Config{Engine: engine.Config{MaxQueue: 1 << 20}}, func(r *recorder, h *Hub) {
		handleEcho(h)
		r.connected = func(s *Session) {
			s.JoinUser()
			for i := range n {
				for end := time.Now().Add(patience); s.Buffered() > 64<<10 && time.Now().Before(end); {
					time.Sleep(time.Millisecond)
				}
				if !s.Emit(message("n", `"`+strings.Repeat("x", size)+`"`, uint64(i+1))) {
					return
				}
			}
			s.Live(events.ID{})
		}
	})
	c := s.dial(t)
	c.write(`40{"token":"alice"}`)
	if first := c.read(); !strings.HasPrefix(first, `40{`) {
		t.Fatalf("%.60q", first)
	}
	c.write(`421["echo",1]`) // the client knows that it is connected
	for i := range n {
		if m := c.read(); !strings.HasSuffix(m, fmt.Sprintf(`x","%d-0"]`, i+1)) {
			t.Fatalf("%d: %.60q", i, m)
		}
	}
	c.expect(`431[1]`) // handled after Connected
}

func TestHandshakeCarriesAuthAndHeader(t *testing.T) {
	var got Handshake
	s := newStand(t, Config{}, func(r *recorder, _ *Hub) {
		r.authenticate = func(h Handshake) (auth.Identity, error) {
			got = h
			return auth.Identity{UserID: "u"}, nil
		}
	})
	c := s.dial(t, "Authorization", "Bearer abc")
	c.write(`40{"token" : "x"}`)
	c.read()
	if string(got.Auth) != `{"token" : "x"}` || got.Authorization != "Bearer abc" || !strings.HasPrefix(got.RemoteAddr, "127.0.0.1:") {
		t.Errorf("%+v", got)
	}
}

func TestOffsetComesFromPidAndOffset(t *testing.T) {
	for payload, want := range map[string]string{
		`{"pid":"p","offset":"17-2"}`: "17-2",
		`{"pid":"p","offset":""}`:     "",
		`{"offset":"17-2"}`:           "none",
		`{"pid":"p"}`:                 "", // it has seen no message yet
		`{"pid":"p","offset":17}`:     "",
		`{"pid":7,"offset":"17-2"}`:   "none",
		`{"pid":"p","offset":"` + strings.Repeat("9", 65) + `"}`: "",
		`{"pid":"p","offset":["17-2"]}`:                          "",
		`{"a":{"pid":"p","offset":"17-2"}}`:                      "none",
		`{"token":"t"}`:                                          "none",
	} {
		_, offset, has := recoveryOffset(json.RawMessage(payload))
		if !has {
			offset = "none"
		}
		if offset != want {
			t.Errorf("%s: %q, want %q", payload, offset, want)
		}
	}
}

// FuzzOffset: whatever object a client connects with, what is kept of it is short and text.
func FuzzOffset(f *testing.F) {
	for _, seed := range []string{
		``, `null`, `[]`, `"pid"`, `{"pid":"p","offset":"17-2"}`, `{"pid":"p"}`, `{"pid":"","offset":""}`, `{"pid":"p","pid":7,"offset":"1-0"}`,
		`{"PID":"p","Offset":"1-0"}{"pid":1`, `{"pid":"p","offset":{"pid":"q"}}`, `{"pid":"\u0000\ud800\udc00\ud800","offset":"\\\"\u2028"}`,
		`{"pid":"` + strings.Repeat("p", 64) + `","offset":"` + strings.Repeat("é", 32) + `"}`,
		`{"pid":"` + strings.Repeat("p", 65) + `","offset":"1-0"}`,
		`{"pid":"` + strings.Repeat("\xff", 64) + `","offset":"1-0"}`,
		`{"pid":"p","offset":"` + strings.Repeat("\xff", 64) + `"}`,
		`{"pid":"p","offset":` + strings.Repeat("[", 20_000),
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		pid, offset, has := recoveryOffset(payload)
		for _, text := range []string{pid, offset} {
			if len(text) > 64 || !utf8.ValidString(text) || text != "" && !has {
				t.Fatalf("%q: pid %q, offset %q, %v", payload, pid, offset, has)
			}
		}
	})
}

// A client that offers a pid and an offset still goes through the middleware, and restores nothing.
func TestRecoveryIsNeverTheLibrarys(t *testing.T) {
	s := newStand(t, Config{}, func(r *recorder, _ *Hub) {
		r.connected = func(s *Session) {
			offset, has := s.Offset()
			s.Emit(message("seen", fmt.Sprintf(`{"offset":%q,"has":%v}`, offset, has), 0))
		}
	})
	c := s.dial(t)
	c.write(`40{"pid":"p","offset":"1-0"}`)
	if got := c.read(); !strings.HasPrefix(got, `44{`) || !strings.Contains(got, "token_missing") {
		t.Errorf("without a token: %q", got)
	}
	c = s.dial(t)
	c.write(`40{"token":"alice","pid":"` + pidOf("alice") + `","offset":"1-0"}`)
	c.read()
	c.expect(`42["seen",{"offset":"1-0","has":true}]`)

	// A page that has signed in as another user sends what it remembers of the first.
	c = s.dial(t)
	c.write(`40{"token":"bob","pid":"` + pidOf("alice") + `","offset":"1-0"}`)
	if reply := c.read(); !strings.Contains(reply, `"pid":"`+pidOf("bob")+`"`) {
		t.Errorf("%q carries no pid of bob", reply)
	}
	c.expect(`42["seen",{"offset":"","has":true}]`)
}

func TestRefusalIsToldAndThenTheConnectionCloses(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"token":    {&events.Error{Code: "token_expired", Detail: "too late"}, `44{"data":{"code":"token_expired","message":"too late"},"message":"unauthorized"}`},
		"wrapped":  {fmt.Errorf("keys: %w", &events.Error{Code: "teapot", Detail: "x"}), `44{"data":{"code":"teapot","message":"x"},"message":"unauthorized"}`},
		"internal": {errors.New("secret detail"), `44{"data":{"code":"internal","message":"The server could not check the token."},"message":"internal"}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStand(t, Config{}, func(r *recorder, _ *Hub) {
				r.authenticate = func(Handshake) (auth.Identity, error) { return auth.Identity{}, c.err }
			})
			cl := s.dial(t)
			start := time.Now()
			cl.write(`40{}`)
			cl.expect(c.want)
			if rest := cl.expectClosed(); len(rest) != 0 && rest[0] != "1" {
				t.Errorf("%q", rest)
			}
			if took := time.Since(start); took < closeGrace/2 || took > 4*closeGrace {
				t.Errorf("closed after %v", took)
			}
			eventually(t, "close is counted", func() bool { return s.Stats().Closed[ReasonRefused] == 1 })
		})
	}
}

func TestHandshakeTimeout(t *testing.T) {
	t.Parallel()
	s := newStand(t, Config{HandshakeTimeout: 200 * time.Millisecond})
	silent, foreign, live := s.dial(t), s.dial(t), s.connect(t, "alice")
	foreign.write("40/other,")
	foreign.expect(`44/other,{"message":"Invalid namespace"}`)
	silent.expectClosed()
	foreign.expectClosed()
	eventually(t, "both are counted", func() bool { return s.Stats().Closed[ReasonHandshakeTimeout] == 2 })
	s.EmitUser("alice", message("x", `1`, 0))
	live.expect(`42["x",1]`)
}

// A slow authentication is bounded too, and whoever closes meanwhile leaves nothing behind.
func TestHandshakeTimeoutDuringAuthentication(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	s := newStand(t, Config{HandshakeTimeout: 100 * time.Millisecond}, func(r *recorder, _ *Hub) {
		r.authenticate = func(Handshake) (auth.Identity, error) { <-release; return auth.Identity{UserID: "late"}, nil }
	})
	c := s.dial(t)
	c.write("40")
	c.expectClosed()
	close(release)
	eventually(t, "the session is forgotten", func() bool { st := s.Stats(); return st.Unauthenticated == 0 && st.Rooms == 0 })
}

// Who does not show a token in time holds nothing of the server's with half a request either.
func TestHandshakeTimeoutEndsAPost(t *testing.T) {
	s := newStand(t, Config{HandshakeTimeout: 300 * time.Millisecond})
	p := s.poll(t)
	body, feed := io.Pipe() // nothing more comes until the answer does
	defer feed.Close()
	answered := make(chan string, 1)
	go func() {
		resp, err := http.Post(p.url, "text/plain", body)
		if err != nil {
			answered <- err.Error()
			return
		}
		defer resp.Body.Close()
		text, _ := io.ReadAll(resp.Body)
		answered <- string(text)
	}()
	io.WriteString(feed, "40{")
	if got := p.get(); got != "1" {
		t.Fatalf("the poll was answered %q", got)
	}
	select {
	case got := <-answered:
		if got != `{"code":1,"message":"Session ID unknown"}` {
			t.Errorf("the POST was answered %s", got)
		}
	case <-time.After(patience):
		t.Error("the POST was not answered")
	}
}

func TestTooManyUnauthenticated(t *testing.T) {
	s := newStand(t, Config{MaxUnauthenticated: 2})
	first := s.dial(t)
	s.poll(t)
	resp, err := http.Get(s.url + "/socket.io/?EIO=4&transport=polling")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if resp.StatusCode != 503 || !strings.Contains(string(body), `"code":"too_many_unauthenticated"`) {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	if _, err := s.tryDial(t); err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("websocket: %v", err)
	}
	resp, err = http.Get(s.url + "/socket.io/?EIO=4&transport=polling&x=sid=1") // past the first look
	if err != nil {
		t.Fatal(err)
	}
	body, _ = io.ReadAll(resp.Body)
	resp.Body.Close()
	if resp.StatusCode != 503 || !strings.Contains(string(body), `"code":"too_many_unauthenticated"`) {
		t.Errorf("smuggled sid: %d %s", resp.StatusCode, body)
	}
	first.write(`40{"token":"alice"}`) // who authenticates makes room
	first.read()
	s.connect(t, "bob")
	if got := s.Stats().Overloaded; got != 3 {
		t.Errorf("%d counted", got)
	}
}

func TestTooManySocketsOfOneUser(t *testing.T) {
	s := newStand(t, Config{MaxSocketsPerUser: 2})
	first, second := s.connect(t, "alice"), s.connect(t, "alice")
	c := s.dial(t)
	c.write(`40{"token":"alice"}`)
	c.expect(`44{"data":{"code":"too_many_sockets","message":"This user has too many connections."},"message":"too_many_sockets"}`)
	s.connect(t, "bob")
	first.vanish()
	s.waitLeft(t)
	third := s.connect(t, "alice")
	if n := s.EmitUser("alice", message("x", `1`, 0)); n != 2 {
		t.Errorf("reached %d", n)
	}
	second.expect(`42["x",1]`)
	third.expect(`42["x",1]`)
}

// All of them at once: the limit holds while connects race.
func TestSocketLimitHoldsUnderRace(t *testing.T) {
	s := newStand(t, Config{MaxSocketsPerUser: 5})
	var in, out atomic.Int32
	var wg sync.WaitGroup
	for range 40 {
		c := s.dial(t)
		wg.Go(func() {
			if c.tryWrite(1, []byte(`40{"token":"alice"}`)) == nil {
				if m, err := c.tryRead(); err == nil && strings.HasPrefix(m, "40") {
					in.Add(1)
				} else if err == nil && strings.Contains(m, CodeTooManySockets) {
					out.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if in.Load() != 5 || out.Load() != 35 {
		t.Errorf("%d admitted, %d refused", in.Load(), out.Load())
	}
}

func TestClientLeavesTheNamespace(t *testing.T) {
	t.Parallel()
	s := newStand(t, Config{})
	c := s.connect(t, "alice")
	c.write("41")
	if d := s.waitLeft(t); d.reason != ReasonClientDisconnect {
		t.Errorf("%+v", d)
	}
	if n := s.EmitUser("alice", message("x", `1`, 0)); n != 0 {
		t.Errorf("reached %d", n)
	}
	if rest := c.expectClosed(); len(rest) != 0 && rest[0] != "1" {
		t.Errorf("after it left the client got %q", rest)
	}
	select {
	case d := <-s.left:
		t.Errorf("left twice: %+v", d)
	default:
	}
}

// The clean goodbye is seen although the transport closes right behind it.
func TestGoodbyeBeforeCloseIsTheReason(t *testing.T) {
	s := newStand(t, Config{})
	for range 50 {
		c := s.connect(t, "alice")
		c.write("41")
		c.vanish()
		if d := s.waitLeft(t); d.reason != ReasonClientDisconnect {
			t.Fatalf("%+v", d)
		}
	}
}

func TestVanishingIsTheTransports(t *testing.T) {
	s := newStand(t, Config{})
	s.connect(t, "alice").vanish()
	if d := s.waitLeft(t); d.reason != engine.ReasonTransportClose && d.reason != engine.ReasonTransportError {
		t.Errorf("%+v", d)
	}
}

func TestTokenExpiresWhileConnected(t *testing.T) {
	t.Parallel()
	s := newStand(t, Config{}, func(r *recorder, _ *Hub) {
		r.authenticate = func(Handshake) (auth.Identity, error) {
			return auth.Identity{UserID: "alice", ExpiresAt: time.Now().Add(300 * time.Millisecond)}, nil
		}
	})
	c := s.dial(t)
	c.write("40")
	c.read()
	c.expect(`42["unauthorized",{"code":"token_expired","message":"The token has expired."}]`)
	if rest := c.expectClosed(); strings.Contains(strings.Join(rest, " "), "41") {
		t.Error("a namespace disconnect keeps the client from reconnecting")
	}
	if d := s.waitLeft(t); d.reason != ReasonTokenExpired {
		t.Errorf("%+v", d)
	}
}

func TestATokenThatDoesNotExpire(t *testing.T) {
	s := newStand(t, Config{HandshakeTimeout: 50 * time.Millisecond}, func(r *recorder, _ *Hub) {
		r.authenticate = func(Handshake) (auth.Identity, error) { return auth.Identity{UserID: "alice"}, nil }
	})
	c := s.dial(t)
	c.write("40")
	c.read()
	if n := s.deadlines.Len(); n != 0 {
		t.Errorf("%d deadlines", n)
	}
	s.EmitUser("alice", message("x", `1`, 0))
	c.expect(`42["x",1]`)
}

func TestRefreshMovesTheExpiry(t *testing.T) {
	t.Parallel()
	soon := 300 * time.Millisecond
	sessions := make(chan *Session, 1)
	s := newStand(t, Config{}, func(r *recorder, _ *Hub) {
		r.authenticate = func(Handshake) (auth.Identity, error) {
			return auth.Identity{UserID: "alice", Tenant: "t", ExpiresAt: time.Now().Add(soon)}, nil
		}
		r.connected = func(s *Session) { sessions <- s }
	})
	c := s.dial(t)
	c.write("40")
	c.read()
	session := <-sessions
	later := time.Now().Add(3 * soon)
	for _, other := range []auth.Identity{{UserID: "bob", Tenant: "t", ExpiresAt: later}, {UserID: "alice", ExpiresAt: later}} {
		var refusal *events.Error
		if err := session.Refresh(other); !errors.As(err, &refusal) || refusal.Code != CodeUserMismatch {
			t.Errorf("%+v: %v", other, err)
		}
	}
	if err := session.Refresh(auth.Identity{UserID: "alice", Tenant: "t", ExpiresAt: later}); err != nil {
		t.Fatal(err)
	}
	if got := session.Identity().ExpiresAt; !got.Equal(later) {
		t.Errorf("expires %v", got)
	}
	c.read() // unauthorized
	if time.Now().Before(later) {
		t.Error("expired at the old time")
	}
}

func TestShutdownClosesSoThatClientsReconnect(t *testing.T) {
	s := newStand(t, Config{})
	c, p := s.connect(t, "alice"), s.poll(t)
	polled := make(chan string, 1)
	go func() { polled <- p.get() }()
	s.EmitUser("alice", message("last", `1`, 0))
	if err := s.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.expect(`42["last",1]`)
	if rest := c.expectClosed(); strings.Contains(strings.Join(rest, " "), "41") {
		t.Errorf("%q", rest)
	}
	<-polled
	if d := s.waitLeft(t); d.reason != engine.ReasonShuttingDown {
		t.Errorf("%+v", d)
	}
}

func TestPanicInConnectedClosesThatConnectionOnly(t *testing.T) {
	s := newStand(t, Config{}, func(r *recorder, _ *Hub) {
		r.connected = func(s *Session) {
			if s.UserID() == "eve" {
				panic("boom")
			}
		}
	})
	alice := s.connect(t, "alice")
	c := s.dial(t)
	c.write(`40{"token":"eve"}`)
	c.expectClosed()
	if d := s.waitLeft(t); d.user != "eve" || d.reason != ReasonInternal {
		t.Errorf("%+v", d)
	}
	s.EmitUser("alice", message("x", `1`, 0))
	alice.expect(`42["x",1]`)
	if s.Stats().Panics != 1 {
		t.Error("not counted")
	}
}

func TestPanicInAuthenticateClosesThatConnectionOnly(t *testing.T) {
	s := newStand(t, Config{}, func(r *recorder, _ *Hub) {
		r.authenticate = func(Handshake) (auth.Identity, error) { panic("boom") }
	})
	c := s.dial(t)
	c.write("40")
	c.expectClosed()
	eventually(t, "counted", func() bool { return s.Stats().Closed[ReasonInternal] == 1 })
}
