package delivery_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"jobwire/internal/delivery"
	"jobwire/internal/events"
	"jobwire/internal/store/embedded"
)

// The model test runs random workers, clients, restarts and crashes against a
// store, and compares what clients saw with a simple account of what workers
// were told. JOBWIRE_MODEL_RUNS sets how many seeds it takes.
func TestModel(t *testing.T) {
	runs := 12
	if testing.Short() {
		runs = 3
	}
	if v := os.Getenv("JOBWIRE_MODEL_RUNS"); v != "" {
		runs, _ = strconv.Atoi(v)
	}
	for _, backend := range []string{"memory", "bolt"} {
		for range runs {
			seed := rand.Uint64()
			t.Run(fmt.Sprintf("%s/seed=%d", backend, seed), func(t *testing.T) {
				dir := t.TempDir()
				synctest.Test(t, func(t *testing.T) {
					m := &model{T: t, rnd: rand.New(rand.NewPCG(seed, 1)), dir: dir, bolt: backend == "bolt"}
					m.run()
				})
			})
		}
	}
}

var modelUsers = []string{"ann", "bob"}

type model struct {
	*testing.T
	rnd   *rand.Rand
	bolt  bool
	dir   string
	store delivery.Store
	close func()
	s     *delivery.Service

	mu      sync.Mutex
	clients []*client
	// The account of what workers were told.
	durable   map[string]map[events.ID]string // data of answered durable events, by user
	confirmed map[string]events.ID
	jobs      map[string]*modelJob // by user and job
	serial    int
}

type modelJob struct {
	finished bool
	attempt  uint32
	last     string    // data of the latest accepted progress; "" when unknown
	id       events.ID // of the latest accepted event
}

// client is a browser tab: it connects, sees, remembers its offset, comes back.
type client struct {
	user   string
	sink   *sink // nil while it is away
	offset string
	first  events.ID            // what was confirmed when it came first
	seen   map[events.ID]string // everything it ever saw
	shown  map[string]string    // the progress bar of each job
}

func (m *model) open() {
	if !m.bolt {
		if m.store == nil {
			m.store = embedded.NewMemory(delivery.Limits{Events: 1 << 20}, nil)
		}
		m.close = func() {}
	} else {
		s, err := embedded.Open(m.dir, delivery.Limits{Events: 1 << 20}, embedded.Options{Logger: quiet})
		if err != nil {
			m.Fatal(err)
		}
		m.store = s
		m.close = func() {
			if err := s.Close(); err != nil {
				m.Error(err)
			}
		}
	}
	slow := &slowStore{Store: m.store, delay: func() time.Duration {
		return time.Duration(rand.IntN(3)*rand.IntN(3000)) * time.Microsecond
	}}
	m.s = beginOn(m.T, delivery.Config{Coalesce: 20 * time.Millisecond, ReplayWindow: 2000}, slow, hubOf(m))
}

// hubOf is the hub: it gives what a user's room gets to the clients there.
func hubOf(m *model) *wire {
	return &wire{onEmit: func(user string, f frame) {
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, c := range m.clients {
			if c.user == user && c.sink != nil {
				c.sink.room(f)
			}
		}
	}}
}

func (m *model) run() {
	m.durable = map[string]map[events.ID]string{}
	m.confirmed = map[string]events.ID{}
	m.jobs = map[string]*modelJob{}
	for _, u := range modelUsers {
		m.durable[u] = map[events.ID]string{}
	}
	m.open()
	for range 150 {
		switch n := m.rnd.IntN(20); {
		case n < 8:
			m.burst(1+m.rnd.IntN(4), nil)
		case n < 12:
			m.burst(1+m.rnd.IntN(4), m.someone(true))
		case n < 14:
			m.leave()
		case n < 17:
			m.confirm()
		case n < 18 && m.bolt:
			m.restart(m.rnd.IntN(2) == 0)
		default:
			time.Sleep(time.Duration(m.rnd.IntN(60)) * time.Millisecond)
		}
	}
	for _, c := range m.clients {
		if c.sink == nil {
			m.connect(c)
		}
	}
	time.Sleep(time.Second)
	m.check()
	for _, c := range m.clients {
		m.gone(c)
	}
	end(m.T, m.s)
	m.close()
}

// someone is a client that is away, or a new one.
func (m *model) someone(create bool) *client {
	var away []*client
	for _, c := range m.clients {
		if c.sink == nil {
			away = append(away, c)
		}
	}
	if len(away) > 0 && m.rnd.IntN(3) > 0 {
		return away[m.rnd.IntN(len(away))]
	}
	if !create || len(m.clients) > 12 {
		return nil
	}
	user := modelUsers[m.rnd.IntN(len(modelUsers))]
	c := &client{user: user, first: m.confirmed[user], seen: map[events.ID]string{}, shown: map[string]string{}}
	m.mu.Lock()
	m.clients = append(m.clients, c)
	m.mu.Unlock()
	return c
}

// burst lets n workers publish at once, while a client connects.
func (m *model) burst(n int, c *client) {
	var wg sync.WaitGroup
	taken := map[string]bool{} // one event of a job at a time: its worker waits for the answer
	for range n {
		user := modelUsers[m.rnd.IntN(len(modelUsers))]
		m.serial++
		ev := event(user, "note", "", fmt.Sprintf(`"n%d"`, m.serial))
		if kind := m.rnd.IntN(10); kind < 7 {
			job := strconv.Itoa(m.rnd.IntN(4))
			if taken[user+job] {
				continue
			}
			taken[user+job] = true
			ev = event(user, events.JobProgress, job, fmt.Sprintf(`"%s:p%d"`, job, m.serial))
			if kind == 0 {
				ev.Name = events.JobCompleted
			}
			if kind == 1 {
				ev.Attempt = uint32(m.rnd.IntN(100))
			}
		}
		wg.Go(func() { m.publish(ev) })
	}
	if c != nil {
		wg.Go(func() { m.connect(c) })
	}
	wg.Wait()
}

func (m *model) publish(ev events.Event) {
	res, err := m.s.Publish(context.Background(), ev)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil {
		m.Errorf("publish: %v", err)
		return
	}
	key := ev.UserID + "/" + ev.JobID
	j := m.jobs[key]
	if j == nil {
		j = &modelJob{}
		m.jobs[key] = j
	}
	if ev.Name == events.JobProgress {
		if ignored := j.finished && ev.Attempt <= j.attempt; ignored != (res.Status == delivery.StatusIgnored) {
			m.Errorf("progress of a job with %+v, attempt %d: %+v", *j, ev.Attempt, res)
		}
		if res.Status == delivery.StatusIgnored {
			return
		}
		j.finished, j.last = false, string(ev.Data)
	} else {
		m.durable[ev.UserID][res.ID] = string(ev.Data)
		j.finished = events.IsTerminal(ev.Name)
	}
	if ev.Attempt > j.attempt || ev.Attempt != 0 && events.IsTerminal(ev.Name) {
		j.attempt = ev.Attempt
	}
	if ev.JobID != "" && res.ID.Compare(j.id) <= 0 {
		m.Errorf("job %s: id %s after %s", key, res.ID, j.id)
	}
	j.id = res.ID
}

func (m *model) connect(c *client) {
	k := &sink{user: c.user, offset: c.offset, has: c.offset != ""}
	k.onFrame = func(frame) { time.Sleep(time.Duration(rand.IntN(100)) * time.Microsecond); k.drain(500) }
	m.mu.Lock()
	c.sink = k
	if !k.has && m.confirmed[c.user].Compare(c.first) > 0 {
		// It has seen nothing so far and so kept no offset: what others have
		// confirmed meanwhile is not replayed to it.
		c.first = m.confirmed[c.user]
	}
	m.mu.Unlock()
	stop := make(chan struct{})
	var network sync.WaitGroup
	network.Go(func() { // the queue drains by itself
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
				k.drain(1000)
			}
		}
	})
	recovered, err := m.s.Attach(context.Background(), k)
	close(stop)
	network.Wait()
	if err != nil {
		m.Errorf("attach: %v", err)
	}
	if !recovered && !m.bolt {
		m.Errorf("offset %s was not known", c.offset)
	}
}

// gone takes what a client has seen and ends its connection.
func (m *model) gone(c *client) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if c.sink == nil {
		return
	}
	frames := c.sink.frames()
	c.sink = nil
	for i, f := range frames {
		if i > 0 && frames[i-1].id.Compare(f.id) >= 0 {
			m.Errorf("a client of %s saw %s before %s", c.user, frames[i-1].id, f.id)
		}
		if before, ok := c.seen[f.id]; ok && before != f.data {
			m.Errorf("%s was %s and is %s", f.id, before, f.data)
		}
		c.seen[f.id] = f.data
		c.offset = f.id.String()
		if f.name == events.JobProgress {
			job := f.data[1:2]
			c.shown[job] = f.data
		}
	}
}

func (m *model) leave() {
	if len(m.clients) > 0 {
		m.gone(m.clients[m.rnd.IntN(len(m.clients))])
	}
}

// confirm lets a client answer the ping after the last durable event it has.
func (m *model) confirm() {
	if len(m.clients) == 0 {
		return
	}
	c := m.clients[m.rnd.IntN(len(m.clients))]
	if c.sink == nil {
		return
	}
	frames := c.sink.frames()
	for i := len(frames) - 1; i >= 0; i-- {
		if id := frames[i].id; frames[i].confirm {
			m.s.Confirmed(c.user, id)
			if id.Compare(m.confirmed[c.user]) > 0 {
				m.confirmed[c.user] = id
			}
			return
		}
	}
}

// restart ends the process, or lets it crash: then the next one finds the
// file as it is at this moment, whatever the last one would still have written.
func (m *model) restart(crash bool) {
	for _, c := range m.clients {
		m.gone(c)
	}
	file := filepath.Join(m.dir, embedded.FileName)
	var content []byte
	if crash {
		var err error
		if content, err = os.ReadFile(file); err != nil {
			m.Fatal(err)
		}
	}
	end(m.T, m.s)
	m.close()
	if crash {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			m.Fatal(err)
		}
		for _, j := range m.jobs {
			if !j.finished {
				j.last = "" // what was written behind may be lost
			}
		}
	}
	m.open()
}

func (m *model) check() {
	for _, c := range m.clients {
		m.gone(c)
		for id, data := range m.durable[c.user] {
			if id.Compare(c.first) > 0 && c.seen[id] != data {
				m.Errorf("a client of %s at %s, there since %s, missed %s %s", c.user, c.offset, c.first, id, data)
			}
		}
		for key, j := range m.jobs {
			user, job := key[:3], key[4:]
			if user == c.user && job != "" && !j.finished && j.last != "" && c.shown[job] != j.last {
				m.Errorf("a client of %s shows %s, the last accepted is %s", user, c.shown[job], j.last)
			}
		}
	}
	for _, user := range modelUsers {
		fresh := &client{user: user, first: m.confirmed[user], seen: map[events.ID]string{}, shown: map[string]string{}}
		m.connect(fresh)
		got := fresh.sink.frames()
		m.gone(fresh)
		for id, data := range m.durable[user] {
			if id.Compare(m.confirmed[user]) > 0 && fresh.seen[id] != data {
				m.Errorf("%s %s of %s is unconfirmed and was not replayed", id, data, user)
			}
		}
		for key, j := range m.jobs {
			if key[:3] == user && key[4:] != "" && !j.finished && j.last != "" && fresh.shown[key[4:]] != j.last {
				m.Errorf("a new client of %s shows %q, the last accepted is %s", user, fresh.shown[key[4:]], j.last)
			}
		}
		rising(m.T, got)
	}
	if _, err := m.s.Jobs(context.Background(), "ann"); err != nil && !errors.Is(err, context.Canceled) {
		m.Error(err)
	}
}
