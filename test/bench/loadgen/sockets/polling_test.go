package sockets

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// pollServer is the server's half of one polling session.
type pollServer struct {
	payloads chan string   // each answers one poll
	posts    chan string   // bodies, each held back until release
	release  chan struct{} // closed: POSTs are answered at once
	status   int           // of answers to POSTs

	mu      sync.Mutex
	remotes map[string]bool // addresses POSTs came from
	polling int
}

func (s *pollServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	sid := r.URL.Query().Get("sid")
	switch {
	case r.Method == http.MethodGet && sid == "":
		_, _ = io.WriteString(w, `0{"sid":"s1","upgrades":["websocket"]}`)
	case sid != "s1":
		http.Error(w, "unknown session", http.StatusBadRequest)
	case r.Method == http.MethodGet:
		s.mu.Lock()
		s.polling++
		overlap := s.polling > 1
		s.mu.Unlock()
		if overlap {
			http.Error(w, "overlapping polls", http.StatusBadRequest)
			return
		}
		payload := "6"
		select {
		case payload = <-s.payloads:
		case <-r.Context().Done():
		}
		s.mu.Lock()
		s.polling--
		s.mu.Unlock()
		_, _ = io.WriteString(w, payload)
	default:
		body, _ := io.ReadAll(r.Body)
		s.mu.Lock()
		s.remotes[r.RemoteAddr] = true
		s.mu.Unlock()
		s.posts <- string(body)
		<-s.release
		w.WriteHeader(s.status)
		_, _ = io.WriteString(w, "ok")
	}
}

func (s *pollServer) start(t *testing.T, idle time.Duration) string {
	s.payloads, s.posts, s.remotes = make(chan string), make(chan string, 10), make(map[string]bool)
	if s.status == 0 {
		s.status = http.StatusOK
	}
	srv := httptest.NewUnstartedServer(s)
	srv.Config.IdleTimeout = idle
	srv.Start()
	t.Cleanup(srv.Close)
	return srv.Listener.Addr().String()
}

func released() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

func expect(t *testing.T, what <-chan string, want string) {
	t.Helper()
	select {
	case got := <-what:
		if got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
	case <-time.After(10 * time.Second):
		t.Fatalf("no %q", want)
	}
}

// open connects one client; names of events go to heard.
func openPolling(t *testing.T, addr string) (pool *Pool, heard chan string, connected chan error) {
	heard, connected = make(chan string, 10), make(chan error, 1)
	pool, err := NewPool(addr, Dialects["socketio-polling"], func(_ *Conn, ev Event) { heard <- string(ev.Name) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	go func() { connected <- pool.Connect(context.Background(), []Spec{{Token: "tok"}}, 1) }()
	return pool, heard, connected
}

func TestPolling(t *testing.T) {
	s := pollServer{release: make(chan struct{})}
	pool, heard, connected := openPolling(t, s.start(t, 0))
	expect(t, s.posts, `40{"token":"tok"}`)
	// The first POST is not answered yet: what has to be said meanwhile waits for it.
	s.payloads <- "40{\"sid\":\"x\"}\x1e42[\"one\",{}]"
	expect(t, heard, "one")
	s.payloads <- "2\x1e42[\"two\",{}]"
	expect(t, heard, "two")
	s.payloads <- "2\x1e6\x1e42[\"three\",{}]"
	expect(t, heard, "three")
	if err := <-connected; err != nil {
		t.Fatal(err)
	}
	select {
	case got := <-s.posts:
		t.Fatalf("%q was posted during another POST", got)
	default:
	}
	close(s.release)
	expect(t, s.posts, "3\x1e3")
	if n, why := pool.Dropped(); n > 0 {
		t.Error(why)
	}
}

func TestPollingPostsAgainAfterAnIdleConnectionWasClosed(t *testing.T) {
	s := pollServer{release: released()}
	pool, _, connected := openPolling(t, s.start(t, 20*time.Millisecond))
	expect(t, s.posts, `40{"token":"tok"}`)
	s.payloads <- `40{"sid":"x"}`
	if err := <-connected; err != nil {
		t.Fatal(err)
	}
	for closed := false; !closed; time.Sleep(time.Millisecond) {
		open := make(chan bool)
		pool.post(func() {
			for _, c := range pool.conns {
				open <- c.polling.post >= 0
				return
			}
		})
		closed = !<-open
	}
	s.payloads <- "2"
	expect(t, s.posts, "3")
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.remotes) != 2 {
		t.Errorf("POSTs came over %d connections, want 2", len(s.remotes))
	}
	if n, why := pool.Dropped(); n > 0 {
		t.Error(why)
	}
}

func TestPollingSeesRefusals(t *testing.T) {
	s := pollServer{release: released(), status: http.StatusForbidden}
	_, _, connected := openPolling(t, s.start(t, 0))
	select {
	case err := <-connected:
		if err == nil || !strings.Contains(err.Error(), "403") {
			t.Errorf("a refused POST: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("a refused POST is not noticed")
	}
}

func TestAnswer(t *testing.T) {
	const whole = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nX: y\r\n\r\nok"
	for cut := range len(whole) {
		if _, size, err := answer([]byte(whole[:cut])); size != 0 || err != nil {
			t.Errorf("%q: size %d, %v", whole[:cut], size, err)
		}
	}
	if body, size, err := answer([]byte(whole + "HTTP")); string(body) != "ok" || size != len(whole) || err != nil {
		t.Errorf("body %q, size %d of %d, %v", body, size, len(whole), err)
	}
	for _, bad := range []string{
		"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n",
	} {
		if _, _, err := answer([]byte(bad)); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}
