package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"jobwire/test/bench/loadgen/sockets"
)

// socketServer is a Socket.IO server with presence and receipts, over
// websocket, that can go wrong.
type socketServer struct {
	hide    string        // a user that no one is told of
	repeat  string        // a user that all are told of twice
	deaf    bool          // takes pongs for no receipts
	settles time.Duration // how long it stands still after a receipt
	beats   bool          // sends heartbeats

	mu      sync.Mutex
	tabs    map[net.Conn]*socketTab // guarded by mu
	pids    map[string]string       // by user: what it presented last; guarded by mu
	unread  map[string]int          // messages without a receipt, by user; guarded by mu
	id      int
	stalled time.Time
}

type socketTab struct {
	user    string
	pinged  int  // pings without a pong; guarded by the server's mu
	receipt bool // the next pong is one
}

func (s *socketServer) start(t *testing.T) *target {
	s.tabs, s.pids, s.unread = make(map[net.Conn]*socketTab), make(map[string]string), make(map[string]int)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /socket.io/", func(w http.ResponseWriter, r *http.Request) {
		if conn, _, _, err := ws.UpgradeHTTP(r, w); err == nil {
			go s.serve(conn)
		}
	})
	mux.HandleFunc("POST /v1/events", func(w http.ResponseWriter, r *http.Request) {
		var in socketEvent
		if json.NewDecoder(r.Body).Decode(&in) != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		s.publish(in)
		w.WriteHeader(http.StatusAccepted)
	})
	mux.HandleFunc("POST /v1/events/batch", func(w http.ResponseWriter, r *http.Request) {
		var in struct{ Events []socketEvent }
		if json.NewDecoder(r.Body).Decode(&in) != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		for _, ev := range in.Events {
			s.publish(ev)
		}
	})
	srv := httptest.NewServer(mux)
	ctx, cancel := context.WithCancel(context.Background())
	var beat sync.WaitGroup
	if s.beats {
		beat.Go(func() { s.beat(ctx) })
	}
	t.Cleanup(func() { cancel(); beat.Wait(); s.closeAll(); srv.Close() })
	// What it measures is another process, one that is at rest.
	process := exec.Command("sleep", "600")
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = process.Process.Kill(); _ = process.Wait() })
	return &target{addr: srv.Listener.Addr().String(), pid: process.Process.Pid, dialect: sockets.Dialects["socketio"], presence: true,
		secret: []byte("s"), key: "k", n: 20, workers: 4}
}

func (s *socketServer) serve(conn net.Conn) {
	defer conn.Close()
	s.send(conn, `0{"sid":"x"}`)
	raw, _, err := wsutil.ReadClientData(conn)
	if err != nil {
		return
	}
	var auth struct{ Token, PID, Offset string }
	var claims struct{ Sub string }
	_ = json.Unmarshal(raw[2:], &auth)
	if parts := strings.Split(auth.Token, "."); len(parts) == 3 {
		text, _ := base64.RawURLEncoding.DecodeString(parts[1])
		_ = json.Unmarshal(text, &claims)
	}
	s.join(conn, claims.Sub, auth.PID)
	for {
		if _, _, err := wsutil.ReadClientData(conn); err != nil {
			break
		}
		s.pong(conn)
	}
	s.mu.Lock()
	delete(s.tabs, conn)
	s.mu.Unlock()
}

func (s *socketServer) join(conn net.Conn, user, pid string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pids[user] = pid
	s.send(conn, fmt.Sprintf(`40{"sid":"x","pid":"pid-%s"}`, user))
	s.send(conn, `42["authenticated",{}]`)
	online := []string{}
	for _, tab := range s.tabs {
		if tab.user != s.hide {
			online = append(online, tab.user)
		}
	}
	list, _ := json.Marshal(online)
	s.send(conn, fmt.Sprintf(`42["online_users",{"users":%s,"count":%d}]`, list, len(online)))
	for range s.unread[user] {
		s.send(conn, fmt.Sprintf(`42["%s",{},"1-1"]`, crowdEvent))
	}
	for other := range s.tabs {
		if user == s.hide {
			break
		}
		s.send(other, fmt.Sprintf(`42["user_online",{"userId":"%s"}]`, user))
		if user == s.repeat {
			s.send(other, fmt.Sprintf(`42["user_online",{"userId":"%s"}]`, user))
		}
	}
	s.tabs[conn] = &socketTab{user: user}
}

type socketEvent struct {
	UserID, Event string
	Data          json.RawMessage
}

func (s *socketServer) publish(ev socketEvent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for conn, tab := range s.tabs {
		if tab.user != ev.UserID {
			continue
		}
		if ev.Event != crowdEvent {
			s.send(conn, fmt.Sprintf(`42["%s",%s]`, ev.Event, ev.Data))
			continue
		}
		s.id++
		s.unread[tab.user]++
		s.send(conn, fmt.Sprintf(`42["%s",%s,"1-%d"]`, ev.Event, ev.Data, s.id))
		s.send(conn, "2")
		tab.pinged++
		tab.receipt = true
	}
}

func (s *socketServer) pong(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	tab := s.tabs[conn]
	tab.pinged--
	if tab.receipt && !s.deaf {
		tab.receipt = false
		delete(s.unread, tab.user)
		if time.Since(s.stalled) > settleSpread {
			time.Sleep(s.settles) // under mu: POSTs wait
			s.stalled = time.Now()
		}
	}
}

// beat pings every tab that has no ping to answer.
func (s *socketServer) beat(ctx context.Context) {
	for ctx.Err() == nil {
		s.mu.Lock()
		for conn, tab := range s.tabs {
			if tab.pinged == 0 {
				tab.pinged++
				s.send(conn, "2")
			}
		}
		s.mu.Unlock()
		_ = pause(ctx, 50*time.Millisecond)
	}
}

func (s *socketServer) closeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for conn := range s.tabs {
		conn.Close()
		delete(s.tabs, conn)
	}
}

func (s *socketServer) send(conn net.Conn, text string) {
	_ = wsutil.WriteServerText(conn, []byte(text))
}

func TestArrivalSeesWhoIsNotTold(t *testing.T) {
	for name, c := range map[string]struct {
		server *socketServer
		lost   float64
	}{
		"none":              {&socketServer{}, 0},
		"a hidden user":     {&socketServer{hide: userName(7)}, 19},
		"one told of twice": {&socketServer{repeat: userName(7)}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // a loss is waited for
			got, err := arrival(t.Context(), c.server.start(t))
			if err != nil || got["lost"] != c.lost {
				t.Errorf("%v, %v", got, err)
			}
		})
	}
}

func TestArrivalDoesNotWaitForPresenceThatIsOff(t *testing.T) {
	s := &socketServer{hide: userName(7)}
	tt := s.start(t)
	tt.presence = false
	got, err := arrival(t.Context(), tt)
	if err != nil || got["lost"] != 0 || got["wall_s"] > patience.Seconds() {
		t.Errorf("%v, %v", got, err)
	}
}

func TestPresenceSeesFaults(t *testing.T) {
	for name, c := range map[string]struct {
		server         *socketServer
		lost, repeated float64
	}{
		"none":              {&socketServer{}, 0, 0},
		"a hidden user":     {&socketServer{hide: "arriving-" + userName(15)}, 10, 0},
		"one told of twice": {&socketServer{repeat: "arriving-" + userName(15)}, 0, 10},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // a loss is waited for
			tt := c.server.start(t)
			tt.conns, tt.users = 10, 5
			got, err := presence(t.Context(), tt)
			if err != nil || got["lost"] != c.lost || got["repeated"] != c.repeated {
				t.Errorf("%v, %v", got, err)
			}
		})
	}
}

func TestStormBringsTheSameClientsBack(t *testing.T) {
	s := &socketServer{}
	tt := s.start(t)
	tt.restart = func() (int, error) {
		s.closeAll()
		return tt.pid, nil
	}
	got, err := storm(t.Context(), tt)
	if err != nil || got["lost"] != 0 {
		t.Fatalf("%v, %v", got, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range tt.n {
		if user := userName(i); s.pids[user] != "pid-"+user {
			t.Errorf("%s came back as %q", user, s.pids[user])
		}
	}
}

func TestStormFailsWithoutARestart(t *testing.T) {
	tt := (&socketServer{}).start(t)
	tt.restart = func() (int, error) { return 0, os.ErrClosed }
	if _, err := storm(t.Context(), tt); err == nil {
		t.Error("a server that does not come back is not noticed")
	}
}

func TestSettleSeesAServerThatStandsStill(t *testing.T) {
	t.Parallel() // its windows take seconds
	s := &socketServer{settles: 300 * time.Millisecond, beats: true}
	tt := s.start(t)
	tt.users, tt.rate, tt.kind = 3, 200, "progress"
	got, err := settle(t.Context(), tt)
	if err != nil {
		t.Fatal(err)
	}
	if got["users"] != 20 || got["p999_ms"] < 200 {
		t.Errorf("receipts that stop a server for 300 ms show as %v", got)
	}
}

func TestSettleSeesReceiptsThatAreNotTaken(t *testing.T) {
	s := &socketServer{deaf: true}
	tt := s.start(t)
	pool, err := tt.pool(ignore)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	if err := pool.Connect(t.Context(), tt.specs(crowdPrefix, 0, tt.n, tt.n), inFlight); err != nil {
		t.Fatal(err)
	}
	batches, err := tt.dial(1, "/v1/events/batch")
	if err != nil {
		t.Fatal(err)
	}
	defer hangUp(batches)
	if err := tellCrowd(batches, tt.n); err != nil {
		t.Fatal(err)
	}
	if err := tt.settled(t.Context(), tt.n); err == nil || !strings.Contains(err.Error(), "20 messages came again") {
		t.Errorf("messages that come again are seen as %v", err)
	}
}

func TestRosterFollowsTheEvents(t *testing.T) {
	event := func(name, body string) sockets.Event {
		return sockets.Event{Name: []byte(name), Body: []byte(body)}
	}
	list := func(users ...string) sockets.Event {
		text, _ := json.Marshal(users)
		return event("online_users", fmt.Sprintf(`,{"users":%s,"count":9}`, text))
	}
	online := func(user string) sockets.Event { return event("user_online", `,{"userId":"`+user+`"}`) }
	offline := func(user string) sockets.Event {
		return event("user_offline", `,{"userId":"`+user+`","lastSeen":"2026-01-01T00:00:00.000Z"}`)
	}
	a, b, c := userName(0), userName(1), userName(2)
	for name, tc := range map[string]struct {
		events         []sockets.Event
		lost, repeated int
	}{
		"nothing":                    {nil, 2, 0}, // itself it knows
		"a list":                     {[]sockets.Event{list(a, b, c)}, 0, 0},
		"an empty list":              {[]sockets.Event{list()}, 2, 0},
		"a list that forgets":        {[]sockets.Event{online(b), list(a, c)}, 1, 0},
		"arrivals":                   {[]sockets.Event{list(), online(b), online(c)}, 0, 0},
		"an arrival after the list":  {[]sockets.Event{list(a, b, c), online(b)}, 0, 0},
		"the same arrival again":     {[]sockets.Event{online(b), online(b)}, 1, 1},
		"one who has left":           {[]sockets.Event{list(a, b, c), offline(c)}, 1, 0},
		"one who has left and come":  {[]sockets.Event{online(c), offline(c), online(c)}, 1, 0},
		"others than those it is of": {[]sockets.Event{list("x", userName(3)), online("y"), online(userName(9))}, 2, 0},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRoster("", 1, 0, 3)
			for _, ev := range tc.events {
				r.hear(0, ev)
			}
			if lost, repeated := r.count(); lost != tc.lost || repeated != tc.repeated {
				t.Errorf("%d lost, %d repeated; want %d, %d", lost, repeated, tc.lost, tc.repeated)
			}
		})
	}
}
