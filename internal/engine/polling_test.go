package engine

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestPollingPayloads(t *testing.T) {
	s := newTestServer(t, Config{MaxPayload: 1e6})
	for name, tc := range map[string]struct {
		body     string
		messages []string
	}{
		"one text packet":      {"4hello", []string{"hello"}},
		"several text packets": {"4test1\x1e4test2\x1e4test3", []string{"test1", "test2", "test3"}},
		"text and binary":      {"4hello\x1ebAQIDBA==", []string{"hello", "b:\x01\x02\x03\x04"}},
		"several binary":       {"b" + b64("one") + "\x1eb" + b64("second one") + "\x1eb", []string{"b:one", "b:second one", "b:"}},
		"empty message":        {"4", []string{""}},
		"not ASCII":            {"4€ä", []string{"€ä"}},
		"large":                {"4" + repeat("x", 999_999), []string{repeat("x", 999_999)}},
	} {
		t.Run(name, func(t *testing.T) {
			s.echo()
			sid, rec := s.openPoll(t)
			s.post(t, sid, tc.body).want(t, 200, "ok")
			for _, want := range tc.messages {
				rec.wantMessage(t, want)
			}
			if len(tc.body) < 1e6 {
				s.get(t, sid).want(t, 200, tc.body) // echoed
			}
		})
	}
}

func TestPollWaitsForPackets(t *testing.T) {
	s := newTestServer(t, Config{})
	sid, rec := s.openPoll(t)
	poll := inBackground(func() answer { return s.get(t, sid) })
	untilWaiting(t, rec.Conn)
	rec.Cork()
	rec.Send(TextFrame([]byte("a")), BinaryFrame([]byte("b")))
	rec.Ping()
	rec.Uncork()
	a := recv(t, poll, "answer")
	a.want(t, 200, "4a\x1ebYg==\x1e2")
	if got := a.header.Get("Content-Type"); got != "text/plain; charset=UTF-8" {
		t.Errorf("content type %q", got)
	}
	if got := a.header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("cache control %q", got)
	}
	eventually(t, "empty queue", func() bool { return rec.Buffered() == 0 })
	s.post(t, sid, "3").want(t, 200, "ok")
	if seq := recv(t, rec.pongs, "pong"); seq != 1 {
		t.Errorf("pong of ping %d", seq)
	}
}

func TestPollAnswersAreBounded(t *testing.T) {
	s := newTestServer(t, Config{MaxPayload: 1000})
	sid, rec := s.openPoll(t)
	var sent, got []string
	for i := range 20 {
		packet := fmt.Sprintf("4%d %s", i, repeat("x", 150))
		sent = append(sent, packet)
		rec.Send(TextFrame([]byte(packet[1:])))
	}
	huge := "4" + repeat("y", 5000)
	sent = append(sent, huge)
	rec.Send(TextFrame([]byte(huge[1:])))
	rec.Send(BinaryFrame(make([]byte, 600))) // 600 bytes, 800 as base64
	rec.Send(TextFrame([]byte(repeat("z", 198))))
	sent = append(sent, "b"+b64(repeat("\x00", 600)), "4"+repeat("z", 198))
	polls := 0
	for len(got) < len(sent) {
		a := s.get(t, sid)
		if a.status != 200 || len(a.body) > 1000 && a.body != huge {
			t.Fatalf("poll answered %d, %d bytes", a.status, len(a.body))
		}
		got = append(got, strings.Split(a.body, "\x1e")...)
		polls++
	}
	if !slices.Equal(got, sent) {
		t.Error("packets lost, repeated or out of order")
	}
	if polls != 4+1+2 { // six to a poll; the huge one alone; the last two do not fit together by one byte
		t.Errorf("%d polls", polls)
	}
}

func TestMalformedPayloadsEndTheSession(t *testing.T) {
	s := newTestServer(t, Config{MaxPayload: 1000})
	for name, tc := range map[string]struct {
		body   string
		status int
		before []string
	}{
		"unknown packet type":    {"abc", 400, nil},
		"empty body":             {"", 400, nil},
		"empty packet":           {"4a\x1e\x1e4b", 400, []string{"a"}},
		"separator at the end":   {"4a\x1e", 400, []string{"a"}},
		"separator at the start": {"\x1e4a", 400, nil},
		"not base64":             {"4a\x1eb!!!", 400, []string{"a"}},
		"base64 without padding": {"bAQI", 400, nil},
		"not UTF-8":              {"4a\x1e4\xff", 400, nil},
		"open packet":            {"0{}", 400, nil},
		"ping packet":            {"2", 400, nil},
		"pong to no ping":        {"4a\x1e3", 400, []string{"a"}},
		"upgrade packet":         {"5", 400, nil},
		"noop packet":            {"6", 400, nil},
	} {
		t.Run(name, func(t *testing.T) {
			sid, rec := s.openPoll(t)
			poll := inBackground(func() answer { return s.get(t, sid) })
			untilWaiting(t, rec.Conn)
			if a := s.post(t, sid, tc.body); a.status != tc.status {
				t.Errorf("POST answered %d", a.status)
			}
			recv(t, poll, "answer").want(t, 200, "1")
			rec.wantClosed(t, ReasonParseError)
			for _, want := range tc.before {
				rec.wantMessage(t, want)
			}
			if len(rec.messages) > 0 {
				t.Errorf("message %q", <-rec.messages)
			}
			s.get(t, sid).want(t, 400, `{"code":1,"message":"Session ID unknown"}`)
		})
	}
}

func TestRefusedPosts(t *testing.T) {
	for name, tc := range map[string]struct {
		body   io.Reader
		header []string
		status int
	}{
		"content length over the limit": {strings.NewReader("4" + repeat("x", 1000)), nil, 413},
		"chunked over the limit":        {io.MultiReader(strings.NewReader("4"), strings.NewReader(repeat("x", 1000))), nil, 413},
		"binary content type":           {strings.NewReader("4x"), []string{"Content-Type", "application/octet-stream"}, 400},
	} {
		t.Run(name, func(t *testing.T) {
			s := newTestServer(t, Config{MaxPayload: 1000})
			sid, rec := s.openPoll(t)
			if a := s.do(t, "POST", s.url(sid), tc.body, tc.header...); a.status != tc.status {
				t.Errorf("answered %d %q", a.status, a.body)
			}
			rec.wantClosed(t, ReasonTransportError)
		})
	}
	t.Run("as large as allowed, chunked", func(t *testing.T) {
		s := newTestServer(t, Config{MaxPayload: 1000})
		sid, rec := s.openPoll(t)
		s.do(t, "POST", s.url(sid), io.MultiReader(strings.NewReader("4"), strings.NewReader(repeat("x", 999)))).want(t, 200, "ok")
		rec.wantMessage(t, repeat("x", 999))
	})
}

func TestOverlappingPollsEndTheSession(t *testing.T) {
	s := newTestServer(t, Config{})
	sid, rec := s.openPoll(t)
	first := inBackground(func() answer { return s.get(t, sid) })
	untilWaiting(t, rec.Conn)
	s.get(t, sid).want(t, 400, `{"code":3,"message":"Bad request"}`)
	recv(t, first, "answer").want(t, 200, "1")
	rec.wantClosed(t, ReasonTransportError)
	s.get(t, sid).want(t, 400, `{"code":1,"message":"Session ID unknown"}`)
}

func TestOverlappingPostsEndTheSession(t *testing.T) {
	s := newTestServer(t, Config{})
	sid, rec := s.openPoll(t)
	body, more := io.Pipe()
	first := inBackground(func() answer { return s.do(t, "POST", s.url(sid), body) })
	io.WriteString(more, "4half")
	eventually(t, "POST under way", func() bool {
		rec.mu.Lock()
		defer rec.mu.Unlock()
		return rec.poll.post != noPost
	})
	s.post(t, sid, "4other").want(t, 400, `{"code":3,"message":"Bad request"}`)
	rec.wantClosed(t, ReasonTransportError)
	more.Close()
	recv(t, first, "answer").want(t, 400, `{"code":1,"message":"Session ID unknown"}`)
	if len(rec.messages) > 0 {
		t.Errorf("message %q", <-rec.messages)
	}
}

// A client may send its next poll as soon as it has the last answer: that is no overlap, however late the first handler
// returns.
func TestPollRightBehindTheLastAnswerIsNoOverlap(t *testing.T) {
	s := newTestServer(t, Config{})
	const n = 2000
	sid, rec := s.openPoll(t)
	go func() {
		for i := range n {
			rec.Send(TextFrame(fmt.Append(nil, i)))
		}
	}()
	clients := [2]*http.Client{{Transport: &http.Transport{}}, {Transport: &http.Transport{}}}
	defer clients[0].CloseIdleConnections()
	defer clients[1].CloseIdleConnections()
	next := 0
	for i := 0; next < n; i++ {
		res, err := clients[i%2].Get(s.url(sid)) // another connection each time
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != 200 {
			t.Fatalf("poll %d answered %d %q", i, res.StatusCode, b)
		}
		for packet := range strings.SplitSeq(string(b), "\x1e") {
			if packet != fmt.Sprintf("4%d", next) {
				t.Fatalf("packet %q, want %d", packet, next)
			}
			next++
		}
	}
}

func TestAbortedPollEndsTheSession(t *testing.T) {
	s := newTestServer(t, Config{})
	sid, rec := s.openPoll(t)
	nc := s.dial(t)
	fmt.Fprintf(nc, "GET /socket.io/?EIO=4&transport=polling&sid=%s HTTP/1.1\r\nHost: test\r\n\r\n", sid)
	untilWaiting(t, rec.Conn)
	nc.Close()
	rec.wantClosed(t, ReasonTransportError)
	if !errors.Is(rec.Send(TextFrame([]byte("x"))), ErrClosed) {
		t.Error("a closed session accepts frames")
	}
}

func TestAbortedPostEndsTheSession(t *testing.T) {
	s := newTestServer(t, Config{})
	sid, rec := s.openPoll(t)
	nc := s.dial(t)
	fmt.Fprintf(nc, "POST /socket.io/?EIO=4&transport=polling&sid=%s HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\n4hal", sid)
	eventually(t, "POST under way", func() bool {
		rec.mu.Lock()
		defer rec.mu.Unlock()
		return rec.poll.post != noPost
	})
	nc.Close()
	rec.wantClosed(t, ReasonTransportError)
	if len(rec.messages) > 0 {
		t.Errorf("message %q of half a POST", <-rec.messages)
	}
}

// failingWriter is a client that is gone when its answer is written.
type failingWriter struct{ *httptest.ResponseRecorder }

func (w failingWriter) FlushError() error { return io.ErrClosedPipe }

// wrapped hides the error, as Gin's writer does, but can be unwrapped.
type wrapped struct{ http.ResponseWriter }

func (w wrapped) Flush()                      {}
func (w wrapped) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func TestPollWhoseAnswerCannotBeWrittenEndsTheSession(t *testing.T) {
	for name, writer := range map[string]func(failingWriter) http.ResponseWriter{
		"plain":   func(w failingWriter) http.ResponseWriter { return w },
		"wrapped": func(w failingWriter) http.ResponseWriter { return wrapped{w} },
	} {
		t.Run(name, func(t *testing.T) {
			s := newTestServer(t, Config{})
			sid, rec := s.openPoll(t)
			rec.Send(TextFrame([]byte("lost with the session")))
			s.ServeHTTP(writer(failingWriter{httptest.NewRecorder()}), httptest.NewRequest("GET", s.url(sid), nil))
			rec.wantClosed(t, ReasonTransportError)
		})
	}
}

func TestClientClosesByPacket(t *testing.T) {
	t.Run("with a poll under way", func(t *testing.T) {
		s := newTestServer(t, Config{})
		sid, rec := s.openPoll(t)
		poll := inBackground(func() answer { return s.get(t, sid) })
		untilWaiting(t, rec.Conn)
		s.post(t, sid, "4last\x1e1\x1e4after").want(t, 200, "ok")
		recv(t, poll, "answer").want(t, 200, "6")
		rec.wantMessage(t, "last")
		rec.wantClosed(t, ReasonTransportClose)
		if len(rec.messages) > 0 {
			t.Errorf("message %q after the close packet", <-rec.messages)
		}
		s.get(t, sid).want(t, 400, `{"code":1,"message":"Session ID unknown"}`)
	})
	t.Run("its poll comes later", func(t *testing.T) {
		s := newTestServer(t, Config{})
		sid, rec := s.openPoll(t)
		rec.Send(TextFrame([]byte("not wanted any more")))
		s.post(t, sid, "1").want(t, 200, "ok")
		s.get(t, sid).want(t, 200, "6")
		rec.wantClosed(t, ReasonTransportClose)
	})
	t.Run("websocket", func(t *testing.T) {
		onBothPaths(t, Config{}, func(t *testing.T, s *testServer) {
			c, rec := s.openWebSocket(t)
			c.text("1")
			c.wantClose(1000)
			c.Close()
			rec.wantClosed(t, ReasonTransportClose)
		})
	})
}

func TestServerClosesPolling(t *testing.T) {
	t.Run("a waiting poll gets the close packet", func(t *testing.T) {
		s := newTestServer(t, Config{})
		sid, rec := s.openPoll(t)
		poll := inBackground(func() answer { return s.get(t, sid) })
		untilWaiting(t, rec.Conn)
		rec.Close("kicked out")
		recv(t, poll, "answer").want(t, 200, "1")
		rec.wantClosed(t, "kicked out")
		s.get(t, sid).want(t, 400, `{"code":1,"message":"Session ID unknown"}`)
	})
	t.Run("the next polls get what was queued, then the close packet alone", func(t *testing.T) {
		s := newTestServer(t, Config{})
		sid, rec := s.openPoll(t)
		rec.Send(TextFrame([]byte("a")))
		rec.Close(ReasonForcedClose)
		rec.Close("only the first counts")
		if !errors.Is(rec.Send(TextFrame([]byte("b"))), ErrClosed) {
			t.Error("Send after Close is accepted")
		}
		rec.wantClosed(t, ReasonForcedClose)         // without waiting for the poll
		s.post(t, sid, "3\x1e4x").want(t, 200, "ok") // a client whose pong is refused gives up, and never comes for the rest
		s.get(t, sid).want(t, 200, "4a")             // clients act on a close packet before they handle what came with it
		s.get(t, sid).want(t, 200, "1")
		s.post(t, sid, "3").want(t, 400, `{"code":1,"message":"Session ID unknown"}`)
		if len(rec.messages) > 0 {
			t.Errorf("message %q after Closed", <-rec.messages)
		}
	})
	t.Run("nobody comes", func(t *testing.T) {
		s := newTestServer(t, Config{WriteTimeout: 20 * time.Millisecond})
		sid, rec := s.openPoll(t)
		rec.Close(ReasonForcedClose)
		rec.wantClosed(t, ReasonForcedClose)
		eventually(t, "end of the session", func() bool { return len(s.Server.sessions()) == 0 })
		s.get(t, sid).want(t, 400, `{"code":1,"message":"Session ID unknown"}`)
	})
}

// Closed waits for the Message that a POST is in.
func TestClosedComesAfterTheLastMessageOfAPost(t *testing.T) {
	s := newTestServer(t, Config{})
	inside, leave := make(chan struct{}), make(chan struct{})
	s.onMessage(func(*Conn, []byte, bool) { close(inside); <-leave })
	sid, rec := s.openPoll(t)
	post := inBackground(func() answer { return s.post(t, sid, "4a\x1e4b") })
	recv(t, inside, "message")
	rec.Close(ReasonForcedClose)
	select {
	case <-rec.closed:
		t.Error("Closed during Message")
	case <-time.After(20 * time.Millisecond):
	}
	close(leave)
	rec.wantClosed(t, ReasonForcedClose)
	rec.wantMessage(t, "a")
	recv(t, post, "answer").want(t, 200, "ok")
	if len(rec.messages) > 0 {
		t.Errorf("message %q after Close", <-rec.messages)
	}
}

func TestPollsThroughKeepAliveHaveNoDeadlineLeft(t *testing.T) {
	s := newTestServer(t, Config{WriteTimeout: 30 * time.Millisecond})
	sid, rec := s.openPoll(t)
	nc := s.dial(t)
	rd := bufio.NewReader(nc)
	for i := range 3 {
		fmt.Fprintf(nc, "GET /socket.io/?EIO=4&transport=polling&sid=%s HTTP/1.1\r\nHost: test\r\n\r\n", sid)
		untilWaiting(t, rec.Conn)
		time.Sleep(40 * time.Millisecond) // longer than the last answer's deadline
		rec.Send(TextFrame(fmt.Append(nil, i)))
		res, err := http.ReadResponse(rd, nil)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(res.Body)
		if want := fmt.Sprintf("4%d", i); string(b) != want {
			t.Fatalf("%q, want %q", b, want)
		}
	}
}

func TestPollLeavesNoDeadlineToOtherHandlers(t *testing.T) {
	s := newTestServer(t, Config{WriteTimeout: 30 * time.Millisecond})
	sid, rec := s.openPoll(t)
	engine := s.http.Config.Handler
	s.http.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/other" {
			io.WriteString(w, "other")
			return
		}
		engine.ServeHTTP(w, r)
	})
	nc := s.dial(t)
	rd := bufio.NewReader(nc)
	rec.Send(TextFrame([]byte("x")))
	for _, path := range []string{"/socket.io/?EIO=4&transport=polling&sid=" + sid, "/other"} {
		fmt.Fprintf(nc, "GET %s HTTP/1.1\r\nHost: test\r\n\r\n", path)
		res, err := http.ReadResponse(rd, nil)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		io.Copy(io.Discard, res.Body)
		time.Sleep(40 * time.Millisecond)
	}
}

func TestCorkHoldsPollsBack(t *testing.T) {
	s := newTestServer(t, Config{})
	sid, rec := s.openPoll(t)
	rec.Cork()
	rec.Send(TextFrame([]byte("a")))
	poll := inBackground(func() answer { return s.get(t, sid) })
	untilWaiting(t, rec.Conn)
	time.Sleep(10 * time.Millisecond)
	rec.Send(TextFrame([]byte("b")))
	rec.Uncork()
	recv(t, poll, "answer").want(t, 200, "4a\x1e4b")
}

func TestPollThatIsNotReadIsGivenUp(t *testing.T) {
	s := newTestServer(t, Config{WriteTimeout: 50 * time.Millisecond, MaxPayload: 64 << 20, MaxQueue: 64 << 20})
	sid, rec := s.openPoll(t)
	rec.Send(TextFrame(make([]byte, 32<<20)))
	nc, err := net.Dial("tcp", s.http.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	fmt.Fprintf(nc, "GET /socket.io/?EIO=4&transport=polling&sid=%s HTTP/1.1\r\nHost: test\r\n\r\n", sid)
	rec.wantClosed(t, ReasonTransportError)
}

func TestPayloadRoundTrip(t *testing.T) {
	frames := []*Frame{TextFrame([]byte("hello")), BinaryFrame([]byte{0, 0x1e, 0xff}), pingFrame, BinaryFrame(nil), TextFrame(nil)}
	var payload []byte
	size := -1
	for _, f := range frames {
		payload = appendPacket(payload, f)
		if size += payloadSize(f); size != len(payload) {
			t.Errorf("payload has %d bytes, %d announced", len(payload), size)
		}
	}
	var got []string
	err := splitPayload(payload, func(packet []byte, binary bool) bool {
		got = append(got, fmt.Sprintf("%t %q", binary, packet))
		return true
	})
	want := []string{`false "4hello"`, `true "\x00\x1e\xff"`, `false "2"`, `true ""`, `false "4"`}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
}

func TestRequestContextEndsThePoll(t *testing.T) {
	s := newTestServer(t, Config{})
	sid, rec := s.openPoll(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, "GET", s.url(sid), nil))
	}()
	untilWaiting(t, rec.Conn)
	cancel()
	recv(t, done, "end of the poll")
	rec.wantClosed(t, ReasonTransportError)
}

// A body that trickles does not outlive its session, whose end nobody else would tell the request.
func TestPostEndsWithItsSession(t *testing.T) {
	for name, end := range map[string]func(s *testServer, sid string, rec *recorder){
		"cut":    func(_ *testServer, _ string, rec *recorder) { rec.Conn.cut() },
		"closed": func(s *testServer, sid string, rec *recorder) { rec.Close("bye"); s.get(t, sid).want(t, 200, "1") },
		"cut by a second POST": func(s *testServer, sid string, _ *recorder) {
			s.post(t, sid, "4x").want(t, 400, `{"code":3,"message":"Bad request"}`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newTestServer(t, Config{})
			sid, rec := s.openPoll(t)
			nc := s.dial(t)
			fmt.Fprintf(nc, "POST %s HTTP/1.1\r\nHost: test\r\nContent-Length: 60000\r\n\r\n%s",
				strings.TrimPrefix(s.url(sid), s.http.URL), repeat("4", 50_000))
			eventually(t, "a POST that waits for its body", func() bool {
				rec.mu.Lock()
				defer rec.mu.Unlock()
				return rec.poll.reading != nil
			})
			end(s, sid, rec)
			res, err := http.ReadResponse(bufio.NewReader(nc), nil)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(res.Body)
			answer{res.StatusCode, string(body), res.Header}.want(t, 400, `{"code":1,"message":"Session ID unknown"}`)
			if !res.Close {
				t.Error("the connection stays")
			}
		})
	}
}
