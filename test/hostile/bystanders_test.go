//go:build linux

package hostile

import (
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// bystanders are two users who are connected, on both transports, while others attack. A worker sends them marked events all
// the while. Each of their tabs must get all of its user's, in order, once, and never one of anybody else.
type bystanders struct {
	n     *node
	users []*bystander
	stop  chan struct{}
	done  chan struct{}

	slowest atomic.Int64 // ns from the POST of a mark until the last tab had it

	mu       sync.Mutex
	troubles []string
}

type bystander struct {
	name string
	tabs []*tab
	sent int            // marks that were answered 202
	seen []atomic.Int64 // per tab: marks that came
	news chan struct{}
}

// mark is the data of a bystander's events.
type mark struct {
	To string
	N  int64
}

// watch lets bystanders live on the node until the test ends, or stands is called.
func watch(t testing.TB, n *node) *bystanders {
	t.Helper()
	b := &bystanders{n: n, stop: make(chan struct{}), done: make(chan struct{})}
	for _, name := range []string{"bystander-ann", "bystander-bob"} {
		u := &bystander{name: name, seen: make([]atomic.Int64, 2), news: make(chan struct{}, 1)}
		for i, transport := range []string{"websocket", "polling"} {
			tab, err := n.open(visit{user: name, transport: transport, heard: func(packet string) { b.hear(u, i, packet) }})
			if err != nil {
				t.Fatalf("%s on %s: %v", name, transport, err)
			}
			u.tabs = append(u.tabs, tab)
		}
		b.users = append(b.users, u)
	}
	go b.work()
	t.Cleanup(func() { b.stands(t) })
	return b
}

func (b *bystanders) trouble(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.troubles) < 20 {
		b.troubles = append(b.troubles, fmt.Sprintf(format, args...))
	}
}

// hear judges one event that a tab of u got.
func (b *bystanders) hear(u *bystander, tab int, packet string) {
	e, err := parseEvent(packet)
	if err != nil {
		b.trouble("%s: %v", u.name, err)
		return
	}
	switch e.name {
	case "online_users", "user_online", "user_offline": // of everybody; they carry no more than ids
		return
	case "authenticated":
		var greeting struct{ UserID string }
		if json.Unmarshal(e.data, &greeting); greeting.UserID != u.name {
			b.trouble("%s was greeted as %q", u.name, greeting.UserID)
		}
		return
	case "mark":
	default:
		b.trouble("%s got a stranger's %s %s", u.name, e.name, e.data)
		return
	}
	var m mark
	if err := json.Unmarshal(e.data, &m); err != nil || m.To != u.name {
		b.trouble("%s got somebody else's mark %s", u.name, e.data)
		return
	}
	if next := u.seen[tab].Load() + 1; m.N != next {
		b.trouble("%s on %s got mark %d when %d was next", u.name, u.tabs[tab].transport, m.N, next)
	}
	u.seen[tab].Store(m.N)
	select {
	case u.news <- struct{}{}:
	default:
	}
}

// work is the worker: one mark at a time, to one user after the other, each awaited.
func (b *bystanders) work() {
	defer close(b.done)
	for {
		for _, u := range b.users {
			began := time.Now()
			_, err := b.n.post(u.name, "mark", fmt.Sprintf(`{"to":%q,"n":%d}`, u.name, u.sent+1))
			if err != nil {
				b.trouble("a POST for %s: %v", u.name, err)
				return
			}
			u.sent++
			if err := b.arrived(u); err != nil {
				b.trouble("%s: %v", u.name, err)
				return
			}
			b.slowest.Store(max(b.slowest.Load(), int64(time.Since(began))))
		}
		select {
		case <-b.stop:
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// arrived waits until all tabs of u have all that was sent.
func (b *bystanders) arrived(u *bystander) error {
	deadline := time.After(patience)
	for {
		missing := false
		for i := range u.seen {
			missing = missing || u.seen[i].Load() < int64(u.sent)
		}
		if !missing {
			return nil
		}
		select {
		case <-u.news:
		case <-deadline:
			return fmt.Errorf("mark %d has not come within %s", u.sent, patience)
		case <-u.tabs[0].gone:
			return fmt.Errorf("the tab on websocket is gone: %w", u.tabs[0].err)
		case <-u.tabs[1].gone:
			return fmt.Errorf("the tab on polling is gone: %w", u.tabs[1].err)
		}
	}
}

// stands ends the watch and fails the test if anything was not as it must be.
func (b *bystanders) stands(t testing.TB) {
	select {
	case <-b.stop:
		return // judged already
	default:
		close(b.stop)
	}
	<-b.done
	sent := 0
	for _, u := range b.users {
		sent += u.sent
		for _, tab := range u.tabs {
			tab.leave()
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, trouble := range b.troubles {
		t.Errorf("bystanders: %s", trouble)
	}
	t.Logf("bystanders: %d marks, slowest %s", sent, time.Duration(b.slowest.Load()).Round(time.Millisecond))
}

var freshUsers atomic.Int64

// stillServes fails the test unless a fresh, well-behaved client is greeted, reached by a worker and answered. Transports take
// turns.
func (n *node) stillServes(t testing.TB) {
	t.Helper()
	n.alive(t)
	id := freshUsers.Add(1)
	v := visit{user: fmt.Sprintf("fresh-%d", id), transport: []string{"websocket", "polling"}[id%2]}
	if err := n.serve(v); err != nil {
		n.alive(t)
		t.Fatalf("a fresh client on %s is not served: %v", v.transport, err)
	}
}

func (n *node) serve(v visit) error {
	tab, err := n.open(v)
	if err != nil {
		return err
	}
	defer tab.leave()
	greeting, err := tab.wait("authenticated")
	if err != nil {
		return err
	}
	var who struct{ UserID string }
	if err := json.Unmarshal(greeting.data, &who); err != nil || who.UserID != v.user {
		return fmt.Errorf("greeted as %s: %w", greeting.data, err)
	}
	const data = `{"jobId":"j","result":"\u00e9 12345678901234567890"}`
	answer, err := n.post(v.user, "job_completed", data)
	if err != nil {
		return err
	}
	if answer.Status != "sent" || answer.Sockets != 1 {
		return fmt.Errorf("the POST was answered %+v", answer)
	}
	completed, err := tab.wait("job_completed")
	if err != nil {
		return err
	}
	if string(completed.data) != data || completed.id != answer.ID {
		return fmt.Errorf("got %s %s, sent %s as %s", completed.data, completed.id, data, answer.ID)
	}
	ack, err := tab.call("get_online_users")
	if err != nil {
		return err
	}
	var reply []struct {
		Users []string
		Count int
	}
	if err := json.Unmarshal(ack, &reply); err != nil || len(reply) != 1 || reply[0].Count < 1 {
		return fmt.Errorf("get_online_users: %s: %w", ack, err)
	}
	return nil
}
