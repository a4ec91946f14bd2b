package engine

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// What a client can do to make the server hold more, run more or stop.

func TestEndlessChunkedPostIsCutOff(t *testing.T) {
	s := newTestServer(t, Config{})
	sid, rec := s.openPoll(t)
	nc := s.dial(t)
	fmt.Fprintf(nc, "POST /socket.io/?EIO=4&transport=polling&sid=%s HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n", sid)
	chunk := "10000\r\n" + repeat("4", 0x10000) + "\r\n"
	sent := 0
	for ; sent < 60<<20; sent += 0x10000 {
		if _, err := io.WriteString(nc, chunk); err != nil {
			break // cut off
		}
	}
	if sent >= 60<<20 {
		t.Error("60 MB were taken in")
	}
	rec.wantClosed(t, ReasonTransportError)
	if n := s.Stats().BytesIn; n != 0 {
		t.Errorf("%d bytes reached the session", n)
	}
}

func TestSlowPostIsCutOff(t *testing.T) {
	s := newTestServer(t, Config{PingInterval: 60 * time.Millisecond, PingTimeout: 40 * time.Millisecond})
	sid, rec := s.openPoll(t)
	nc := s.dial(t)
	fmt.Fprintf(nc, "POST /socket.io/?EIO=4&transport=polling&sid=%s HTTP/1.1\r\nHost: test\r\nContent-Length: 100\r\n\r\n4", sid)
	b, err := io.ReadAll(nc) // the server ends it
	if err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 400 ") {
		t.Errorf("%q, %v", b, err)
	}
	recv(t, rec.closed, "Closed")
}

func TestPongFloodsCloseOnlyTheirConnection(t *testing.T) {
	s := newTestServer(t, Config{})
	_, victim := s.openWebSocket(t)
	flood := bytes.Repeat(clientFrame(0x81, "3"), 10_000)
	for range 10 {
		c := s.websocketWith(t, "", flood[:100]) // with the handshake: before there is a heartbeat
		rec := s.session(t)
		c.Conn.Write(flood)
		rec.wantClosed(t, ReasonParseError)
		c.Close()

		sid, rec := s.openPoll(t)
		if a := s.post(t, sid, strings.TrimSuffix(repeat("3\x1e", 10_000), "\x1e")); a.status != 400 {
			t.Errorf("status %d", a.status)
		}
		rec.wantClosed(t, ReasonParseError)
	}
	if !victim.Open() {
		t.Error("another session was closed")
	}
}

// Ping frames whose pongs nobody reads are bounded like all output.
func TestPingFrameFloodIsASlowClient(t *testing.T) {
	onBothPaths(t, Config{MaxQueue: 100_000}, func(t *testing.T, s *testServer) {
		c, rec := s.openWebSocket(t)
		flood := bytes.Repeat(clientFrame(0x89, repeat("x", 125)), 1000)
		for {
			if _, err := c.Conn.Write(flood); err != nil {
				break
			}
		}
		rec.wantClosed(t, ReasonSlowClient)
	})
}

// A thousand half messages hold what was sent of them, not what they announced.
func TestHalfMessagesHoldWhatWasSent(t *testing.T) {
	s := &testServer{Server: NewServer(Config{MaxPayload: 10 << 20}, func(*Conn, *http.Request) Handler { return quiet{} })}
	s.http = httptest.NewServer(s.Server)
	defer s.http.Close()
	defer s.Shutdown(t.Context())
	before := settledHeap()
	const n = 500
	var clients []*wsClient
	for range n {
		c := s.websocket(t, "")
		c.write(append([]byte{0x81, 0xff, 0, 0, 0, 0, 0, 0x90, 0, 0, 0, 0, 0, 0}, repeat("4", 2000)...)) // 9 MiB announced
		clients = append(clients, c)
	}
	time.Sleep(50 * time.Millisecond)                      // for the last of them to be read; less only makes the test easier
	if grown := settledHeap() - before; grown > n*20_000 { // the clients' own 4 kB readers included
		t.Errorf("%d bytes held for a connection", grown/n)
	}
	for _, c := range clients {
		c.Close()
	}
}

func settledHeap() int {
	var m runtime.MemStats
	for range 3 {
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// Random bytes, and valid frames with random damage, end their own connection and nothing else.
func TestGarbage(t *testing.T) {
	s := newTestServer(t, Config{MaxPayload: 10_000})
	s.echo()
	_, victim := s.openWebSocket(t)
	rng := rand.New(rand.NewPCG(3, 4))
	var wg sync.WaitGroup
	for range 200 {
		input := bytes.Join([][]byte{
			clientFrame(0x81, "4hello"), clientFrame(0x01, "4fr"), clientFrame(0x89, "ping"), clientFrame(0x80, "ag"),
			clientFrame(0x82, "binary"), clientFrame(0x81, "3"), clientFrame(0x88, "\x03\xe8"),
		}, nil)
		for range 1 + rng.IntN(5) {
			input[rng.IntN(len(input))] = byte(rng.Uint32())
		}
		c, rec := s.openWebSocket(t)
		wg.Go(func() {
			c.Conn.Write(input)
			if tcp, ok := c.Conn.(interface{ CloseWrite() error }); ok {
				tcp.CloseWrite()
			}
			io.Copy(io.Discard, c.Conn)
			recv(t, rec.closed, "Closed")
		})
	}
	wg.Wait()
	if !victim.Open() {
		t.Error("another session was closed")
	}
}

// Sessions of all kinds come and go at once, in every way; nothing stays.
func TestChurn(t *testing.T) {
	onBothPaths(t, Config{WriteTimeout: 500 * time.Millisecond}, func(t *testing.T, s *testServer) {
		s.echo()
		go func() { // the recorders are not looked at
			for range s.sessions {
			}
		}()
		defer close(s.sessions)
		goroutines, files := runtime.NumGoroutine(), openFiles()
		var wg sync.WaitGroup
		for worker := range 8 {
			wg.Go(func() {
				client := &http.Client{Transport: &http.Transport{}}
				defer client.CloseIdleConnections()
				for i := range 30 {
					switch (worker + i) % 6 {
					case 0: // vanishes
						c := s.websocket(t, "")
						c.text("4hello")
						c.Close()
					case 1: // says goodbye
						c := s.websocket(t, "")
						c.packet()
						c.text("4hello")
						c.wantPacket("4hello")
						c.write(clientFrame(0x88, "\x03\xe8"))
						c.wantClose(1000)
						c.Close()
					case 2: // polls, closes
						sid := parseOpen(t, s.get(t, "").body).SID
						s.post(t, sid, "4hello")
						s.get(t, sid).want(t, 200, "4hello")
						s.post(t, sid, "1")
					case 3: // upgrades, vanishes
						sid := parseOpen(t, s.get(t, "").body).SID
						c := s.websocket(t, sid)
						c.text("2probe")
						c.wantPacket("3probe")
						c.text("5")
						c.text("4hello")
						c.wantPacket("4hello")
						c.Close()
					case 4: // upgrades half, closes
						sid := parseOpen(t, s.get(t, "").body).SID
						c := s.websocket(t, sid)
						c.text("2probe")
						c.wantPacket("3probe")
						c.Close()
						s.post(t, sid, "1")
					case 5: // breaks the protocol
						c := s.websocket(t, "")
						c.Conn.Write([]byte{0xff, 0xff})
						io.Copy(io.Discard, c.Conn)
						c.Close()
					}
				}
			})
		}
		wg.Wait()
		eventually(t, "end of all sessions", func() bool { return len(s.Server.sessions()) == 0 })
		s.http.Client().CloseIdleConnections()
		eventually(t, "end of all goroutines", func() bool { return runtime.NumGoroutine() <= goroutines })
		eventually(t, "end of all descriptors", func() bool { return openFiles() <= files })
		st := s.Stats()
		if st.Opened != 240 || st.Polling != 0 || st.WebSocket != 0 || st.Buffered != 0 {
			t.Errorf("%+v", st)
		}
	})
}
