package engine

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// Whatever the sizes and however little each write takes, the bytes come out as they went in.
func TestQueueKeepsEveryByteInOrder(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		var q queue
		var want, got []byte
		pushed := 0
		for pushed < 40 || !q.empty() {
			if pushed < 40 && rng.IntN(2) == 0 {
				body := make([]byte, []int{0, 3, 50, 500, 5000}[rng.IntN(5)])
				for i := range body {
					body[i] = byte(rng.Uint32())
				}
				f := BinaryFrame(body)
				q.push(f)
				want = append(want, f.wire...)
				pushed++
			}
			if q.empty() {
				continue
			}
			b := q.chunk(make([]byte, 0, 1000))
			if len(b) == 0 || len(b) > 1000 {
				t.Fatalf("chunk of %d bytes", len(b))
			}
			n := rng.IntN(len(b) + 1)
			got = append(got, b[:n]...)
			before := q.bytes
			q.advance(n)
			if q.bytes != before-n {
				t.Fatalf("%d bytes after %d-%d", q.bytes, before, n)
			}
		}
		if !bytes.Equal(got, want) || q.bytes != 0 || q.sent != 0 {
			t.Fatal("bytes lost, repeated or out of order")
		}
	}
}

func TestSendersOfOneConnectionKeepTheirOrder(t *testing.T) {
	onBothPaths(t, Config{MaxQueue: 64 << 20}, func(t *testing.T, s *testServer) {
		const senders, each = 8, 2000
		c, rec := s.openWebSocket(t)
		var wg sync.WaitGroup
		for id := range senders {
			wg.Go(func() {
				for i := range each {
					f := TextFrame(fmt.Appendf(nil, "%d %d %s", id, i, repeat("x", i%300)))
					g := TextFrame(fmt.Appendf(nil, "%d+", id))
					if err := rec.Send(f, g); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		var next [senders]int
		for range senders * each {
			var id, i int
			if _, err := fmt.Sscanf(c.packet(), "4%d %d", &id, &i); err != nil {
				t.Fatal(err)
			}
			if i != next[id] {
				t.Fatalf("sender %d: %d, want %d", id, i, next[id])
			}
			next[id]++
			c.wantPacket(fmt.Sprintf("4%d+", id)) // adjacent
			if i%500 == 0 {
				time.Sleep(time.Millisecond) // a reader that pauses, so that the queue fills
			}
		}
		wg.Wait()
	})
}

func TestCork(t *testing.T) {
	onBothPaths(t, Config{}, func(t *testing.T, s *testServer) {
		c, rec := s.openWebSocket(t)
		eventually(t, "empty queue", func() bool { return rec.Buffered() == 0 })
		rec.Cork()
		rec.Cork()
		rec.Send(TextFrame([]byte("a")))
		rec.Send(BinaryFrame([]byte("b")))
		if seq := rec.Ping(); seq != 1 {
			t.Errorf("seq %d", seq)
		}
		rec.Uncork()
		if n := rec.Buffered(); n != 4+3+3 {
			t.Errorf("%d bytes buffered under the cork", n)
		}
		c.wantSilence()
		rec.Uncork()
		rec.Uncork() // one too many is harmless
		// All in one segment.
		buf := make([]byte, 100)
		n, err := c.Conn.Read(buf)
		if want := "\x81\x024a\x82\x01b\x81\x012"; string(buf[:n]) != want || err != nil {
			t.Fatalf("read %q %v, want %q", buf[:n], err, want)
		}
		eventually(t, "empty queue", func() bool { return rec.Buffered() == 0 })
	})
}

func TestWhatAcceptSendsFollowsTheOpenPacketInOneWrite(t *testing.T) {
	onBothPaths(t, Config{}, func(t *testing.T, s *testServer) {
		s.onOpen = func(c *Conn, r *http.Request) {
			if r.URL.Query().Get("transport") != c.Transport() || c.RemoteAddr() != r.RemoteAddr || len(c.ID()) != 20 || !c.Open() {
				t.Errorf("%q %q %q", c.Transport(), c.RemoteAddr(), c.ID())
			}
			c.Send(TextFrame([]byte("welcome")))
		}
		nc := s.dial(t)
		io.WriteString(nc, strings.Replace(goodHandshake, "%s", "", 1))
		buf := make([]byte, 4096)
		n, err := nc.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		_, frames, _ := bytes.Cut(buf[:n], []byte("\r\n\r\n"))
		if !bytes.HasSuffix(frames, []byte("\x81\x084welcome")) || !bytes.Contains(frames, []byte(`0{"sid":"`)) {
			t.Errorf("first segment %q", buf[:n])
		}
		a := s.get(t, "")
		if packets := strings.Split(a.body, "\x1e"); len(packets) != 2 || packets[1] != "4welcome" || packets[0][0] != '0' {
			t.Errorf("first poll %q", a.body)
		}
	})
}

func TestCloseFlushesWhatIsQueued(t *testing.T) {
	onBothPaths(t, Config{MaxQueue: 64 << 20}, func(t *testing.T, s *testServer) {
		c, rec := s.openWebSocket(t)
		big := repeat("b", 100_000)
		const n = 150 // 15 MB: more than the kernel takes
		for range n {
			if err := rec.Send(TextFrame([]byte(big))); err != nil {
				t.Fatal(err)
			}
		}
		rec.Cork() // must not hold the end back
		rec.Send(TextFrame([]byte("last")))
		rec.Close(ReasonForcedClose)
		rec.Close("another")
		if err := rec.Send(TextFrame([]byte("late"))); !errors.Is(err, ErrClosed) {
			t.Errorf("Send after Close: %v", err)
		}
		rec.wantClosed(t, ReasonForcedClose) // does not wait for the client
		for range n {
			c.wantPacket("4" + big)
		}
		c.wantPacket("4last")
		c.wantClose(1000)
	})
}

// Both ways a client can be too slow, on both write paths: more queued than MaxQueue, or no progress within WriteTimeout.
func TestSlowClientsAreClosed(t *testing.T) {
	for name, cfg := range map[string]Config{
		"queue full":    {MaxQueue: 1 << 20, WriteTimeout: time.Minute},
		"write timeout": {MaxQueue: 1 << 30, WriteTimeout: 100 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			onBothPaths(t, cfg, func(t *testing.T, s *testServer) {
				c, rec := s.openWebSocket(t)
				frame := BinaryFrame(make([]byte, 64<<10))
				var total int
				for rec.Send(frame) == nil {
					if total += frame.Size(); total > 64<<20 {
						break // more than a kernel buffers; the deadline does the rest
					}
					if held := rec.Buffered(); held > cfg.MaxQueue {
						t.Fatalf("%d bytes queued", held)
					}
				}
				rec.wantClosed(t, ReasonSlowClient)
				if n := rec.Buffered(); n != 0 {
					t.Errorf("%d bytes held for a closed client", n)
				}
				if st := s.Stats(); st.SlowClients != 1 {
					t.Errorf("%d slow clients counted", st.SlowClients)
				}
				// The kernel's share was dropped too: the client sees a reset, not an orderly end.
				if _, err := io.Copy(io.Discard, c.rd); err == nil {
					t.Error("no reset")
				}
			})
		})
	}
}

// The deadline of a flush must not hit a write that comes later.
func TestNoDeadlineIsLeftBehindByAFlush(t *testing.T) {
	s := newTestServer(t, Config{MaxQueue: 64 << 20, WriteTimeout: time.Second})
	c, rec := s.openWebSocket(t)
	const n = 150
	for range n {
		rec.Send(BinaryFrame(make([]byte, 100_000))) // more than the kernel takes
	}
	if rec.Buffered() == 0 {
		t.Fatal("nothing was queued")
	}
	for range n {
		if _, _, err := c.frame(); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(1100 * time.Millisecond)
	rec.Send(TextFrame([]byte("later")))
	c.wantPacket("4later")
}

func TestSlowPollingClientIsClosed(t *testing.T) {
	s := newTestServer(t, Config{MaxQueue: 10_000})
	sid, rec := s.openPoll(t)
	frame := TextFrame(make([]byte, 1000))
	sent := 0
	for rec.Send(frame) == nil {
		sent++
	}
	if sent != 9 {
		t.Errorf("%d frames queued", sent)
	}
	rec.wantClosed(t, ReasonSlowClient)
	s.get(t, sid).want(t, 400, `{"code":1,"message":"Session ID unknown"}`)
}

// One frame may be larger than the queue, as long as the kernel takes what is over.
func TestSendIsNotRefusedForWhatTheKernelTakes(t *testing.T) {
	s := newTestServer(t, Config{MaxQueue: 1000})
	c, rec := s.openWebSocket(t)
	for range 50 {
		if err := rec.Send(TextFrame([]byte(repeat("x", 5000)))); err != nil {
			t.Fatal(err)
		}
		c.wantPacket("4" + repeat("x", 5000))
	}
}

func TestSendDoesNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Log("sync.Pool drops at random under the race detector")
	}
	s := newTestServer(t, Config{MaxQueue: 64 << 20})
	c, rec := s.openWebSocket(t)
	go io.Copy(io.Discard, c.Conn)
	frame := TextFrame([]byte("hello"))
	if n := testing.AllocsPerRun(1000, func() { rec.Send(frame) }); n > 0 && !raceEnabled {
		t.Errorf("%v allocations per Send", n)
	}
}

func TestCloseRacesWithEverything(t *testing.T) {
	onBothPaths(t, Config{WriteTimeout: time.Second}, func(t *testing.T, s *testServer) {
		for i := range 200 {
			c, rec := s.openWebSocket(t)
			var wg sync.WaitGroup
			for _, act := range []func(){
				func() { rec.Close(ReasonForcedClose) },
				func() { rec.Send(TextFrame(make([]byte, i*100))) },
				func() { rec.Cork(); rec.Ping(); rec.Uncork() },
				func() { c.Conn.Write(clientFrame(0x81, "4x")); c.Conn.Close() },
				func() { rec.cut() },
				func() { rec.Close(ReasonShuttingDown) },
			}[i%3:] {
				wg.Go(act)
			}
			wg.Wait()
			recv(t, rec.closed, "Closed")
		}
		eventually(t, "end of all sessions", func() bool { return len(s.Server.sessions()) == 0 })
	})
}

// A write that comes too late must not go to whoever has the descriptor by then.
func TestFramesNeverReachAnotherConnection(t *testing.T) {
	onBothPaths(t, Config{MaxQueue: 64 << 10}, func(t *testing.T, s *testServer) {
		var senders sync.WaitGroup
		s.onOpen = func(c *Conn, _ *http.Request) {
			own := TextFrame([]byte(c.ID()))
			for range 2 {
				senders.Go(func() {
					for c.Send(own) == nil {
						runtime.Gosched()
					}
				})
			}
		}
		var clients sync.WaitGroup
		var arrived atomic.Int64
		for worker := range 8 {
			clients.Go(func() {
				for round := range 60 {
					nc, err := net.Dial("tcp", s.http.Listener.Addr().String())
					if err != nil {
						t.Error(err)
						return
					}
					nc.SetDeadline(time.Now().Add(patience))
					fmt.Fprintf(nc, goodHandshake, "")
					c := &wsClient{nc, t, bufio.NewReader(nc)}
					if _, err := http.ReadResponse(c.rd, nil); err != nil {
						// The senders may have been too much for it before it had read a byte.
						if !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, syscall.ECONNRESET) {
							t.Errorf("handshake: %v", err)
						}
						nc.Close()
						continue
					}
					_, open, err := c.frame()
					sid, _, _ := strings.Cut(strings.TrimPrefix(string(open), `0{"sid":"`), `"`)
					for i := 0; i < 1+(worker+round)%20 && err == nil; i++ {
						var packet []byte
						if _, packet, err = c.frame(); err == nil && string(packet) != "4"+sid {
							t.Errorf("%q came to the connection of %q", packet, sid)
						}
						arrived.Add(1)
					}
					if round%2 == 0 {
						reset(nc)
					}
					nc.Close()
				}
			})
		}
		clients.Wait()
		eventually(t, "end of all sessions", func() bool { return len(s.Server.sessions()) == 0 })
		senders.Wait()
		if n := arrived.Load(); n < 100 {
			t.Errorf("only %d frames arrived", n)
		}
	})
}

// A cork that comes after the end, as it may when a slow handshake meets its timeout, holds nothing back.
func TestCorkAfterCloseHoldsNothingBack(t *testing.T) {
	t.Run("polling", func(t *testing.T) {
		s := newTestServer(t, Config{WriteTimeout: time.Minute})
		sid, rec := s.openPoll(t)
		rec.Close("too late")
		rec.Cork()
		s.get(t, sid).want(t, 200, "1")
		rec.Uncork()
	})
	t.Run("websocket", func(t *testing.T) {
		s := newTestServer(t, Config{WriteTimeout: time.Minute, MaxQueue: 64 << 20, portable: true})
		c, rec := s.openWebSocket(t)
		big := repeat("b", 100_000)
		const n = 150 // 15 MB: the flusher is not through with it when the cork comes
		for range n {
			rec.Send(TextFrame([]byte(big)))
		}
		rec.Close("too late")
		rec.Cork()
		for range n {
			c.wantPacket("4" + big)
		}
		c.wantClose(1000)
		rec.Uncork()
	})
}
