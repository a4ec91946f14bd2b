//go:build linux

package hostile

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// listener is a tab that must hear numbered steps without a gap, a repeat or a reconnect.
type listener struct {
	*tab
	heard  atomic.Int64
	wrong  atomic.Pointer[string]
	lastID string
	news   chan struct{}
}

func (l *listener) hear(packet string) {
	if !strings.HasPrefix(packet, `2["step",{"n":`) {
		return
	}
	var n int64
	digits := packet[len(`2["step",{"n":`):]
	for i := 0; i < len(digits) && digits[i] >= '0' && digits[i] <= '9'; i++ {
		n = n*10 + int64(digits[i]-'0')
	}
	id := packet[strings.LastIndexByte(packet, ',')+1:]
	if want := l.heard.Load() + 1; n != want || id == l.lastID {
		text := fmt.Sprintf("step %d (%s) came when %d was next, after %s", n, id, want, l.lastID)
		l.wrong.CompareAndSwap(nil, &text)
	}
	l.lastID = id
	l.heard.Store(n)
	select {
	case l.news <- struct{}{}:
	default:
	}
}

// hears waits until step n has come.
func (l *listener) hears(n int64) error {
	deadline := time.After(2 * patience)
	for {
		if wrong := l.wrong.Load(); wrong != nil {
			return errors.New(*wrong)
		}
		if l.heard.Load() == n {
			return nil
		}
		select {
		case <-l.news:
		case <-l.gone:
			return fmt.Errorf("gone at step %d: %w", l.heard.Load(), l.err)
		case <-deadline:
			return fmt.Errorf("stays at step %d of %d", l.heard.Load(), n)
		}
	}
}

// 10,000 events to 10 sockets of one user, posted as fast as possible and in batches: none lost, none repeated, in
// order, on websocket, on polling and across an upgrade.
func TestBurst(t *testing.T) {
	t.Parallel()
	n := start(t)
	events := int64(size(2_000, 10_000))
	const user = "burst"
	transports := []string{
		"websocket", "websocket", "websocket", "websocket", "polling", "polling", "polling", "upgrade", "upgrade", "upgrade",
	}
	var listeners []*listener
	for _, transport := range transports {
		l := &listener{news: make(chan struct{}, 1)}
		v := visit{user: user, transport: strings.Replace(transport, "upgrade", "polling", 1), heard: l.hear}
		l.tab = must[*tab](t)(n.open(v))
		listeners = append(listeners, l)
	}
	data := func(i int64) string { return fmt.Sprintf(`{"n":%d,"job":"some-job","text":"as events are"}`, i) }

	upgrades := make(chan error, 3)
	began := time.Now()
	posted := int64(0)
	for ; posted < events/2; posted++ { // one by one
		if _, err := n.post(user, "step", data(posted+1)); err != nil {
			t.Fatal(err)
		}
		for i, l := range listeners[7:9] { // in the middle, at different points
			if posted == events/8*int64(i+1) {
				go func() { upgrades <- l.link.(*polling).upgrade() }()
			}
		}
	}
	for posted < events { // in batches
		var batch []string
		for range min(100, events-posted) {
			posted++
			batch = append(batch, envelope(user, "step", data(posted)))
		}
		results, err := n.batch(batch)
		if err != nil {
			t.Fatal(err)
		}
		if len(results) != len(batch) {
			t.Fatalf("%d results of %d", len(results), len(batch))
		}
		if posted >= events*3/4 && posted < events*3/4+100 {
			go func() { upgrades <- listeners[9].link.(*polling).upgrade() }()
		}
	}
	for range cap(upgrades) {
		if err := <-upgrades; err != nil {
			t.Errorf("upgrade: %v", err)
		}
	}
	for i, l := range listeners {
		if err := l.hears(events); err != nil {
			t.Errorf("%s %d: %v", transports[i], i, err)
		}
	}
	t.Logf("%d events to %d sockets in %s", events, len(listeners), time.Since(began).Round(time.Millisecond))
	m := n.scrape(t)
	if m[`upgrades_total{result="done"}`] != 3 || m["connections_opened_total"] != float64(len(listeners)) {
		t.Errorf("%v upgrades, %v connections opened", m[`upgrades_total{result="done"}`], m["connections_opened_total"])
	}
	for _, l := range listeners {
		l.leave()
	}
	n.empty(t, 0)
}

// 1,000 users watch while 200 arrive, soon after the start: each watcher learns of each arrival, once, be it from an event or
// from the list after the storm.
func TestPresenceCrowd(t *testing.T) {
	t.Parallel()
	n := start(t)
	watchers, arrivals := size(200, 1000), size(100, 200)
	type watcher struct {
		*tab
		mu   sync.Mutex
		seen []int8 // of each arrival, how often it was told
		left int
		all  chan struct{}
	}
	crowd := make([]*watcher, watchers)
	err := parallel(16, watchers, func(i int) error {
		w := &watcher{seen: make([]int8, arrivals), left: arrivals, all: make(chan struct{})}
		crowd[i] = w
		tab, err := n.open(visit{user: fmt.Sprint("watcher-", i), transport: []string{"websocket", "websocket", "websocket", "polling"}[i%4],
			heard: func(packet string) {
				w.mu.Lock()
				defer w.mu.Unlock()
				for i, text := range strings.Split(packet, `"`) {
					number, found := strings.CutPrefix(text, "arrival-")
					k, err := strconv.Atoi(number)
					listed := strings.HasPrefix(packet, `2["online_users"`)
					if i == 0 || !found || err != nil || listed && w.seen[k] > 0 { // a list may repeat what came before it
						continue
					}
					if w.seen[k]++; w.seen[k] == 1 {
						if w.left--; w.left == 0 {
							close(w.all)
						}
					}
				}
			}})
		w.tab = tab
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	var guests sync.Map
	if err := parallel(8, arrivals, func(i int) error {
		tab, err := n.open(visit{user: fmt.Sprint("arrival-", i)})
		guests.Store(i, tab)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	deadline := time.After(4 * patience)
	told, missing, twice := 0, 0, 0
	for i, w := range crowd {
		select {
		case <-w.all:
		case <-deadline:
			t.Fatalf("watcher %d misses arrivals", i)
		case <-w.gone:
			t.Fatalf("watcher %d is gone: %v", i, w.err)
		}
	}
	for _, w := range crowd { // what would come twice has come by now, or comes before the ack
		if _, err := w.call("get_online_users"); err != nil {
			t.Fatal(err)
		}
		w.mu.Lock()
		for _, times := range w.seen {
			switch {
			case times == 0:
				missing++
			case times > 1:
				twice++
			default:
				told++
			}
		}
		w.mu.Unlock()
	}
	t.Logf("%d of %d in %s", told, watchers*arrivals, time.Since(began).Round(time.Millisecond))
	if told != watchers*arrivals {
		t.Errorf("%d told, %d missing, %d told twice, want %d", told, missing, twice, watchers*arrivals)
	}
	if online := must[int](t)(n.online()); online != watchers+arrivals {
		t.Errorf("%d online, want %d", online, watchers+arrivals)
	}
	for _, w := range crowd {
		w.vanish(true)
	}
	guests.Range(func(_, tab any) bool {
		tab.(interface{ vanish(bool) }).vanish(true)
		return true
	})
}

// parallel does n things, some at a time.
func parallel(atOnce, n int, do func(i int) error) error {
	var next atomic.Int64
	errs := make([]error, atOnce)
	var all sync.WaitGroup
	for worker := range atOnce {
		all.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if errs[worker] = do(i); errs[worker] != nil {
					return
				}
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// 2,000 events of one socket are handled in the order in which they were sent, however they come.
func TestEventsInOrder(t *testing.T) {
	t.Parallel()
	n := start(t)
	const events = 2000
	for _, transport := range []string{"websocket", "polling", "upgrade"} {
		t.Run(transport, func(t *testing.T) {
			next, done := 0, make(chan string, 1)
			tab := must[*tab](t)(n.open(visit{user: "order", transport: strings.Replace(transport, "upgrade", "polling", 1),
				acked: func(id int) {
					if id != next {
						select {
						case done <- fmt.Sprintf("ack %d came when %d was next", id, next):
						default:
						}
					}
					if next++; next == events {
						done <- ""
					}
				}}))
			for at := 0; at < events; at += 100 {
				var packets []string
				for i := at; i < at+100; i++ {
					packets = append(packets, fmt.Sprintf(`42%d["get_online_users"]`, i))
				}
				if err := tab.write(packets...); err != nil {
					t.Fatalf("at %d: %v", at, err)
				}
				if transport == "upgrade" && at == events/2 {
					if err := tab.link.(*polling).upgrade(); err != nil {
						t.Fatal(err)
					}
				}
			}
			select {
			case wrong := <-done:
				if wrong != "" {
					t.Error(wrong)
				}
			case <-tab.gone:
				t.Errorf("gone after %d acks: %v", next, tab.err)
			case <-time.After(patience):
				t.Error("not all were acked")
			}
			tab.leave()
		})
	}
}
