package main

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"jobwire/test/bench/loadgen/sockets"
)

// TestMain shortens the wait for what is lost: servers in the same process are
// not silent for as long.
func TestMain(m *testing.M) {
	patience = 2 * time.Second
	os.Exit(m.Run())
}

// flawed is a server of the bare dialect that can lose, repeat and swap what
// it sends. It tests the generator: a fault it does not see is a fault the
// bench would not see.
type flawed struct {
	mu       sync.Mutex // guards the rest and keeps the events of all POSTs in one order
	conns    []net.Conn
	lose     int // every n-th event, from one socket only; 0 for never
	repeat   int
	swap     int
	sent     int
	withheld []byte
}

func (f *flawed) start(t *testing.T) *target {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ws", func(w http.ResponseWriter, r *http.Request) {
		conn, _, _, err := ws.UpgradeHTTP(r, w)
		if err != nil {
			return
		}
		go f.greet(conn)
	})
	mux.HandleFunc("POST /v1/events", f.post)
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	return &target{addr: srv.Listener.Addr().String(), pid: os.Getpid(), dialect: sockets.Dialects["bare"],
		secret: []byte("s"), key: "k", users: 10, workers: 4, conns: 3, rate: 2000}
}

func (f *flawed) greet(conn net.Conn) {
	if _, _, err := wsutil.ReadClientData(conn); err != nil {
		conn.Close()
		return
	}
	f.mu.Lock()
	f.conns = append(f.conns, conn)
	f.mu.Unlock()
	_ = wsutil.WriteServerText(conn, []byte(`{"ready":true}`))
	_, _, _ = wsutil.ReadClientData(conn) // until the client leaves
	conn.Close()
}

func (f *flawed) post(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Event string
		Data  json.RawMessage
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	frame := ws.MustCompileFrame(ws.NewTextFrame([]byte(`{"event":"` + in.Event + `","data":` + string(in.Data) + `}`)))
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sent++
	for i, conn := range f.conns {
		out := frame
		if i == 0 {
			out = f.spoil(frame)
		}
		_, _ = conn.Write(out)
	}
	w.WriteHeader(http.StatusAccepted)
}

// spoil is what the first socket gets instead of frame.
func (f *flawed) spoil(frame []byte) []byte {
	every := func(n int) bool { return n > 0 && f.sent%n == 0 }
	switch {
	case every(f.lose):
		return nil
	case every(f.repeat):
		return append(append([]byte(nil), frame...), frame...)
	case every(f.swap):
		f.withheld = frame
		return nil
	case f.withheld != nil:
		out := append(append([]byte(nil), frame...), f.withheld...)
		f.withheld = nil
		return out
	}
	return frame
}

func TestBurstSeesFaults(t *testing.T) {
	for name, c := range map[string]struct {
		server  *flawed
		workers int
		want    metrics
	}{
		"none":    {&flawed{}, 4, metrics{"lost": 0, "repeated": 0, "disordered": 0}},
		"repeats": {&flawed{repeat: 100}, 1, metrics{"lost": 0, "repeated": 10, "disordered": 10}},
		// The last one is withheld for good.
		"swaps and a loss": {&flawed{swap: 50}, 1, metrics{"lost": 1, "repeated": 0, "disordered": 19}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // a loss is waited for
			tt := c.server.start(t)
			tt.n, tt.workers = 1000, c.workers
			got, err := burst(t.Context(), tt)
			if err != nil {
				t.Fatal(err)
			}
			for k, v := range c.want {
				if got[k] != v {
					t.Errorf("%s = %v, want %v (all: %v)", k, got[k], v, got)
				}
			}
		})
	}
}

func TestPostSeesLosses(t *testing.T) {
	t.Parallel()
	f := flawed{lose: 100}
	tt := f.start(t)
	tt.conns, tt.users, tt.n = 1, 1, 1000
	_, err := post(t.Context(), tt)
	if err == nil || !strings.Contains(err.Error(), "10 were lost and 0 repeated") {
		t.Errorf("10 lost events of 1,000 are seen as %v", err)
	}
}

func TestLatencyCountsWaiting(t *testing.T) {
	f := flawed{}
	tt := f.start(t)
	tt.conns, tt.users, tt.n, tt.warm, tt.rest = 1, 1, 400, 0, 300*time.Millisecond
	released := make(chan struct{})
	// The server is stuck from the start for 50 ms: half of the 200 ms of load
	// is late by up to that much, though few POSTs are under way meanwhile.
	go func() {
		defer close(released)
		for {
			f.mu.Lock()
			if len(f.conns) == 1 {
				time.Sleep(450 * time.Millisecond) // the generator's rest of 300 ms, and 150 ms of load
				f.mu.Unlock()
				return
			}
			f.mu.Unlock()
			time.Sleep(time.Millisecond)
		}
	}()
	got, err := latency(t.Context(), tt)
	<-released
	if err != nil {
		t.Fatal(err)
	}
	if got["p50_ms"] < 10 || got["max_ms"] < 75 {
		t.Errorf("a stall of 150 ms in 200 ms shows as %v", got)
	}
}

func TestConnectFails(t *testing.T) {
	srv := httptest.NewServer(http.NotFoundHandler())
	defer srv.Close()
	tt := &target{addr: srv.Listener.Addr().String(), pid: os.Getpid(), dialect: sockets.Dialects["bare"], n: 3, warm: 1}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := connect(ctx, tt); err == nil || ctx.Err() != nil {
		t.Errorf("connecting to a server without websockets: %v", err)
	}
}

func TestOnlyLoopback(t *testing.T) {
	if _, err := sockets.NewPool("192.0.2.1:80", sockets.Dialects["bare"], ignore); err == nil {
		t.Error("load on an address that is not loopback is accepted")
	}
}

func TestSocketLogReadsIDs(t *testing.T) {
	l := newSocketLog(1, 10)
	for i, id := range []string{"5-0", "5-1", "6-0", "6-0", "5-9", "x"} {
		l.add(i, []byte(id))
	}
	if l.disordered != 3 {
		t.Errorf("ids that do not rise: %d, want 3", l.disordered)
	}
}

func TestEventsAreJSON(t *testing.T) {
	for _, kind := range []string{"progress", "completed", "custom", "jobs"} {
		tt := &target{kind: kind, users: 10, batch: 3}
		var one struct {
			UserID, Event string
			Data          map[string]any
		}
		raw := tt.appendEvent(nil, 7, 123)
		if err := json.Unmarshal(raw, &one); err != nil || one.UserID != userName(7) || one.Data["n"] != 123.0 {
			t.Errorf("%s: %s, %v", kind, raw, err)
		}
		if len(raw) < 130 || len(raw) > 220 {
			t.Errorf("%s: %d bytes", kind, len(raw))
		}
		var many struct{ Events []json.RawMessage }
		if raw := tt.appendPost(nil, 5); json.Unmarshal(raw, &many) != nil || len(many.Events) != 3 {
			t.Errorf("%s: batch %s", kind, raw)
		}
	}
}

func TestJobsEndOnce(t *testing.T) {
	tt := &target{kind: "jobs", users: 10}
	ended := make(map[string]bool)
	ends := 0
	const n = 20_000
	for i := range n {
		var e struct {
			UserID, Event string
			Data          struct{ JobID string }
		}
		if err := json.Unmarshal(tt.appendEvent(nil, i%tt.users, i), &e); err != nil {
			t.Fatal(err)
		}
		job := e.UserID + " " + e.Data.JobID
		if ended[job] {
			t.Fatalf("event %d is for %s, which has ended", i, job)
		}
		if e.Event == "job_completed" {
			ended[job] = true
			ends++
		}
	}
	if share := float64(n) / float64(ends); share < eventsPerJob-1 || share > eventsPerJob+1 {
		t.Errorf("%d events for one end, want about %d", int(share), eventsPerJob)
	}
}

func TestQuantile(t *testing.T) {
	var sorted []time.Duration
	for i := range 1000 {
		sorted = append(sorted, time.Duration(i+1))
	}
	for q, want := range map[float64]time.Duration{0.5: 500, 0.99: 990, 0.999: 999, 1: 1000, 0: 1} {
		if got := quantile(sorted, q); got != want {
			t.Errorf("quantile %s = %d, want %d", strconv.FormatFloat(q, 'g', -1, 64), got, want)
		}
	}
}
