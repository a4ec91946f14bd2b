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
	answered []answered
	stage    stage
	settled  sync.WaitGroup // tabs that are not there to stay
}

// answered is a message that a worker was told is stored.
type answered struct {
	user string
	id   events.ID
	data string
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
	switch {
	case err == nil:
		return wait(ctx, late)
	case errors.Is(err, errHang):
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
	m.checkAnswered()
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
			if n := n.Stats().Disorder.Load(); n != 0 {
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
	if ev.Kind.Logged() && res.Status != delivery.StatusIgnored {
		m.mu.Lock()
		m.answered = append(m.answered, answered{ev.UserID, res.ID, string(ev.Data)})
		m.mu.Unlock()
	}
}

// checkAnswered checks that messages are what workers were told, whatever has crashed since.
func (m *model) checkAnswered() {
	m.ref.mu.Lock()
	defer m.ref.mu.Unlock()
	stored := make(map[answered]bool)
	for user, u := range m.ref.users {
		for _, c := range u.calls {
			for _, e := range c.entries {
				if e.Verdict == delivery.Accepted {
					stored[answered{user, e.Place, string(e.Data)}] = true
				}
			}
		}
	}
	for _, a := range m.answered {
		if !stored[a] {
			m.Errorf("%s of %s was answered and is not stored: %s", a.id, a.user, a.data)
		}
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
