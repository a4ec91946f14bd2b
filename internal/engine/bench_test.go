package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"sync"
	"testing"
	"time"
)

// quiet is the cheapest Handler: what is measured is the engine.
type quiet struct{ deep int }

func (q quiet) Message(b []byte, _ bool) Task {
	if q.deep > 0 {
		var v any
		json.Unmarshal([]byte(`{"token":"abc","nested":{"a":[1,2,{"b":3}]}}`), &v)
		useStack(q.deep)
	}
	return nil
}
func (quiet) Pong(uint32)        {}
func (quiet) Closed(string) Task { return nil }

//go:noinline
func useStack(n int) byte {
	var pad [512]byte
	if n > 0 {
		pad[n] = useStack(n - 1)
	}
	return pad[n/2]
}

// openMany opens n websockets that have sent one message, as a Socket.IO client does.
func openMany(b testing.TB, s *Server, n int) ([]*Conn, func()) {
	conns, stop, _ := openManyWith(b, s, n)
	return conns, stop
}

func openManyWith(b testing.TB, s *Server, n int) ([]*Conn, func(), []net.Conn) {
	hs := &http.Server{Handler: s}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	go hs.Serve(l)
	clients := make([]net.Conn, n)
	for i := range clients {
		nc, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		clients[i] = nc
		if _, err := nc.Write(append(fmt.Appendf(nil, goodHandshake, ""), clientFrame(0x81, "4"+repeat("t", 300))...)); err != nil {
			b.Fatal(err)
		}
		if _, err := nc.Read(make([]byte, 4096)); err != nil {
			b.Fatal(err)
		}
	}
	for s.Stats().PacketsIn < s.Stats().Opened {
		time.Sleep(time.Millisecond)
	}
	return s.sessions(), func() {
		for _, nc := range clients {
			nc.Close()
		}
		hs.Close()
		s.Shutdown(context.Background())
	}, clients
}

// BenchmarkIdleConnection reports what an idle websocket session keeps: heap with its descriptor, and stack.
func BenchmarkIdleConnection(b *testing.B) {
	const n = 2000
	for b.Loop() {
		s := NewServer(Config{}, func(*Conn, *http.Request) Handler { return quiet{4} })
		// Two halves, so that what grows once (maps, pools, listeners) does not count.
		_, stop1 := openMany(b, s, n/2)
		before := settledMemory()
		conns, stop2 := openMany(b, s, n)
		fresh := memory()
		after := settledMemory()
		// The clients are in this process too: a net.Conn each, with no goroutine.
		client := clientCost(b)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/n-client, "heap-B/conn")
		b.ReportMetric(float64(fresh.StackInuse-before.StackInuse)/n, "stack-B/conn-fresh")
		b.ReportMetric(float64(after.StackInuse-before.StackInuse)/n, "stack-B/conn")
		runtime.KeepAlive(conns)
		stop2()
		stop1()
	}
}

func memory() (m runtime.MemStats) {
	runtime.ReadMemStats(&m)
	return m
}

func settledMemory() runtime.MemStats {
	for range 4 {
		runtime.GC()
		time.Sleep(10 * time.Millisecond)
	}
	return memory()
}

// clientCost is what one end of a loopback connection costs without the engine.
func clientCost(b testing.TB) float64 {
	const n = 500
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	ends := make([]net.Conn, 0, 2*n)
	before := settledMemory()
	for range n {
		a, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		z, err := l.Accept()
		if err != nil {
			b.Fatal(err)
		}
		ends = append(ends, a, z)
	}
	after := settledMemory()
	for _, nc := range ends {
		nc.Close()
	}
	return float64(after.HeapAlloc-before.HeapAlloc) / (2 * n)
}

// BenchmarkSend compares a fan-out through the engine with the floor: a loop of net.Conn.Write over the same bytes. ns/op is
// the time of one delivery; the clients drain in the same process, at the same cost for both.
func BenchmarkSend(b *testing.B) {
	frame := TextFrame([]byte(`2["job_progress",{"jobId":"42","progress":57},"1700000000000-1"]`))
	for _, n := range []int{1, 1000} {
		conns, stop := drained(b, n)
		socket := make([]net.Conn, n)
		for i, c := range conns {
			socket[i] = c.nc
		}
		b.Run(fmt.Sprintf("bare/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if _, err := socket[i%n].Write(frame.wire); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("engine/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if err := conns[i%n].Send(frame); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("engine+ping/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				c := conns[i%n]
				c.Cork()
				c.Send(frame)
				c.Ping()
				c.Uncork()
			}
		})
		stop()
	}
}

// drained opens n websockets whose clients read everything away.
func drained(b *testing.B, n int) ([]*Conn, func()) {
	s := NewServer(Config{MaxQueue: 64 << 20}, func(*Conn, *http.Request) Handler { return quiet{} })
	conns, stop, clients := openManyWith(b, s, n)
	var wg sync.WaitGroup
	for _, nc := range clients {
		wg.Go(func() { io.Copy(struct{ io.Writer }{io.Discard}, nc) })
	}
	return conns, func() { stop(); wg.Wait() }
}

// BenchmarkConnect is a whole short life: TCP connection, handshake, one message each way, and the end; the client's share is
// in it.
func BenchmarkConnect(b *testing.B) {
	s := NewServer(Config{}, func(c *Conn, _ *http.Request) Handler { return echo{c} })
	hs := &http.Server{Handler: s}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	go hs.Serve(l)
	defer hs.Close()
	defer s.Shutdown(context.Background())
	hello := append(fmt.Appendf(nil, goodHandshake, ""), clientFrame(0x81, "4"+repeat("t", 300))...)
	buf := make([]byte, 4096)
	b.ReportAllocs()
	for b.Loop() {
		nc, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		nc.Write(hello)
		for got := 0; got < 300; {
			n, err := nc.Read(buf)
			if err != nil {
				b.Fatal(err)
			}
			got += n
		}
		nc.Close()
	}
}

type echo struct{ c *Conn }

func (e echo) Message(b []byte, _ bool) Task { e.c.Send(TextFrame(b)); return nil }
func (echo) Pong(uint32)                     {}
func (echo) Closed(string) Task              { return nil }

// BenchmarkReceive is one small message in, up to the handler.
func BenchmarkReceive(b *testing.B) {
	got := make(chan struct{}, 1)
	s := NewServer(Config{}, func(*Conn, *http.Request) Handler { return signal(got) })
	_, stop, clients := openManyWith(b, s, 1)
	defer stop()
	<-got
	message := clientFrame(0x81, `42["get_online_users"]`)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := clients[0].Write(message); err != nil {
			b.Fatal(err)
		}
		<-got
	}
}

type signal chan struct{}

func (s signal) Message([]byte, bool) Task { s <- struct{}{}; return nil }
func (signal) Pong(uint32)                 {}
func (signal) Closed(string) Task          { return nil }
