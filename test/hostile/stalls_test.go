//go:build linux

package hostile

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// stall is somebody who begins and does not go on. All stalls of a test go on at the same time.
type stall struct {
	name string
	run  func() error
}

// together runs the stalls at once and reports each as a subtest.
func together(t *testing.T, stalls []stall) {
	results := make([]chan error, len(stalls))
	for i, s := range stalls {
		results[i] = make(chan error, 1)
		go func() { results[i] <- s.run() }()
	}
	for i, s := range stalls {
		t.Run(s.name, func(t *testing.T) {
			if err := <-results[i]; err != nil {
				t.Error(err)
			}
		})
	}
}

// silent sends a request, or part of one, and expects the server to end it: with that status, or 0 for no answer at all.
func silent(n *node, request string, status int, says string) error {
	w, err := n.wire(nil)
	if err != nil {
		return err
	}
	defer w.Close()
	if _, err := io.WriteString(w, request); err != nil {
		return err
	}
	got, body, err := w.answer()
	switch {
	case isTimeout(err):
		return fmt.Errorf("held for ever: %w", err)
	case status == 0 && got == 0 && isEnd(err):
		return nil
	case err != nil:
		return err
	case got != status || !strings.Contains(body, says):
		return fmt.Errorf("answered %d %.100s, want %d with %q", got, body, status, says)
	}
	// The answer is not the end: whoever waits for the rest of the request holds the connection.
	switch _, err := w.in.ReadByte(); {
	case isEnd(err):
		return nil
	case err != nil:
		return fmt.Errorf("the connection goes on after the answer: %w", err)
	default:
		return errors.New("more comes after the answer")
	}
}

// drip sends a request byte by byte until the server ends the connection.
func drip(n *node, head, rest string) error {
	w, err := n.wire(nil)
	if err != nil {
		return err
	}
	defer w.Close()
	if _, err := io.WriteString(w, head); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, w.in)
		ended <- err
	}()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case err := <-ended:
			if isTimeout(err) {
				return fmt.Errorf("dripped for ever: %w", err)
			}
			return nil
		case <-tick.C:
			if _, err := io.WriteString(w, rest[i%len(rest):][:1]); err != nil {
				tick.Stop() // the end is on its way
			}
		}
	}
}

// halfUpgrade probes a polling session's upgrade with raw frames and checks how the probe ends, and that the session still
// works as ever.
func halfUpgrade(n *node, frames []byte, code int) error {
	p, err := n.polling()
	if err != nil {
		return err
	}
	defer p.close(true)
	if err := ask(p, `40{"token":"`+token("half")+`"}`, "40{"); err != nil {
		return err
	}
	// The session has to be kept alive meanwhile.
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			if err := ask(p, `421["get_online_users"]`, "431["); err != nil {
				done <- fmt.Errorf("the polling session: %w", err)
				return
			}
			select {
			case <-stop:
				done <- nil
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	}()
	w, err := n.websocket("&sid="+p.sid, frames...)
	if err == nil {
		defer w.Close()
		var got int
		if got, err = w.ending(); err == nil && got != code {
			err = fmt.Errorf("the probe was closed with %d, want %d", got, code)
		}
	}
	close(stop)
	return errors.Join(err, <-done)
}

// halfFrame lets a session stop inside a frame, which no pong gets past: that is the end of it.
func halfFrame(n *node) error {
	w, err := n.websocket("")
	if err != nil {
		return err
	}
	defer w.Close()
	if err := w.ask(`40{"token":"`+token("half")+`"}`, "40{"); err != nil {
		return err
	}
	if _, err := w.Write(text(`42["get_online_users"]`)[:10]); err != nil {
		return err
	}
	code, err := w.ending()
	if err == nil && code != 1008 {
		err = fmt.Errorf("closed with %d, want 1008", code)
	}
	return err
}

// Requests, uploads, upgrades and sessions that stop half-way are ended, each after its own time, and hold nobody else up.
func TestStalls(t *testing.T) {
	t.Parallel()
	n := start(t, "--ping-interval=1s", "--ping-timeout=3s", "--handshake-timeout=3s")
	before := n.footing(t)
	b := watch(t, n)
	session := func(path string) string { return strings.Replace(path, "SID", must[*polling](t)(n.polling()).sid, 1) }
	const body = "Content-Length: 1000\r\n\r\n"
	const worker = "POST /v1/events HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
	const post = "POST /socket.io/?EIO=4&transport=polling&sid=SID HTTP/1.1\r\nHost: a\r\n"

	stalls := []stall{
		{"a connection that says nothing", func() error { return silent(n, "", 0, "") }},
		{"half a request line", func() error { return silent(n, "GET /socket.io/?EI", 400, "") }},
		{"half a header", func() error { return silent(n, opening+"X: ", 0, "") }},
		{"headers, byte by byte", func() error { return drip(n, opening, "X: y\r\n") }},
		{"the body of a poll", func() error { return silent(n, opening+body, 0, "") }},
		{"the body of a websocket handshake to nobody's session", func() error {
			return silent(n, strings.Replace(string(upgradeRequest("a", "&sid=nobody")), "\r\n\r\n", "\r\n"+body, 1), 400, `"code":1`)
		}},
		{"an upload", func() error { return silent(n, session(post)+body+"40", 400, "") }},
		{"an upload, byte by byte", func() error { return drip(n, session(post)+body, "4") }},
		{"an upload to nobody's session", func() error { return silent(n, post+body+"40", 400, `"code":1`) }},
		{"an upload in chunks to nobody's session", func() error {
			return silent(n, post+"Transfer-Encoding: chunked\r\n\r\n4\r\n4040\r\n", 400, `"code":1`)
		}},
		{"an upload from another origin", func() error { return silent(n, post+"Origin: http://evil.example\r\n"+body, 403, "Forbidden") }},
		{"an upload to no path", func() error { return silent(n, "POST /nothing HTTP/1.1\r\nHost: a\r\n"+body, 404, "not_found") }},
		{"an upload of a wrong method", func() error { return silent(n, "POST /livez HTTP/1.1\r\nHost: a\r\n"+body, 405, "method_not_allowed") }},
		{"an event", func() error {
			return silent(n, worker+"X-API-Key: "+apiKey+"\r\n"+body+`{"userId":`, 408, "request_timeout")
		}},
		{"an event without a key", func() error { return silent(n, worker+body, 401, "api_key_missing") }},

		{"a websocket that shows no token", func() error {
			d, err := n.direct()
			if err != nil {
				return err
			}
			return ended(d)
		}},
		{"half a frame of a session", func() error { return halfFrame(n) }},
		{"an upgrade that is never probed", func() error { return halfUpgrade(n, nil, 1000) }},
		{"an upgrade that is probed only", func() error { return halfUpgrade(n, text("2probe"), 1000) }},
		{"an upgrade probed by half a frame", func() error { return halfUpgrade(n, text("2probe")[:4], 1000) }},
		{"an upgrade without a probe", func() error { return halfUpgrade(n, text("5"), 1002) }},
		{"an upgrade probed twice", func() error { return halfUpgrade(n, texts("2probe", "2probe"), 1002) }},
		{"an upgrade probed with something else", func() error { return halfUpgrade(n, texts("2", "5"), 1002) }},
		{"an upgrade probed by a message", func() error { return halfUpgrade(n, text("40"), 1002) }},
		{"an upgrade probed by 100 kB", func() error { return halfUpgrade(n, text("2probe"+strings.Repeat("e", 100_000)), 1009) }},
		{"an upgrade probed by bytes", func() error { return halfUpgrade(n, frame(fin|opBinary, "2probe"), 1002) }},
		{"an upgrade closed at once", func() error { return halfUpgrade(n, closeFrame(1001, ""), 1000) }},
	}
	for i := range size(30, 300) {
		stalls = append(stalls, stall{fmt.Sprintf("slowloris %d", i), func() error { return drip(n, opening, "X") }})
	}
	together(t, stalls)
	n.stillServes(t)

	m := n.scrape(t)
	if got := m[closed(handshakeTO)]; got < 1 { // the others had other reasons
		t.Errorf("%v connections were closed for %s", got, handshakeTO)
	}
	if b.stands(t); time.Duration(b.slowest.Load()) > patience/3 {
		t.Errorf("a bystander had to wait %s", time.Duration(b.slowest.Load()))
	}
	n.returnsTo(t, before)
}

// A session is upgraded by its own client only, once.
func TestContestedUpgrades(t *testing.T) {
	t.Parallel()
	n := start(t)
	watch(t, n)
	t.Run("many probes at once", func(t *testing.T) {
		p := must[*polling](t)(n.polling())
		defer p.close(true)
		if err := ask(p, `40{"token":"`+token("contested")+`"}`, "40{"); err != nil {
			t.Fatal(err)
		}
		const probes = 20
		codes := make(chan int, probes)
		winners := make(chan *wire, probes)
		for range probes {
			go func() {
				w, err := n.websocket("&sid="+p.sid, text("2probe")...)
				if err != nil {
					codes <- -1
					return
				}
				switch answer, err := w.packet(); {
				case err == nil && answer == "3probe":
					winners <- w
					codes <- 0
				default:
					var code closeError
					errors.As(err, &code)
					codes <- int(code)
					w.Close()
				}
			}()
		}
		counts := map[int]int{}
		for range probes {
			counts[<-codes]++
		}
		if counts[0] != 1 || counts[1008] != probes-1 {
			t.Fatalf("ends of %d probes by close code, 0 for an answer: %v", probes, counts)
		}
		w := <-winners
		defer w.Close()
		p.upgraded.Store(w)
		if err := ask(p, `421["get_online_users"]`, "431["); err != nil {
			t.Fatalf("after the upgrade: %v", err)
		}
		if _, err := n.websocket("&sid=" + p.sid); err != nil {
			t.Fatal(err)
		}
		thief := must[*wire](t)(n.websocket("&sid=" + p.sid))
		defer thief.Close()
		if code, err := thief.ending(); err != nil || code != 1008 {
			t.Errorf("a second websocket for an upgraded session: code %d, %v", code, err)
		}
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			if _, err := p.request(method, "42"); !refusedWith(err, 400) {
				t.Errorf("%s of an upgraded session: %v", method, err)
			}
		}
		if err := ask(p, `422["get_online_users"]`, "432["); err != nil {
			t.Errorf("after the intruders: %v", err)
		}
		n.stillServes(t)
	})
	t.Run("a websocket session's id", func(t *testing.T) {
		w := must[*wire](t)(n.websocket(""))
		defer w.Close()
		id := must[string](t)(sessionID(must[string](t)(w.packet())))
		thief := must[*wire](t)(n.websocket("&sid="+id, text("2probe")...))
		defer thief.Close()
		if code, err := thief.ending(); err != nil || code != 1008 {
			t.Errorf("code %d, %v", code, err)
		}
		if err := w.ask(`40{"token":"`+token("contested")+`"}`, "40{"); err != nil {
			t.Errorf("the owner: %v", err)
		}
		n.stillServes(t)
	})
}

// Polls that overlap end their own session, and only that; one of the two is told so.
func TestOverlappingPolls(t *testing.T) {
	t.Parallel()
	n := start(t)
	watch(t, n)
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		t.Run(method, func(t *testing.T) {
			for range size(10, 200) {
				p := must[*polling](t)(n.polling())
				if err := ask(p, `40{"token":"`+token("overlap")+`"}`, "40{"); err != nil {
					t.Fatal(err)
				}
				const polls = 5
				ends := make(chan error, polls)
				if method == http.MethodPost { // which is done so soon that two may never meet: one of them stays
					half, err := n.say("POST /socket.io/?EIO=4&transport=polling&sid=" + p.sid + " HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n42")
					if err != nil {
						t.Fatal(err)
					}
					defer half.Close()
				}
				for range polls {
					go func() {
						var err error
						for err == nil { // answers that came in between are no overlap
							_, err = p.request(method, `42["get_online_users"]`)
						}
						ends <- err
					}()
				}
				for range polls {
					if err := <-ends; !refusedWith(err, 400) {
						t.Errorf("an overlapping %s: %v", method, err)
					}
				}
				p.close(true)
			}
			n.stillServes(t)
		})
	}
	n.empty(t, 4)
}

// Polls whose clients go away in the middle, by the thousand.
func TestAbortedPolls(t *testing.T) {
	t.Parallel()
	// A poll that was reset before the server had read it is one that never came: the heartbeat ends such a session.
	n := start(t, "--ping-interval=2s", "--ping-timeout=2s")
	before := n.footing(t)
	b := watch(t, n)
	const atOnce = 20
	failed := make(chan error, atOnce)
	for worker := range atOnce {
		go func() {
			failed <- func() error {
				for i := range size(25, 250) {
					if err := n.abortPoll((worker + i) % 4); err != nil {
						return err
					}
				}
				return nil
			}()
		}()
	}
	for range atOnce {
		if err := <-failed; err != nil {
			t.Error(err)
		}
	}
	n.stillServes(t)
	b.stands(t)
	n.returnsTo(t, before)
}

// abortPoll opens a session and breaks off a poll of it: while it waits, just as it is answered, or while an upload is under way.
func (n *node) abortPoll(how int) error {
	p, err := n.polling()
	if err != nil {
		return err
	}
	defer p.close(true)
	if err := ask(p, `40{"token":"`+token(fmt.Sprint("abort-", how))+`"}`, "40{"); err != nil {
		return err
	}
	w, err := n.wire(nil)
	if err != nil {
		return err
	}
	defer w.vanish()
	path := "/socket.io/?EIO=4&transport=polling&sid=" + p.sid + " HTTP/1.1\r\nHost: a\r\n"
	switch how {
	case 0: // what was there is taken, and the next poll waits
		_, err = io.WriteString(w, "GET "+path+"\r\n"+"GET "+path+"\r\n")
	case 1: // an answer is on its way
		if _, err = io.WriteString(w, "GET "+path+"\r\n"); err == nil {
			err = p.write(`421["get_online_users"]`)
		}
		if refusedWith(err, 400) {
			err = nil // the server has seen the end of the poll first
		}
	case 2: // half an upload
		_, err = io.WriteString(w, "POST "+path+"Content-Length: 100\r\n\r\n42[")
	case 3: // both
		if _, err = io.WriteString(w, "POST "+path+"Transfer-Encoding: chunked\r\n\r\n5\r\n42"); err == nil {
			var other *wire
			if other, err = n.wire(nil); err == nil {
				_, err = io.WriteString(other, "GET "+path+"\r\n")
				other.vanish()
			}
		}
	}
	return err
}
