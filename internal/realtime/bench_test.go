package realtime

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"jobwire/internal/engine"
)

// rawClient is a websocket client that costs next to nothing: a TCP connection, and what it is sent is thrown away.
func rawClient(tb testing.TB, addr, connect string) net.Conn {
	tb.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		tb.Fatal(err)
	}
	fmt.Fprintf(nc, "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n")
	frame := append([]byte{0x81, 0x80 | byte(len(connect)), 0, 0, 0, 0}, connect...)
	if _, err := nc.Write(frame); err != nil {
		tb.Fatal(err)
	}
	r := bufio.NewReaderSize(nc, 1024)
	for seen := ""; !strings.Contains(seen, `40{"sid"`); {
		b, err := r.ReadByte()
		if err != nil {
			tb.Fatal(err)
		}
		seen += string(b)
	}
	return nc
}

func BenchmarkEmitUser(b *testing.B) {
	for _, sockets := range []int{1, 10, 1000} {
		b.Run(fmt.Sprint(sockets), func(b *testing.B) {
			h := New(Config{MaxSocketsPerUser: 10_000, Engine: engine.Config{MaxQueue: 1 << 30}, Logger: slog.New(slog.DiscardHandler)}, newRecorder())
			srv := httptest.NewServer(h)
			defer srv.Close()
			defer h.Shutdown(b.Context())
			for range sockets {
				nc := rawClient(b, srv.Listener.Addr().String(), `40{"token":"alice"}`)
				defer nc.Close()
				go io.Copy(io.Discard, nc)
			}
			m := message("job_progress", `{"jobId":"1234567890","progress":50}`, 1700000000000)
			b.ReportAllocs()
			for b.Loop() {
				if n := h.EmitUser("alice", m); n != sockets {
					b.Fatalf("reached %d of %d", n, sockets)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(sockets), "ns/delivery")
		})
	}
}

// BenchmarkEmitRoom is what a burst of arrivals costs: 1,000 sessions, all of whose users have come, are told of each other.
func BenchmarkEmitRoom(b *testing.B) {
	const users = 1000
	r := newRecorder()
	r.connected = func(s *Session) { s.Join("all") }
	h := New(Config{Engine: engine.Config{MaxQueue: 1 << 30}, Logger: slog.New(slog.DiscardHandler)}, r)
	srv := httptest.NewServer(h)
	defer srv.Close()
	defer h.Shutdown(b.Context())
	packets := make([]RoomPacket, users)
	for i := range packets {
		user := fmt.Sprintf("user-%05d", i)
		nc := rawClient(b, srv.Listener.Addr().String(), `40{"token":"`+user+`"}`)
		defer nc.Close()
		go io.Copy(io.Discard, nc)
		packets[i] = RoomPacket{message("user_online", `{"userId":"`+user+`"}`, 0).Packet, user}
	}
	b.ReportAllocs()
	for b.Loop() {
		if n := h.EmitRoom("all", packets); n != users {
			b.Fatalf("reached %d", n)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/users, "ns/session")
}

// BenchmarkConnection measures what an idle connected client holds in the server: live heap and stacks, the client's own TCP
// connection in this process (about 0.5 kB) included.
func BenchmarkConnection(b *testing.B) {
	for b.Loop() {
		const n = 2000
		h := New(Config{Logger: slog.New(slog.DiscardHandler)}, newRecorder())
		srv := httptest.NewServer(h)
		conns := make([]net.Conn, 0, n+100)
		connect := func(k int) {
			for range k {
				conns = append(conns, rawClient(b, srv.Listener.Addr().String(), fmt.Sprintf(`40{"token":"user%d"}`, len(conns))))
			}
		}
		connect(100) // what is made once is made
		heap0, stack0 := memory()
		start := time.Now()
		connect(n)
		took := time.Since(start)
		heap1, stack1 := memory()
		b.ReportMetric(float64(heap1-heap0)/n, "heapB/conn")
		b.ReportMetric(float64(stack1-stack0)/n, "stackB/conn")
		b.ReportMetric(float64(took.Microseconds())/n, "µs/connect")
		h.Shutdown(b.Context())
		srv.Close()
		for _, nc := range conns {
			nc.Close()
		}
	}
}

func memory() (heap, stack int64) {
	var m runtime.MemStats
	for range 4 { // stacks shrink by half a collection
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc), int64(m.StackInuse)
}

// TestEmitAllocations guards the allocations of an emit: the frame, its bytes, the slice that carries it.
func TestEmitAllocations(t *testing.T) {
	s := newStand(t, Config{})
	nc := rawClient(t, s.srv.Listener.Addr().String(), `40{"token":"alice"}`)
	defer nc.Close()
	drained := make(chan struct{})
	go func() { defer close(drained); io.Copy(io.Discard, nc) }()
	m := message("job_progress", `{"jobId":"1","progress":50}`, 5)
	if got := testing.AllocsPerRun(200, func() { s.EmitUser("alice", m) }); got > 4 {
		t.Errorf("%v allocations an emit", got)
	}
	nc.Close()
	<-drained
}
