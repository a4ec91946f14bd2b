//go:build linux

package hostile

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"time"
)

// crew is everybody who uses a node while it dies and comes back.
type crew struct {
	workers   []*stepper
	followers []*follower
	strangers sync.WaitGroup
	stop      chan struct{}
}

// hire lets two users, each with a worker and a page on each transport, use the node at that address, among strangers who
// connect, send rubbish and go.
func hire(n *node) *crew {
	c := &crew{stop: make(chan struct{})}
	for _, user := range []string{"kim", "lee"} {
		for _, transport := range []string{"websocket", "polling"} {
			f := follow(n, user, transport)
			<-f.up // a page that comes later gets only what no other has confirmed
			c.followers = append(c.followers, f)
		}
		c.workers = append(c.workers, work(n, user))
	}
	for i := range 4 {
		c.strangers.Go(func() {
			for {
				select {
				case <-c.stop:
					return
				default:
				}
				w, err := n.websocket("", text(`40{"token":"`+token(fmt.Sprint("stranger-", i))+`"}`)...)
				if err != nil {
					pause() // nobody is there now
					continue
				}
				w.Write(texts(`42["get_online_users"]`, `42`))
				w.ending()
				w.vanish()
			}
		})
	}
	return c
}

// reach waits until every worker has had n more steps answered.
func (c *crew) reach(t *testing.T, n int) {
	t.Helper()
	for _, w := range c.workers {
		w.reaches(t, w.answered(t)+n)
	}
}

// dismiss ends the work, and checks that every page has seen everything that was answered, in order.
func (c *crew) dismiss(t *testing.T) {
	t.Helper()
	close(c.stop)
	c.strangers.Wait()
	acked := map[string]int{}
	for _, w := range c.workers {
		acked[w.user] = w.quit(t)
	}
	for _, f := range c.followers {
		f.sees(t, acked[f.user])
		f.leave()
	}
	t.Logf("answered: %v", acked)
}

// SIGKILL in the middle of everything, again and again, loses nothing that was answered, and the next process serves.
func TestKilledInTheMiddle(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	flags := []string{ownAddress(), "--data-dir=" + dir, "--retention-events=100000", "--retention-bytes=64MiB"}
	n := start(t, flags...)
	crew := hire(n)
	for range size(2, 20) {
		crew.reach(t, 30)
		n.kill(t)
		n = start(t, append(flags, "--addr="+n.addr)...)
		n.stillServes(t)
	}
	crew.reach(t, 30)
	crew.dismiss(t)
	n.stillServes(t)
}

// A process that is killed while it starts does not spoil the start of the next one.
func TestKilledWhileStarting(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for i := range size(5, 30) {
		n := launch(t, "--data-dir="+dir)
		time.Sleep(time.Duration(i) * 5 * time.Millisecond) // the point of time is what is tried out
		n.kill(t)
	}
	start(t, "--data-dir="+dir).stillServes(t)
}

// SIGTERM in the middle of everything: the node says goodbye to everybody, ends with 0 within the drain, and everybody comes
// back to the next one and misses nothing.
func TestTerminatedInTheMiddle(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	flags := []string{ownAddress(), "--data-dir=" + dir, "--retention-events=100000", "--retention-bytes=64MiB", "--drain=10s"}
	n := start(t, flags...)
	crew := hire(n)
	for range size(2, 20) {
		crew.reach(t, 30)
		n.terminate(t, 10*time.Second)
		n.stop(t)
		n = start(t, append(flags, "--addr="+n.addr)...)
		n.stillServes(t)
	}
	crew.reach(t, 30)
	crew.dismiss(t)
	for _, f := range crew.followers {
		for _, end := range f.ends {
			// A polling client may find the door closed before it is told.
			if f.transport == "websocket" && !errors.Is(end, closeError(1001)) {
				t.Errorf("%s: a websocket ended with %v", f.user, end)
			}
		}
	}
	n.stillServes(t)
}

// SIGTERM while strangers hold on to the node by every means: it still ends with 0 within the drain.
func TestTerminatedUnderSiege(t *testing.T) {
	t.Parallel()
	const worker = "POST /v1/events HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nAuthorization: Bearer "
	const post = "POST /socket.io/?EIO=4&transport=polling&sid="
	type siege struct {
		name string
		hold func(n *node) (io.Closer, error)
	}
	sieges := []siege{
		{"nobody", func(n *node) (io.Closer, error) { return n.say("GET /livez HTTP/1.1\r\nHost: a\r\n\r\n") }},
		{"connections that say nothing", func(n *node) (io.Closer, error) { return n.say("") }},
		{"half a request", func(n *node) (io.Closer, error) { return n.say(opening) }},
		{"half a second request", func(n *node) (io.Closer, error) {
			return n.say("GET /livez HTTP/1.1\r\nHost: a\r\n\r\n" + opening)
		}},
		{"half an upload", func(n *node) (io.Closer, error) {
			p, err := n.polling()
			if err != nil {
				return nil, err
			}
			return n.say(post + p.sid + " HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n40")
		}},
		{"half an upload to nobody's session", func(n *node) (io.Closer, error) {
			return n.say(post + "nobody HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n40")
		}},
		{"half an event", func(n *node) (io.Closer, error) {
			return n.say(worker + apiKey + "\r\nContent-Length: 100\r\n\r\n{")
		}},
		{"half an event without a key", func(n *node) (io.Closer, error) {
			return n.say(worker + "wrong\r\nContent-Length: 100\r\n\r\n{")
		}},
		{"an event that waits for its receipt", func(n *node) (io.Closer, error) {
			body := envelope("nobody", "x", "1")
			return n.say(worker + apiKey + fmt.Sprintf("\r\nPrefer: wait=60\r\nContent-Length: %d\r\n\r\n%s", len(body), body))
		}},
		{"a session without a token", func(n *node) (io.Closer, error) { return n.websocket("") }},
		{"a poll", func(n *node) (io.Closer, error) {
			p, err := n.polling()
			if err != nil {
				return nil, err
			}
			return n.say("GET /socket.io/?EIO=4&transport=polling&sid=" + p.sid + " HTTP/1.1\r\nHost: a\r\n\r\n")
		}},
		{"half an upgrade", func(n *node) (io.Closer, error) {
			p, err := n.polling()
			if err != nil {
				return nil, err
			}
			return n.websocket("&sid="+p.sid, text("2probe")...)
		}},
		{"a session that says no more", func(n *node) (io.Closer, error) {
			return n.websocket("", text(`40{"token":"`+token("siege")+`"}`)...)
		}},
		{"floods", func(n *node) (io.Closer, error) {
			w, err := n.websocket("", text(`40{"token":"`+token("siege")+`"}`)...)
			if err != nil {
				return nil, err
			}
			go func() {
				for { // until the server or the test has had enough
					if _, err := w.Write(text(`42["get_online_users"]`)); err != nil {
						return
					}
				}
			}()
			return w, nil
		}},
		{"a slow reader", func(n *node) (io.Closer, error) {
			w, err := n.reluctant("websocket", `{"token":"`+token("siege")+`","pid":"p","offset":"0-0"}`)
			return w, err
		}},
		{"a slow poll", func(n *node) (io.Closer, error) {
			w, err := n.reluctant("polling", `{"token":"`+token("siege")+`","pid":"p","offset":"0-0"}`)
			return w, err
		}},
	}
	run := func(name string, sieges ...siege) {
		t.Run(name, func(t *testing.T) {
			n := start(t, "--drain=8s", "--ping-interval=60s")
			bulk := envelope("siege", "bulk", fmt.Sprintf(`"%032000d"`, 0))
			must[[]published](t)(n.batch(slices.Repeat([]string{bulk}, 100)))
			for _, s := range sieges {
				for range 5 {
					hold, err := s.hold(n)
					if err != nil {
						t.Fatalf("%s: %v", s.name, err)
					}
					defer hold.Close()
				}
			}
			n.stillServes(t)
			n.terminate(t, 10*time.Second)
		})
	}
	run("by all", sieges...)
	if full() {
		for _, s := range sieges {
			run("by "+s.name, s)
		}
	}
}

// say opens a connection that says one thing.
func (n *node) say(what string) (io.Closer, error) {
	w, err := n.wire(nil)
	if err == nil {
		_, err = io.WriteString(w, what)
	}
	return w, err
}
