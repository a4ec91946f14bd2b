//go:build linux

package hostile

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"jobwire/internal/events"
)

// follower is a user's page: it comes back whenever its connection ends, and says what it saw last.
type follower struct {
	n         *node
	user      string
	transport string

	mu       sync.Mutex
	ids      map[int]string // of the steps that came
	newest   int            // the highest step so far
	last     string         // the id that came last, as socket.io-client keeps it
	pid      string
	ends     []error // of its connections
	troubles []string

	up, stop, done chan struct{} // up is closed when the page was connected for the first time
}

// step is the data of a worker's event.
type step struct{ N int }

// follow lets a page of the user live until leave.
func follow(n *node, user, transport string) *follower {
	f := &follower{n: n, user: user, transport: transport, ids: map[int]string{},
		up: make(chan struct{}), stop: make(chan struct{}), done: make(chan struct{})}
	go f.run()
	return f
}

func (f *follower) run() {
	defer close(f.done)
	for {
		f.mu.Lock()
		v := visit{user: f.user, transport: f.transport, pid: f.pid, offset: f.last, heard: f.hear}
		if v.offset == "" {
			v.pid = ""
		}
		f.mu.Unlock()
		tab, err := f.n.open(v)
		if err != nil {
			select {
			case <-f.stop:
				return
			default:
				pause()
			}
			continue
		}
		f.mu.Lock()
		if f.pid == "" {
			close(f.up)
		}
		f.pid = tab.pid
		f.mu.Unlock()
		select {
		case <-f.stop:
			tab.leave()
			return
		case <-tab.gone:
			f.mu.Lock()
			f.ends = append(f.ends, tab.err)
			f.mu.Unlock()
		}
	}
}

func (f *follower) hear(packet string) {
	e, err := parseEvent(packet)
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		f.trouble("%v", err)
		return
	}
	if e.name != "step" {
		return
	}
	var s struct {
		step
		User string
	}
	if err := json.Unmarshal(e.data, &s); err != nil || s.User != f.user {
		f.trouble("got %s", e.data)
		return
	}
	f.last = e.id
	if before, again := f.ids[s.N]; again {
		if before != e.id {
			f.trouble("step %d came as %s and as %s", s.N, before, e.id)
		}
		return
	}
	if s.N != f.newest+1 {
		f.trouble("step %d came after %d", s.N, f.newest)
	}
	f.newest = s.N
	f.ids[s.N] = e.id
}

func (f *follower) trouble(format string, args ...any) {
	if len(f.troubles) < 10 {
		f.troubles = append(f.troubles, fmt.Sprintf(format, args...))
	}
}

// got returns how many steps came.
func (f *follower) got() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.ids)
}

// sees waits until all steps up to n have come, and checks all that came.
func (f *follower) sees(t testing.TB, n int) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for f.got() < n {
		if time.Now().After(deadline) {
			t.Errorf("%s on %s has %d of %d steps", f.user, f.transport, f.got(), n)
			break
		}
		pause()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, trouble := range f.troubles {
		t.Errorf("%s on %s: %s", f.user, f.transport, trouble)
	}
	var before events.ID
	for i := 1; i <= n; i++ {
		id, err := events.ParseID(f.ids[i])
		if err != nil || id.Compare(before) <= 0 {
			t.Errorf("%s on %s: step %d has the id %q after %s", f.user, f.transport, i, f.ids[i], before)
			return
		}
		before = id
	}
}

// leave ends the page.
func (f *follower) leave() {
	close(f.stop)
	<-f.done
}

// stepper is a worker that does what it is told to: it repeats a call that was not answered, with the same key.
type stepper struct {
	n    *node
	user string

	mu    sync.Mutex
	acked int
	err   error

	stop, done chan struct{}
}

func work(n *node, user string) *stepper {
	s := &stepper{n: n, user: user, stop: make(chan struct{}), done: make(chan struct{})}
	go s.run()
	return s
}

func (s *stepper) run() {
	defer close(s.done)
	for i := 1; ; i++ {
		body := envelope(s.user, "step", fmt.Sprintf(`{"n":%d,"user":%q}`, i, s.user))
		for answered := false; !answered; {
			select {
			case <-s.stop:
				return
			default:
			}
			status, text, err := s.n.call(http.MethodPost, "/v1/events", body, fmt.Sprintf("Idempotency-Key: %s-%d", s.user, i))
			switch {
			case err != nil: // nobody knows whether it was stored
				pause()
			case status == http.StatusAccepted:
				answered = true
			case status == http.StatusServiceUnavailable && strings.Contains(text, `"shutting_down"`):
				pause()
			default:
				s.mu.Lock()
				s.err = &refusedError{status, text}
				s.mu.Unlock()
				return
			}
		}
		s.mu.Lock()
		s.acked = i
		s.mu.Unlock()
	}
}

// answered returns how many steps were answered with 202.
func (s *stepper) answered(t testing.TB) int {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		t.Fatalf("the worker of %s: %v", s.user, s.err)
	}
	return s.acked
}

// reaches waits until so many were answered.
func (s *stepper) reaches(t testing.TB, n int) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for s.answered(t) < n {
		if time.Now().After(deadline) {
			t.Fatalf("the worker of %s stands at %d, and should reach %d", s.user, s.answered(t), n)
		}
		pause()
	}
}

// quit ends the worker and returns how many steps were answered.
func (s *stepper) quit(t testing.TB) int {
	t.Helper()
	close(s.stop)
	<-s.done
	return s.answered(t)
}
