package engine

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// pipeWriter lets a handshake be made over net.Pipe, so that synctest's clock drives the engine's timers.
type pipeWriter struct {
	*httptest.ResponseRecorder
	nc net.Conn
}

func (w pipeWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return w.nc, bufio.NewReadWriter(bufio.NewReader(w.nc), bufio.NewWriter(w.nc)), nil
}

// bubble is an engine and its clients on a fake clock.
type bubble struct {
	*testServer
}

func inBubble(t *testing.T, cfg Config, test func(t *testing.T, s bubble)) {
	synctest.Test(t, func(t *testing.T) {
		s := &testServer{sessions: make(chan *recorder, 1000)}
		s.Server = NewServer(cfg, func(c *Conn, _ *http.Request) Handler {
			rec := &recorder{Conn: c, srv: s, t: t, messages: make(chan string, 100), pongs: make(chan uint32, 100), closed: make(chan string, 8)}
			s.sessions <- rec
			return rec
		})
		test(t, bubble{s})
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// websocket opens a session whose client reads up to 1,000 packets ahead.
func (b bubble) websocket(t *testing.T) (client *wsClient, packets chan string, rec *recorder) {
	near, far := net.Pipe()
	client = &wsClient{near, t, bufio.NewReader(near)}
	packets = make(chan string, 1000)
	go func() {
		defer close(packets)
		if _, err := http.ReadResponse(client.rd, nil); err != nil {
			return
		}
		for {
			b0, payload, err := client.frame()
			switch {
			case err != nil:
				near.Close()
				return
			case b0 == 0x88:
				packets <- fmt.Sprintf("close %d", int(payload[0])<<8|int(payload[1]))
			default:
				packets <- string(payload)
			}
		}
	}()
	b.ServeHTTP(pipeWriter{httptest.NewRecorder(), far}, websocketRequest(""))
	if open := <-packets; open[0] != '0' {
		t.Fatalf("first packet %q", open)
	}
	return client, packets, <-b.sessions
}

func websocketRequest(query string) *http.Request {
	r := httptest.NewRequest("GET", "/?EIO=4&transport=websocket"+query, nil)
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Upgrade", "websocket")
	r.Header.Set("Sec-WebSocket-Version", "13")
	r.Header.Set("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
	return r
}

func TestHeartbeat(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, s bubble) {
		client, packets, rec := s.websocket(t)
		for i := range 5 {
			start := time.Now()
			if p := <-packets; p != "2" {
				t.Fatalf("packet %q", p)
			}
			if waited := time.Since(start); waited < 25*time.Second-10*time.Millisecond || waited > 25*time.Second {
				t.Errorf("ping after %v", waited)
			}
			time.Sleep(19 * time.Second) // a slow client, but in time
			client.text("3")
			if seq := <-rec.pongs; seq != uint32(i+1) {
				t.Errorf("pong %d answers ping %d", i+1, seq)
			}
		}
		client.Close()
		if reason := <-rec.closed; reason != ReasonTransportClose {
			t.Errorf("closed with %q", reason)
		}
	})
}

func TestPingTimeout(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, s bubble) {
		start := time.Now()
		_, packets, rec := s.websocket(t)
		if reason := <-rec.closed; reason != ReasonPingTimeout {
			t.Errorf("closed with %q", reason)
		}
		if after := time.Since(start); after < 45*time.Second-10*time.Millisecond || after > 45*time.Second {
			t.Errorf("closed after %v", after)
		}
		if p := <-packets; p != "2" {
			t.Errorf("packet %q", p)
		}
		if p := <-packets; p != "close 1008" {
			t.Errorf("packet %q", p)
		}
	})
}

// A timeout that is longer than the interval must not delay others' pings.
func TestPingsOfOthersComeWhileAPongIsAwaited(t *testing.T) {
	inBubble(t, Config{PingInterval: time.Second, PingTimeout: time.Minute}, func(t *testing.T, s bubble) {
		_, silent, _ := s.websocket(t)
		<-silent
		start := time.Now()
		client, packets, rec := s.websocket(t)
		for range 3 {
			<-packets
			client.text("3")
			<-rec.pongs
		}
		if after := time.Since(start); after > 3*time.Second {
			t.Errorf("three heartbeats took %v", after)
		}
	})
}

// The pong to a receipt is not the pong to the heartbeat, and answers come in order.
func TestPingsOfOurOwnBesideTheHeartbeat(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, s bubble) {
		client, packets, rec := s.websocket(t)
		if seq := rec.Ping(); seq != 1 {
			t.Errorf("first ping has seq %d", seq)
		}
		<-packets
		<-packets // the heartbeat's
		if seq := rec.Ping(); seq != 3 {
			t.Errorf("third ping has seq %d", seq)
		}
		<-packets
		for want := uint32(1); want <= 3; want++ {
			client.text("3")
			if seq := <-rec.pongs; seq != want {
				t.Errorf("pong to %d, want %d", seq, want)
			}
		}
		// The first pong only: the heartbeat's is still missing, so the session ends.
		<-packets
		rec.Ping()
		<-packets
		start := time.Now()
		if reason := <-rec.closed; reason != ReasonPingTimeout {
			t.Errorf("closed with %q", reason)
		}
		if after := time.Since(start); after > 20*time.Second {
			t.Errorf("after %v", after)
		}
		if rec.Ping() != 0 {
			t.Error("a closed connection pings")
		}
	})
}

func TestPongFlood(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, s bubble) {
		client, packets, rec := s.websocket(t)
		<-packets
		client.text("3")
		<-rec.pongs
		client.text("3")
		if p := <-packets; p != "close 1002" {
			t.Errorf("packet %q", p)
		}
		if reason := <-rec.closed; reason != ReasonParseError {
			t.Errorf("closed with %q", reason)
		}
	})
}

func TestSeqSkipsZero(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, s bubble) {
		client, packets, rec := s.websocket(t)
		rec.mu.Lock()
		rec.Conn.pings, rec.Conn.pongs = 1<<32-2, 1<<32-2
		rec.mu.Unlock()
		for _, want := range []uint32{1<<32 - 1, 1, 2} {
			if seq := rec.Ping(); seq != want {
				t.Errorf("seq %d, want %d", seq, want)
			}
			<-packets
			client.text("3")
			if seq := <-rec.pongs; seq != want {
				t.Errorf("pong to %d, want %d", seq, want)
			}
		}
	})
}

// A vanished polling client is closed by the heartbeat, and its queue with it.
func TestPingTimeoutOnPolling(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, s bubble) {
		w := httptest.NewRecorder()
		s.ServeHTTP(w, httptest.NewRequest("GET", "/?EIO=4&transport=polling", nil))
		sid := parseOpen(t, w.Body.String()).SID
		rec := <-s.sessions
		start := time.Now()
		if reason := <-rec.closed; reason != ReasonPingTimeout {
			t.Errorf("closed with %q", reason)
		}
		if after := time.Since(start); after > 45*time.Second {
			t.Errorf("closed after %v", after)
		}
		synctest.Wait()
		w = httptest.NewRecorder()
		s.ServeHTTP(w, httptest.NewRequest("GET", "/?EIO=4&transport=polling&sid="+sid, nil))
		if w.Code != 400 {
			t.Errorf("poll answered %d", w.Code)
		}
	})
}

// A client that has sent its close frame gets the echo, and the descriptor is closed at once.
func TestClientsCloseFrameNeedsNoGrace(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, s bubble) {
		start := time.Now()
		client, packets, rec := s.websocket(t)
		client.write(clientFrame(0x88, "\x03\xe8"))
		if p := <-packets; p != "close 1000" {
			t.Errorf("packet %q", p)
		}
		<-rec.closed
		if _, open := <-packets; open || time.Since(start) != 0 {
			t.Errorf("closed after %v", time.Since(start))
		}
	})
}

// A client that is told to go has closeGrace from when it was told, however late that is.
func TestGraceBeginsWhenTheCloseFrameIsOut(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, s bubble) {
		near, far := net.Pipe()
		client := &wsClient{near, t, bufio.NewReaderSize(near, 16)}
		go s.ServeHTTP(pipeWriter{httptest.NewRecorder(), far}, websocketRequest(""))
		http.ReadResponse(client.rd, nil)
		client.packet()
		rec := <-s.sessions
		rec.Close(ReasonForcedClose)
		if reason := <-rec.closed; reason != ReasonForcedClose {
			t.Errorf("closed with %q", reason)
		}
		time.Sleep(3 * time.Second) // the close frame waits in the queue
		start := time.Now()
		client.frame()
		client.frame() // the end
		if took := time.Since(start); took != closeGrace {
			t.Errorf("closed after %v", took)
		}
	})
}

// Three hundred sessions that come at any time and answer as they like: every ping and every timeout is on time.
func TestHeartbeatsOfManyAreOnTime(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, s bubble) {
		do := func(method, sid, body string) string {
			w := httptest.NewRecorder()
			s.ServeHTTP(w, httptest.NewRequest(method, "/?EIO=4&transport=polling&sid="+sid, strings.NewReader(body)))
			return w.Body.String()
		}
		rng := rand.New(rand.NewPCG(5, 6))
		var wg sync.WaitGroup
		for range 300 {
			arrives, rounds, answers := time.Duration(rng.Int64N(int64(time.Minute))), rng.IntN(4), time.Duration(rng.Int64N(int64(20*time.Second)))
			wg.Go(func() {
				time.Sleep(arrives)
				sid := parseOpen(t, do("GET", "", "")).SID
				beat := time.Now()
				for {
					if got := do("GET", sid, ""); got != "2" {
						t.Errorf("poll answered %q", got)
						return
					}
					if waited := time.Since(beat); waited < 25*time.Second-10*time.Millisecond || waited > 25*time.Second {
						t.Errorf("ping after %v", waited)
					}
					if rounds--; rounds < 0 {
						break
					}
					time.Sleep(answers)
					beat = time.Now()
					do("POST", sid, "3")
				}
				pinged := time.Now()
				if got := do("GET", sid, ""); got != "1" {
					t.Errorf("last poll answered %q", got)
				}
				if waited := time.Since(pinged); waited != 20*time.Second {
					t.Errorf("timeout after %v", waited)
				}
			})
		}
		wg.Wait()
	})
}

// With no session left, nothing of the engine runs: synctest fails on a goroutine that stays.
func TestHeartbeatRestsWithoutSessions(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, s bubble) {
		for range 3 {
			client, _, rec := s.websocket(t)
			client.text("4hello")
			<-rec.messages
			client.Close()
			<-rec.closed
			synctest.Wait()
			if n := s.beats.Len(); n != 0 {
				t.Errorf("%d heartbeats without sessions", n)
			}
			s.runners.mu.Lock()
			if n := len(s.runners.idle); n != 0 {
				t.Errorf("%d idle runners without sessions", n)
			}
			s.runners.mu.Unlock()
		}
	})
}
