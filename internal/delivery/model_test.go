package delivery_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"jobwire/internal/delivery"
	"jobwire/internal/events"
)

// The model lets random workers, tabs and failures loose on services, in virtual time, and checks whatever reaches a tab, as
// it does, against the reference: see conn. JOBWIRE_MODEL_RUNS sets how many seeds it takes, JOBWIRE_MODEL_SEED takes one again;
// goroutines do not take turns in the same way every time, so that may need some runs.
func TestModel(t *testing.T) {
	runs := 12
	if testing.Short() {
		runs = 4
	}
	if v := os.Getenv("JOBWIRE_MODEL_RUNS"); v != "" {
		runs, _ = strconv.Atoi(v)
	}
	once, _ := strconv.ParseUint(os.Getenv("JOBWIRE_MODEL_SEED"), 10, 64)
	for range runs {
		seed := once
		if seed == 0 {
			seed = rand.Uint64()
		}
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { newModel(t, seed).run() })
		})
	}
}

var modelUsers = []string{"ann", "bob"}

type model struct {
	*testing.T
	seed uint64
	rnd  *rand.Rand // of the test's own goroutine
	ref  *reference
	calm bool // nothing fails
	cfg  delivery.Config
	// The most that these take: an answer of the store on its way back, an emission, a client to look at what it got.
	backTime, emitTime, lookTime time.Duration

	// Decided events, by user and data, the latest decision of each; guarded by ref.mu.
	decided map[[2]string]*refEntry

	mu       sync.Mutex
	procs    []*process // nil while one is down
	services int        // of each process
	doomed   sync.WaitGroup
	trouble  error // what the store answers now; errHang: it does not
	chance   *rand.Rand
	serial   int
	attempts map[string]uint32       // about the current one, by user and job
	confirms map[string][]refConfirm // what clients have confirmed, by user
	keys     []events.Event          // recent ones with an idempotency key
	stage    stage
	settled  sync.WaitGroup // tabs that are not there to stay
}

type stage int

const (
	stageWild    stage = iota
	stageSettled       // nothing fails any more, tabs come to stay
	stageQuiet         // workers stop
	stageOver          // tabs go
)

// process is what a crash takes at once: services that share a handle of the reference.
type process struct {
	store *handle
	nodes []*node
}

type node struct {
	*delivery.Service
	hub   *hub
	proc  *process
	conns map[*conn]bool // guarded by model.mu
	down  chan struct{}
	sent  map[[2]string]int // to how many sockets a place was emitted; guarded by hub.mu
}

var errHang = errors.New("hangs")

func newModel(t *testing.T, seed uint64) *model {
	m := &model{T: t, seed: seed, rnd: rand.New(rand.NewPCG(seed, 0)), chance: rand.New(rand.NewPCG(seed, 1))}
	m.decided = make(map[[2]string]*refEntry)
	m.attempts = make(map[string]uint32)
	m.confirms = make(map[string][]refConfirm)
	m.calm = m.rnd.IntN(3) == 0
	m.cfg = delivery.Config{
		WriteBehind: 10 * time.Millisecond, StallEvery: 20 * time.Millisecond, SweepEvery: time.Second,
		ReplayWindow: 1000, ReplayStall: time.Second, Logger: quiet,
	}
	if m.rnd.IntN(4) > 0 {
		m.cfg.Coalesce = 20 * time.Millisecond
	}
	m.ref = newReference()
	if m.rnd.IntN(2) == 0 {
		m.ref.limits.Messages = 10 + m.rnd.IntN(20)
	}
	slow := time.Duration(1+m.rnd.IntN(8)) * time.Millisecond
	m.backTime = time.Duration(m.rnd.IntN(3)*m.rnd.IntN(3)*m.rnd.IntN(5)) * time.Millisecond
	m.emitTime = time.Duration(m.rnd.IntN(3)*m.rnd.IntN(3)*400) * time.Microsecond
	m.lookTime = time.Duration(m.rnd.IntN(3)*m.rnd.IntN(3)) * time.Millisecond
	m.ref.sync = func() time.Duration { return m.some(slow) }
	m.ref.on = m.atStore
	m.ref.decided = func(user string, e *refEntry) { m.decided[[2]string{user, string(e.Data)}] = e }
	procs := 1
	m.services = 1
	switch m.rnd.IntN(3) {
	case 1:
		m.services = 2
	case 2:
		procs = 2
		m.ref.lag = func() time.Duration { return m.some(slow) }
	}
	m.procs = make([]*process, procs)
	for i := range m.procs {
		m.procs[i] = m.start()
	}
	return m
}

// some is a random time up to most.
func (m *model) some(most time.Duration) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return time.Duration(m.chance.Int64N(int64(most) + 1))
}

// atStore is what happens at the beginning of a call to the store.
func (m *model) atStore(ctx context.Context, op, _ string) error {
	m.mu.Lock()
	late := time.Duration(m.chance.IntN(3)*m.chance.IntN(1000)) * time.Microsecond
	err := m.trouble
	m.mu.Unlock()
	switch err {
	case nil:
		return wait(ctx, late)
	case errHang:
		<-ctx.Done()
		return ctx.Err()
	}
	return err
}

func (m *model) start() *process {
	p := &process{store: m.ref.open()}
	for range m.services {
		n := &node{hub: newHub(), proc: p, conns: make(map[*conn]bool), down: make(chan struct{}), sent: make(map[[2]string]int)}
		n.hub.onEmit = func(string, frame) { sleep(m.some(m.emitTime) - m.emitTime/2) } // the stream is busy
		n.Service = delivery.New(m.cfg, late{p.store, m}, counting{n.hub, n})
		p.nodes = append(p.nodes, n)
	}
	return p
}

// late is a store whose answers take a while to come back.
type late struct {
	*handle
	m *model
}

func (l late) Follow(ctx context.Context, userID string) (events.ID, error) {
	defer func() { sleep(l.m.some(l.m.backTime)) }()
	return l.handle.Follow(ctx, userID)
}

func (l late) Read(ctx context.Context, q delivery.Query) (delivery.Page, error) {
	defer func() { sleep(l.m.some(l.m.backTime)) }()
	return l.handle.Read(ctx, q)
}

func (l late) Jobs(ctx context.Context, q delivery.JobsQuery) (delivery.JobsPage, error) {
	defer func() { sleep(l.m.some(l.m.backTime)) }()
	return l.handle.Jobs(ctx, q)
}

// counting is a hub that keeps account of what its answers were.
type counting struct {
	*hub
	node *node
}

func (c counting) Emit(user string, packet []byte, place events.ID, receipt bool) int {
	n := c.hub.Emit(user, packet, place, receipt)
	c.hub.mu.Lock()
	defer c.hub.mu.Unlock()
	c.node.sent[[2]string{user, place.String()}] += n
	return n
}

// stuck fails the test if what begins now does not end within a minute.
func (m *model) stuck(what string) (ended func() bool) {
	return time.AfterFunc(time.Minute, func() { panic(fmt.Sprintf("seed %d: %s does not end", m.seed, what)) }).Stop
}

func (m *model) run() {
	defer m.stuck("the test")()
	var workers, tabs sync.WaitGroup
	for i := range 4 {
		workers.Go(func() { m.work(rand.New(rand.NewPCG(m.seed, 100+uint64(i)))) })
	}
	for i := range 4 {
		m.settled.Add(1)
		tabs.Go(func() { m.browse(modelUsers[i/2], rand.New(rand.NewPCG(m.seed, 200+uint64(i)))) })
	}
	for range 40 {
		time.Sleep(time.Duration(20+m.rnd.IntN(100)) * time.Millisecond)
		if !m.calm {
			m.fail()
		}
	}
	m.enter(stageSettled)
	m.settled.Wait()
	sleep(time.Duration(m.rnd.IntN(200)) * time.Millisecond)
	m.enter(stageQuiet)
	workers.Wait()
	time.Sleep(3 * time.Second) // receipts, throttles, watches
	m.enter(stageOver)
	tabs.Wait()
	m.checkNewcomers()
	time.Sleep(time.Second)
	for _, p := range m.procs {
		m.stop(p)
	}
	m.doomed.Wait()
}

// fail lets something go wrong.
func (m *model) fail() {
	i := m.rnd.IntN(len(m.procs))
	switch m.rnd.IntN(10) {
	case 0:
		m.set(errors.New("no"))
	case 1:
		m.set(errHang)
	case 2: // a restart
		m.stop(m.take(i))
	case 3: // kill -9
		p := m.take(i)
		p.store.kill()
		m.bury(p)
	case 4: // kill -9 of everything, the store with it
		var procs []*process
		for i := range m.procs {
			procs = append(procs, m.take(i))
		}
		m.ref.crash(m.rnd)
		for _, p := range procs {
			m.bury(p)
		}
	default:
		return
	}
	sleep(time.Duration(m.rnd.IntN(100)) * time.Millisecond)
	m.set(nil)
	for i := range m.procs {
		m.mu.Lock()
		if m.procs[i] == nil {
			m.procs[i] = m.start()
		}
		m.mu.Unlock()
	}
}

func (m *model) set(trouble error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.trouble = trouble
}

// take takes a process out of use.
func (m *model) take(i int) *process {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.procs[i]
	m.procs[i] = nil
	return p
}

// stop ends a process as a restart does. Its sockets are there until then.
func (m *model) stop(p *process) {
	for _, n := range p.nodes {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		if err := n.Close(ctx); err != nil {
			m.Errorf("close: %v", err)
		}
		cancel()
	}
	if m.at(stageOver) {
		for _, n := range p.nodes {
			if left := n.Idle(); left != "" {
				m.Errorf("left in memory: %s", left)
			}
		}
		m.ref.mu.Lock()
		if len(p.store.follows) > 0 || p.store.unfollow > 0 {
			m.Errorf("followed: %v; unfollowed in vain: %d times", p.store.follows, p.store.unfollow)
		}
		m.ref.mu.Unlock()
	}
	p.store.kill()
	m.bury(p)
}

// bury closes the sockets of a process that is dead, and ends its goroutines.
func (m *model) bury(p *process) {
	for _, n := range p.nodes {
		close(n.down)
		m.mu.Lock()
		for c := range n.conns {
			c.leave()
		}
		m.mu.Unlock()
		m.doomed.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
			defer cancel()
			_ = n.Close(ctx) // its store answers nothing but errors
			p.store.network.Wait()
			if n := n.Stats().Disorder; n != 0 {
				m.Errorf("%d deliveries out of order", n)
			}
		})
	}
}

// node is a random one that is up.
func (m *model) node(rnd *rand.Rand) *node {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p := m.procs[rnd.IntN(len(m.procs))]; p != nil {
		return p.nodes[rnd.IntN(len(p.nodes))]
	}
	return nil
}

func (m *model) enter(s stage) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stage = s
}

// at reports whether a stage has begun.
func (m *model) at(s stage) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.stage >= s
}

// work is a worker: it publishes this and that, repeats itself, comes late.
func (m *model) work(rnd *rand.Rand) {
	for last := 0; last < 3; {
		if m.at(stageQuiet) {
			last++ // in quick succession
		} else {
			sleep(time.Duration(rnd.IntN(20)*rnd.IntN(20)) * 100 * time.Microsecond)
		}
		n := m.node(rnd)
		if n == nil {
			continue
		}
		evs := []events.Event{m.event(rnd)}
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		ended := m.stuck("a call")
		var answers []delivery.Answer
		var err error
		switch rnd.IntN(10) {
		case 0:
			for range rnd.IntN(10) {
				evs = append(evs, m.event(rnd))
			}
			answers, err = n.PublishBatch(ctx, evs)
		case 1:
			var res delivery.Result
			var delivered, waited bool
			begin := time.Now()
			d := time.Duration(1+rnd.IntN(300)) * time.Millisecond
			if res, delivered, waited, err = n.PublishAndWait(ctx, evs[0], d); err == nil {
				answers = []delivery.Answer{{Result: res}}
				m.checkWait(evs[0], res, delivered, waited, time.Since(begin) >= d)
			}
		default:
			var res delivery.Result
			if res, err = n.Publish(ctx, evs[0]); err == nil {
				answers = []delivery.Answer{{Result: res}}
			}
		}
		ended()
		cancel()
		if err != nil {
			m.checkError(err)
		}
		for i, a := range answers {
			if a.Err != nil {
				m.checkError(a.Err)
			} else {
				m.checkAnswer(n, evs[i], a.Result)
			}
		}
	}
}

// event is a random one.
func (m *model) event(rnd *rand.Rand) events.Event {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.keys) > 0 && rnd.IntN(10) == 0 {
		return m.keys[rnd.IntN(len(m.keys))] // once more
	}
	m.serial++
	user, job := modelUsers[rnd.IntN(len(modelUsers))], fmt.Sprint("job", rnd.IntN(3))
	data := fmt.Sprintf(`{"n":%d,"jobId":%q}`, m.serial, job)
	if rnd.IntN(4) == 0 {
		data = fmt.Sprintf(`{"n":%d,"text":%q}`, m.serial, strings.Repeat("x", 400))
	}
	ev := event(user, "note", "", data)
	kind := rnd.IntN(12)
	switch {
	case kind < 5:
		ev.Name, ev.Kind = events.JobProgress, events.Progress
	case kind < 6: // a name of the worker's own, its data a string
		ev.Name, ev.Kind = "frame_done", events.Progress
	case kind < 7:
		ev.Name, ev.Kind = events.JobCompleted, events.Completed
	case kind < 8:
		ev.Name, ev.Kind = "clip_lost", events.Failed
	}
	if ev.Name == "frame_done" || ev.Name == "clip_lost" || ev.Kind == events.Message && rnd.IntN(2) == 0 {
		ev.Data = []byte(fmt.Sprintf(`"%d"`, m.serial))
	}
	if ev.Kind != events.Message {
		ev.JobID = job
		current := m.attempts[user+job]
		switch rnd.IntN(8) {
		case 0, 1, 2:
			ev = attempt(current, ev)
		case 3:
			m.attempts[user+job]++
			ev = attempt(current+1, ev)
		case 4:
			ev = attempt(uint32(rnd.IntN(int(current)+1)), ev) // late, perhaps
		}
		if ev.Kind == events.Progress && rnd.IntN(5) == 0 {
			ev.StaleAfter = time.Duration(30+rnd.IntN(200)) * time.Millisecond
		}
	}
	if rnd.IntN(5) == 0 {
		ev.IdempotencyKey = fmt.Sprint(m.serial)
		if m.keys = append(m.keys, ev); len(m.keys) > 10 {
			m.keys = m.keys[1:]
		}
	}
	return ev
}

func (m *model) checkError(err error) {
	if m.calm || code(err) == "" && !errors.Is(err, context.DeadlineExceeded) {
		m.Errorf("a worker is told %v", err)
	}
}

func (m *model) checkAnswer(n *node, ev events.Event, res delivery.Result) {
	ok := true
	switch res.Status {
	case delivery.StatusSent:
		ok = res.Sockets > 0 && !res.ID.IsZero()
	case delivery.StatusStored:
		ok = res.Sockets == 0 && !res.ID.IsZero()
	case delivery.StatusCoalesced:
		ok = ev.Kind == events.Progress && m.cfg.Coalesce > 0 && !res.ID.IsZero()
	case delivery.StatusIgnored:
		ok = res.Reason != "" && res.ID.IsZero() && ev.Kind != events.Message
	}
	if ok && m.ref.lag == nil && !res.Repeated && (res.Status == delivery.StatusSent || res.Status == delivery.StatusStored) {
		emitted := 0
		for _, other := range n.proc.nodes {
			other.hub.mu.Lock()
			emitted += other.sent[[2]string{ev.UserID, res.ID.String()}]
			other.hub.mu.Unlock()
		}
		ok = emitted == res.Sockets
	}
	if !ok {
		m.Errorf("%s %s is answered %+v", ev.Name, ev.Data, res)
	}
}

func (m *model) checkWait(ev events.Event, res delivery.Result, delivered, waited, full bool) {
	if waited != (ev.Kind.Logged() && res.Status != delivery.StatusIgnored) {
		m.Errorf("%s waited: %v", ev.Name, waited)
	}
	m.mu.Lock()
	confirmed := slices.ContainsFunc(m.confirms[ev.UserID], func(c refConfirm) bool {
		return c.up.Compare(res.ID) >= 0
	})
	early := slices.ContainsFunc(m.confirms[ev.UserID], func(c refConfirm) bool {
		return c.up.Compare(res.ID) >= 0 && time.Since(c.at) > 100*time.Millisecond
	})
	m.mu.Unlock()
	m.ref.mu.Lock()
	u := m.ref.user(ev.UserID)
	dropped := m.ref.state(u, u.done).dropped.Compare(res.ID) >= 0
	m.ref.mu.Unlock()
	switch {
	case !waited || dropped:
	case delivered && !confirmed:
		m.Errorf("a worker is told that %s was delivered, which was not confirmed", res.ID)
	case !delivered && early && m.calm:
		m.Errorf("a worker is told that %s was not delivered, which was confirmed", res.ID)
	case !delivered && !full && m.calm:
		m.Errorf("a worker did not wait long enough for %s", res.ID)
	}
}

// page is a page in a tab, with its socket.io-client.
type page struct {
	user   string
	offset string // the client's; "" when it has none
	again  bool   // it was connected before: it may have missed something though it has no offset, and its pid tells
	bars   map[string]bar
}

type bar struct {
	state delivery.JobState
	data  string
}

// conn is one connection of a page. All that is sent to it is checked, in order:
//
//   - ids of messages rise, so that nothing comes twice, and events of a job come by their places;
//   - the replay has every message after the offset, or that was not confirmed by anybody, and the state of unfinished jobs;
//   - of what the room got since the socket was in it, nothing was left out that the replay had not shown;
//   - an answer to a question for jobs is not older than what was shown, and nothing older follows it;
//   - the offset is recovered if it is a message of the user's log.
type conn struct {
	*sink
	m         *model
	node      *node
	page      *page
	recovered bool
	confirmed events.ID // by anybody, as the replay was read

	// Guarded by m.mu.
	last     events.ID
	messages map[events.ID]bool
	shown    map[string]shown // by job

	arrived chan struct{} // there may be something to read
	read    int           // frames that the page has seen
}

type shown struct {
	place    events.ID
	answered bool // by an answer; then progress may come once more
}

// browse is a user with a browser tab.
func (m *model) browse(user string, rnd *rand.Rand) {
	p := &page{user: user, bars: make(map[string]bar)}
	for {
		n := m.node(rnd)
		if n == nil {
			time.Sleep(time.Millisecond)
			continue
		}
		last := m.at(stageSettled)
		if c := m.connect(n, p); c != nil {
			if last {
				m.settled.Done()
			}
			m.use(c, rnd, last)
			m.bye(c)
			if last {
				return
			}
		}
		sleep(time.Duration(rnd.IntN(10)*rnd.IntN(10)) * time.Millisecond)
		switch rnd.IntN(10) {
		case 0, 1: // a reload
			p = &page{user: p.user, bars: make(map[string]bar)}
		case 2: // the page signs in as the other user; its client does not know
			i := slices.Index(modelUsers, p.user)
			p = &page{user: modelUsers[1-i], offset: p.offset, again: p.again, bars: make(map[string]bar)}
		}
	}
}

func (m *model) bye(c *conn) {
	c.leave()
	m.mu.Lock()
	delete(c.node.conns, c)
	m.mu.Unlock()
	c.node.Leave(c.user)
}

// connect opens a connection and runs its replay; nil when that does not work.
func (m *model) connect(n *node, p *page) *conn {
	defer m.stuck("a connect")()
	c := &conn{m: m, node: n, page: p, messages: make(map[events.ID]bool), shown: make(map[string]shown), arrived: make(chan struct{}, 1)}
	c.sink = &sink{hub: n.hub, user: p.user, offset: p.offset, has: p.offset != "" || p.again}
	c.onFrame, c.onSkip = c.checkFrame, c.checkSkipped
	c.onLive = func(upTo events.ID) {
		c.checkReplay(upTo)
		sleep(m.some(m.emitTime))
	}
	m.mu.Lock()
	n.conns[c] = true
	m.mu.Unlock()
	known, offset := m.has(p.user, p.offset)
	if known {
		m.confirm(p.user, offset)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	replay, err := n.Open(ctx, c.sink)
	if err == nil {
		c.confirmed = m.confirmed(p.user)
		c.recovered = replay.Recovered
		if still, _ := m.has(p.user, p.offset); known == still && c.recovered != (known || !c.has) {
			m.Errorf("recovered is %v of offset %q, which %s has: %v", c.recovered, p.offset, p.user, known)
		}
		p.again = true
		if !c.recovered {
			p.bars = make(map[string]bar)
		}
		read := make(chan struct{})
		go func() {
			defer close(read)
			c.readFrames(ctx, true)
		}()
		err = replay.Run(ctx)
		cancel()
		<-read
	}
	if err != nil {
		if m.calm {
			m.Errorf("connect: %v", err)
		}
		m.bye(c)
		return nil
	}
	return c
}

// has reports whether the offset is a message in the user's log.
func (m *model) has(user, offset string) (bool, events.ID) {
	id, err := events.ParseID(offset)
	m.ref.mu.Lock()
	defer m.ref.mu.Unlock()
	u := m.ref.user(user)
	return err == nil && m.ref.state(u, u.done).has(id), id
}

func (m *model) confirm(user string, id events.ID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.confirms[user] = append(m.confirms[user], refConfirm{id, time.Now()})
}

func (m *model) confirmed(user string) events.ID {
	m.mu.Lock()
	defer m.mu.Unlock()
	return (&refUser{confirms: m.confirms[user]}).confirmed()
}

// use lets the page run for a while, or until the end: it reads, confirms, asks.
func (m *model) use(c *conn, rnd *rand.Rand, stay bool) {
	while := time.Duration(1+rnd.IntN(20)*rnd.IntN(40)) * time.Millisecond
	if stay {
		while = time.Hour
	}
	ctx, cancel := context.WithTimeout(context.Background(), while)
	defer cancel()
	read := make(chan struct{})
	go func() {
		defer close(read)
		c.readFrames(ctx, false)
	}()
	asks := 3
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-c.node.down:
			cancel()
		case <-time.After(time.Duration(1+rnd.IntN(60)) * time.Millisecond):
			switch {
			case !m.at(stageQuiet):
				c.ask(ctx, 1+rnd.IntN(4), rnd.IntN(3))
			case asks > 0: // an answer must not stand for what is not in it
				asks--
				c.ask(ctx, 1, 0)
			case m.at(stageOver):
				cancel()
				<-read
				c.checkAll()
			}
		}
	}
	<-read
}

// readFrames is the client's end: it sees frames a little later than they were sent, keeps its offset, answers pings.
func (c *conn) readFrames(ctx context.Context, quick bool) {
	for {
		most := c.m.lookTime
		if quick {
			most = min(most, 200*time.Microsecond)
		}
		f, ok := c.unread()
		if !ok {
			select {
			case <-ctx.Done():
				return
			case <-c.arrived:
			}
			continue
		}
		if wait(ctx, c.m.some(most)) != nil {
			return
		}
		c.read++
		c.sink.read(len(f.name) + len(f.data))
		c.see(f)
		if f.receipt {
			delay := c.m.some(5 * c.m.lookTime)
			if c.m.some(10) == 0 {
				delay = c.m.some(300 * time.Millisecond)
			}
			time.AfterFunc(1+delay, func() {
				c.sink.mu.Lock()
				gone := c.gone
				c.sink.mu.Unlock()
				if !gone {
					c.m.confirm(c.user, f.id)
					c.node.Confirmed(c.user, f.id)
				}
			})
		}
	}
}

// unread is the next frame that the client has not seen.
func (c *conn) unread() (f frame, ok bool) {
	c.sink.mu.Lock()
	defer c.sink.mu.Unlock()
	if ok = c.read < len(c.got); ok {
		f = c.got[c.read]
	}
	return f, ok
}

// see is what the page makes of a frame: of a job it shows what came last.
func (c *conn) see(f frame) {
	if f.page != nil {
		for _, j := range f.page.Jobs {
			b := bar{state: j.State, data: string(j.Progress)}
			if j.End != nil {
				b.data = string(j.End.Data)
			}
			c.page.bars[j.JobID] = b
		}
		return
	}
	if f.offset != "" {
		c.page.offset = f.offset
	}
	e := c.m.entry(c.user, f)
	if e == nil || e.JobID == "" {
		return
	}
	b := bar{data: f.data}
	switch {
	case e.stall:
		b = bar{delivery.JobStalled, c.page.bars[e.JobID].data}
	case e.Kind == events.Progress:
		b.state = delivery.JobRunning
	case e.Kind == events.Completed:
		b.state = delivery.JobCompleted
	case e.Kind == events.Failed:
		b.state = delivery.JobFailed
	}
	c.page.bars[e.JobID] = b
}

// entry is the decided event of a frame.
func (m *model) entry(user string, f frame) *refEntry {
	m.ref.mu.Lock()
	defer m.ref.mu.Unlock()
	return m.decided[[2]string{user, f.data}]
}

// ask asks for the jobs, and perhaps for some pages more.
func (c *conn) ask(ctx context.Context, limit, pages int) {
	q := delivery.JobsQuery{UserID: c.user, Limit: limit}
	for more := true; more; pages-- {
		answers := 0
		ended := c.m.stuck("a question")
		c.node.JobsInOrder(ctx, q, func(page delivery.JobsPage, err error) {
			answers++
			if more = err == nil && !page.Next.IsZero() && pages > 0; err == nil {
				c.checkJobs(q, &page)
				c.answer(page)
			}
			q.Before = page.Next
			if err != nil && c.m.calm && ctx.Err() == nil {
				c.m.Errorf("a question is answered with %v", err)
			}
		})
		ended()
		if answers != 1 {
			c.m.Errorf("%d answers", answers)
		}
	}
}

func (c *conn) checkJobs(q delivery.JobsQuery, page *delivery.JobsPage) {
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	for _, j := range page.Jobs {
		if s := c.shown[j.JobID]; s.place.Compare(j.Place) > 0 {
			c.m.Errorf("%s is told that %s is %s as of %s, after it was shown %s", c.user, j.JobID, j.State, j.Place, s.place)
		}
		c.shown[j.JobID] = shown{j.Place, true}
	}
	if q.Before.IsZero() && page.Next.IsZero() {
		for job := range c.shown {
			if !slices.ContainsFunc(page.Jobs, func(j delivery.Job) bool { return j.JobID == job }) {
				c.m.Errorf("%s is not told of %s, which it was shown", c.user, job)
			}
		}
	}
}

func (c *conn) checkFrame(f frame) {
	select {
	case c.arrived <- struct{}{}:
	default:
	}
	if f.page != nil {
		return
	}
	e := c.m.entry(c.user, f)
	if e == nil || e.Name != f.name {
		c.m.Errorf("%s is sent %s %s, which was not published", c.user, f.name, f.data)
		return
	}
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	place := f.place
	if f.receipt {
		if f.id.Compare(c.last) <= 0 {
			c.m.Errorf("%s is sent %s after %s", c.user, f.id, c.last)
		}
		c.last = f.id
		c.messages[f.id] = true
	} else if place.IsZero() { // state, in a replay
		place = e.Place
	}
	if place != e.Place {
		c.m.Errorf("%s is sent %s %s with place %s, it has %s", c.user, f.name, f.data, place, e.Place)
	}
	if e.JobID == "" {
		return
	}
	s := c.shown[e.JobID]
	if order := place.Compare(s.place); order < 0 || order == 0 && !(s.answered && e.Kind == events.Progress) {
		c.m.Errorf("%s is sent %s %s of %s, place %s, after it was shown %+v", c.user, f.name, f.data, e.JobID, place, s)
	}
	if e.stall && !f.receipt && s.place.IsZero() {
		c.m.Errorf("%s is told that %s stalled, without its progress", c.user, e.JobID)
	}
	c.shown[e.JobID] = shown{place: place}
}

func (c *conn) checkSkipped(f frame) {
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	if f.receipt && !c.messages[f.id] && c.m.retained(c.user, f.id) {
		c.m.Errorf("%s was in the room for message %s, and is not sent it", c.user, f.id)
	}
}

// retained reports whether retention has left a message.
func (m *model) retained(user string, id events.ID) bool {
	m.ref.mu.Lock()
	defer m.ref.mu.Unlock()
	u := m.ref.user(user)
	return m.ref.state(u, u.done).dropped.Compare(id) < 0
}

// checkReplay checks what has come of a replay that shows everything up to a place.
func (c *conn) checkReplay(upTo events.ID) {
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	c.m.ref.mu.Lock()
	defer c.m.ref.mu.Unlock()
	u := c.m.ref.user(c.user)
	state := c.m.ref.state(u, u.done)
	offset, _ := events.ParseID(c.offset)
	for _, e := range state.log {
		wanted := e.Place.Compare(c.confirmed) > 0 || c.has && c.recovered && e.Place.Compare(offset) > 0
		if wanted && e.Place.Compare(upTo) <= 0 && !c.messages[e.Place] {
			c.m.Errorf("the replay of %s up to %s lacks %s; its offset is %q, confirmed was %s", c.user, upTo, e.Place, c.offset, c.confirmed)
		}
	}
	for _, j := range state.jobs {
		if !j.ended() && j.Place.Compare(upTo) <= 0 && c.shown[j.JobID].place != j.Place {
			c.m.Errorf("the replay of %s up to %s shows %s as of %s, its state is of %s", c.user, upTo, j.JobID, c.shown[j.JobID].place, j.Place)
		}
	}
}

// checkAll checks what a page shows at the end, when all is quiet.
func (c *conn) checkAll() {
	m := c.m
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ref.mu.Lock()
	defer m.ref.mu.Unlock()
	u := m.ref.user(c.user)
	state := m.ref.state(u, len(u.calls))
	if n := len(c.got); c.read != n || u.done != len(u.calls) {
		m.Errorf("%s has read %d of %d frames; %d of %d calls are delivered", c.user, c.read, n, u.done, len(u.calls))
	}
	for _, e := range state.log {
		if e.Place.Compare(c.upTo) > 0 && !c.messages[e.Place] {
			m.Errorf("%s was not sent message %s", c.user, e.Place)
		}
	}
	for id, j := range state.jobs {
		want := bar{j.State, string(j.Progress)}
		if j.ended() {
			want.data = string(j.End.Data)
		}
		if got, known := c.page.bars[id]; got != want && (known || !j.ended()) {
			m.Errorf("%s shows %s as %+v, its record says %+v", c.user, id, got, want)
		}
	}
	if up := (&refUser{confirms: m.confirms[c.user]}).confirmed(); m.calm && u.confirmed() != up {
		m.Errorf("clients of %s have confirmed messages up to %s, the store knows of %s", c.user, up, u.confirmed())
	}
	for id := range c.page.bars {
		if state.jobs[id] == nil && m.calm {
			m.Errorf("%s shows %s, of which there is no record", c.user, id)
		}
	}
}

// checkNewcomers connects a new page of each user. conn checks what it is shown.
func (m *model) checkNewcomers() {
	for _, user := range modelUsers {
		n := m.node(m.rnd)
		c := m.connect(n, &page{user: user, bars: make(map[string]bar)})
		if c == nil {
			m.Errorf("a new page of %s cannot connect", user)
			continue
		}
		m.bye(c)
	}
}
