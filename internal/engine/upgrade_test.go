package engine

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestUpgrade(t *testing.T) {
	onBothPaths(t, Config{}, func(t *testing.T, s *testServer) {
		s.echo()
		sid, rec := s.openPoll(t)
		poll := inBackground(func() answer { return s.get(t, sid) })
		untilWaiting(t, rec.Conn)
		ws := s.websocket(t, sid)
		ws.text("2probe")
		ws.wantPacket("3probe")
		recv(t, poll, "answer").want(t, 200, "6")
		s.get(t, sid).want(t, 200, "6") // a client that has not seen the probe's answer yet
		if got := rec.Transport(); got != "polling" {
			t.Errorf("transport %q before the upgrade packet", got)
		}
		s.post(t, sid, "4still polling").want(t, 200, "ok")
		rec.wantMessage(t, "still polling")
		ws.text("5")
		ws.wantPacket("4still polling") // echoed while no poll was there
		ws.text("4hello")
		ws.wantPacket("4hello")
		if got := rec.Transport(); got != "websocket" {
			t.Errorf("transport %q after the upgrade packet", got)
		}
		rec.mu.Lock()
		if rec.poll != nil {
			t.Error("polling state kept after the upgrade")
		}
		rec.mu.Unlock()
		if st := s.Stats(); st.Polling != 0 || st.WebSocket != 1 || st.Upgrades != 1 || st.UpgradesFailed != 0 {
			t.Errorf("%+v", st)
		}
		rec.Close(ReasonForcedClose)
		ws.wantClose(1000)
		ws.Close()
		rec.wantClosed(t, ReasonForcedClose)
	})
}

func upgraded(t *testing.T, s *testServer) (string, *wsClient, *recorder) {
	sid, rec := s.openPoll(t)
	ws := s.websocket(t, sid)
	ws.text("2probe")
	ws.wantPacket("3probe")
	ws.text("5")
	eventually(t, "upgrade", func() bool { return rec.Transport() == "websocket" })
	return sid, ws, rec
}

func TestRequestsAfterTheUpgradeAreIgnored(t *testing.T) {
	s := newTestServer(t, Config{})
	s.echo()
	sid, ws, _ := upgraded(t, s)
	s.get(t, sid).want(t, 400, `{"code":3,"message":"Bad request"}`)
	s.post(t, sid, "4x").want(t, 400, `{"code":3,"message":"Bad request"}`)
	other := s.websocket(t, sid)
	other.wantClose(1008)
	ws.text("4hello")
	ws.wantPacket("4hello")
}

func TestSecondProbeIsTurnedAway(t *testing.T) {
	s := newTestServer(t, Config{})
	s.echo()
	sid, _ := s.openPoll(t)
	first := s.websocket(t, sid)
	first.text("2probe")
	first.wantPacket("3probe")
	s.websocket(t, sid).wantClose(1008)
	first.text("5")
	first.text("4hello")
	first.wantPacket("4hello")
}

func TestFailedUpgradesLeavePollingAlive(t *testing.T) {
	for name, tc := range map[string]struct {
		input []byte
		code  uint16
	}{
		"says nothing":         {nil, 1000},
		"half a frame":         {clientFrame(0x81, "2probe")[:4], 1000},
		"stops after probe":    {clientFrame(0x81, "2probe"), 1000},
		"upgrade before probe": {clientFrame(0x81, "5"), 1002},
		"probe twice":          {append(clientFrame(0x81, "2probe"), clientFrame(0x81, "2probe")...), 1002},
		"message before":       {clientFrame(0x81, "4hello"), 1002},
		"message after probe":  {append(clientFrame(0x81, "2probe"), clientFrame(0x81, "4hello")...), 1002},
		"binary":               {clientFrame(0x82, "2probe"), 1002},
		"too long":             {clientFrame(0x81, "2"+repeat("x", 200)), 1009},
		"unmasked":             {[]byte{0x81, 1, '2'}, 1002},
		"close frame":          {clientFrame(0x88, "\x03\xe8"), 1000},
		"ping, then close":     {append(clientFrame(0x89, "x"), clientFrame(0x88, "")...), 1000},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newTestServer(t, Config{UpgradeTimeout: 100 * time.Millisecond})
			s.echo()
			sid, rec := s.openPoll(t)
			poll := inBackground(func() answer { return s.get(t, sid) })
			untilWaiting(t, rec.Conn)
			ws := s.websocket(t, sid)
			ws.write(tc.input)
			for {
				b0, payload, err := ws.frame()
				if err != nil {
					t.Fatalf("no close frame: %v", err)
				}
				if b0 == 0x88 {
					if got := uint16(payload[0])<<8 | uint16(payload[1]); got != tc.code {
						t.Errorf("close code %d, want %d", got, tc.code)
					}
					break
				}
			}
			eventually(t, "end of the upgrade", func() bool { return s.Stats().UpgradesFailed == 1 })
			if a := s.post(t, sid, "4still here"); a.status != 200 {
				t.Fatalf("POST answered %d", a.status)
			}
			// The poll was released by the probe, or gets the message.
			if a := recv(t, poll, "answer"); a.body == "6" {
				a = s.get(t, sid)
				a.want(t, 200, "4still here")
			} else {
				a.want(t, 200, "4still here")
			}
			// And a second try works.
			ws = s.websocket(t, sid)
			ws.text("2probe")
			ws.wantPacket("3probe")
			ws.text("5")
			ws.text("4upgraded")
			ws.wantPacket("4upgraded")
		})
	}
}

// A client that has seen the probe's answer pauses its polls: what is queued must find it on the websocket.
func TestCloseDuringUpgrade(t *testing.T) {
	probe := func(t *testing.T) (*testServer, string, *recorder, *wsClient) {
		s := newTestServer(t, Config{})
		sid, rec := s.openPoll(t)
		poll := inBackground(func() answer { return s.get(t, sid) })
		untilWaiting(t, rec.Conn)
		ws := s.websocket(t, sid)
		ws.text("2probe")
		ws.wantPacket("3probe")
		recv(t, poll, "answer").want(t, 200, "6")
		rec.Send(TextFrame([]byte("queued")))
		rec.Close(ReasonForcedClose)
		if rec.Open() || rec.Ping() != 0 || !errors.Is(rec.Send(TextFrame([]byte("late"))), ErrClosed) {
			t.Error("a session that waits for its upgrade to close is open")
		}
		return s, sid, rec, ws
	}
	t.Run("it upgrades", func(t *testing.T) {
		_, _, rec, ws := probe(t)
		ws.text("5")
		ws.wantPacket("4queued")
		ws.wantClose(1000)
		ws.Close()
		rec.wantClosed(t, ReasonForcedClose)
	})
	t.Run("it goes on polling", func(t *testing.T) {
		s, sid, rec, ws := probe(t)
		s.get(t, sid).want(t, 200, "4queued")
		a := s.get(t, sid)
		for a.body == "6" {
			a = s.get(t, sid)
		}
		a.want(t, 200, "1")
		rec.wantClosed(t, ReasonForcedClose)
		if _, err := io.ReadAll(ws.rd); err != nil && !strings.Contains(err.Error(), "reset") {
			t.Errorf("probe: %v", err)
		}
	})
	t.Run("it vanishes", func(t *testing.T) {
		_, _, rec, ws := probe(t)
		ws.Close()
		rec.wantClosed(t, ReasonForcedClose)
	})
}

func TestUpgradeDuringPostIsAViolation(t *testing.T) {
	s := newTestServer(t, Config{})
	inside, leave := make(chan struct{}), make(chan struct{})
	s.onMessage(func(*Conn, []byte, bool) { close(inside); <-leave })
	sid, rec := s.openPoll(t)
	post := inBackground(func() answer { return s.post(t, sid, "4a") })
	recv(t, inside, "message")
	ws := s.websocket(t, sid)
	ws.text("2probe")
	ws.wantPacket("3probe")
	ws.text("5")
	if _, err := io.ReadAll(ws.rd); err != nil && !strings.Contains(err.Error(), "reset") {
		t.Errorf("probe: %v", err)
	}
	close(leave)
	recv(t, post, "answer")
	rec.wantClosed(t, ReasonParseError)
}

// The numbers sent while a client polls, upgrades and goes on arrive all, once, in order; in both directions.
func TestNothingIsLostRepeatedOrReorderedAcrossTheUpgrade(t *testing.T) {
	onBothPaths(t, Config{MaxPayload: 2000}, func(t *testing.T, s *testServer) {
		for round := range 20 {
			const n = 3000
			sid, rec := s.openPoll(t)
			go func() {
				for i := range n {
					if i%3 == 0 {
						rec.Cork()
						rec.Send(TextFrame(strconv.AppendInt(nil, int64(i), 10)))
						rec.Uncork()
					} else {
						rec.Send(TextFrame(strconv.AppendInt(nil, int64(i), 10)))
					}
					for rec.Buffered() > 100_000 {
						time.Sleep(time.Millisecond)
					}
				}
			}()
			next := 0
			check := func(packets string) {
				for p := range strings.SplitSeq(packets, "\x1e") {
					switch p {
					case "6":
					case fmt.Sprintf("4%d", next):
						next++
					default:
						t.Fatalf("round %d: packet %q, want number %d", round, p, next)
					}
				}
			}
			for range round % 5 {
				check(s.get(t, sid).body)
			}
			for i := range 10 {
				s.post(t, sid, fmt.Sprintf("4up%d", i)).want(t, 200, "ok")
			}
			// As the JavaScript client does it: poll on until the probe is answered, let that poll end, upgrade.
			ws := s.websocket(t, sid)
			ws.text("2probe")
			probed := make(chan struct{})
			go func() {
				ws.wantPacket("3probe")
				close(probed)
			}()
			for polling := true; polling; {
				check(s.get(t, sid).body)
				select {
				case <-probed:
					polling = false
				default:
				}
			}
			ws.text("5")
			for i := range 10 {
				ws.text(fmt.Sprintf("4up%d", 10+i))
			}
			for next < n {
				check(ws.packet())
			}
			for i := range 20 {
				rec.wantMessage(t, fmt.Sprintf("up%d", i))
			}
			ws.Close()
			rec.wantClosed(t, ReasonTransportClose)
		}
	})
}

// A poll answer that is still being written holds the websocket's output back.
func TestUpgradeWaitsForThePollThatIsBeingWritten(t *testing.T) {
	s := newTestServer(t, Config{})
	sid, rec := s.openPoll(t)
	writing, finish := make(chan struct{}), make(chan struct{})
	rec.Send(TextFrame([]byte("by poll")))
	done := make(chan struct{})
	go func() {
		defer close(done)
		w := &slowWriter{writing: writing, finish: finish, header: http.Header{}}
		r, _ := http.NewRequestWithContext(t.Context(), "GET", s.url(sid), nil)
		s.ServeHTTP(w, r)
	}()
	recv(t, writing, "answer")
	ws := s.websocket(t, sid)
	ws.text("2probe")
	ws.wantPacket("3probe")
	ws.text("5")
	eventually(t, "upgrade", func() bool { return rec.Transport() == "websocket" })
	rec.Send(TextFrame([]byte("by websocket")))
	ws.wantSilence()
	close(finish)
	ws.wantPacket("4by websocket")
	recv(t, done, "end of the poll")
}

// The probe's deadline ends with the probe.
func TestUpgradedSessionOutlivesTheUpgradeTimeout(t *testing.T) {
	onBothPaths(t, Config{UpgradeTimeout: 50 * time.Millisecond}, func(t *testing.T, s *testServer) {
		s.echo()
		_, ws, _ := upgraded(t, s)
		time.Sleep(80 * time.Millisecond)
		ws.text("4hello")
		ws.wantPacket("4hello")
	})
}

func TestPollsAroundAProbe(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, s bubble) {
		get := func(sid string) <-chan answer {
			return inBackground(func() answer {
				w := httptest.NewRecorder()
				s.ServeHTTP(w, httptest.NewRequest("GET", "/?EIO=4&transport=polling&sid="+sid, nil))
				return answer{status: w.Code, body: w.Body.String()}
			})
		}
		sid := parseOpen(t, (<-get("")).body).SID
		rec := <-s.sessions
		start := time.Now()

		// The one that waits is released at once, the next after a moment.
		poll := get(sid)
		synctest.Wait()
		near, far := net.Pipe()
		s.ServeHTTP(pipeWriter{httptest.NewRecorder(), far}, websocketRequest("&sid="+sid))
		client := &wsClient{near, t, bufio.NewReader(near)}
		http.ReadResponse(client.rd, nil)
		client.text("2probe")
		client.wantPacket("3probe")
		(<-poll).want(t, 200, "6")
		if waited := time.Since(start); waited != 0 {
			t.Errorf("released after %v", waited)
		}
		(<-get(sid)).want(t, 200, "6")
		if waited := time.Since(start); waited != probedPoll {
			t.Errorf("the next one released after %v", waited)
		}

		// Once the probe has failed, polls wait as ever.
		go io.Copy(io.Discard, near)
		client.text("4no")
		synctest.Wait()
		poll = get(sid)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		select {
		case a := <-poll:
			t.Errorf("answered %q", a.body)
		default:
		}
		rec.Send(TextFrame([]byte("hello")))
		(<-poll).want(t, 200, "4hello")
		near.Close()
	})
}

// slowWriter is in the middle of its Write from writing to finish.
type slowWriter struct {
	writing, finish chan struct{}
	header          http.Header
}

func (w *slowWriter) Header() http.Header { return w.header }
func (w *slowWriter) WriteHeader(int)     {}
func (w *slowWriter) Write(b []byte) (int, error) {
	close(w.writing)
	<-w.finish
	return len(b), nil
}
