package delivery

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"log/slog"
	"sync"
	"time"

	"jobwire/internal/events"
)

// Emitter hands one packet to all sockets of a user that this process holds.
// It must not block and must keep the order in which it is called. The packet
// is the caller's again when Emit returns.
type Emitter interface {
	Emit(userID string, packet []byte, id events.ID, confirm bool) (sockets int)
}

// Config holds the knobs of a Service.
type Config struct {
	// Coalesce is the shortest time between two progress events of one job on
	// the wire. 0 sends every progress.
	Coalesce time.Duration
	// WriteBehind is how long a receipt may wait before it goes to the store;
	// 100 ms. What a crash takes away of it is repeated.
	WriteBehind time.Duration
	// SweepEvery is the pause between two sweeps of the store; 1 minute.
	SweepEvery time.Duration
	// ReplayWindow is how many unsent bytes a replay lets pile up in its
	// socket's queue; 64 KiB. One event may go over it.
	ReplayWindow int
	// ReplayStall ends a replay whose socket took nothing for so long; 30 s.
	ReplayStall time.Duration
	// Replays is how many replays read from the store at once; 64.
	Replays int
	// Now is the clock; time.Now.
	Now func() time.Time
	// Logger takes facts about loss and failure; slog.Default().
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.WriteBehind <= 0 {
		c.WriteBehind = 100 * time.Millisecond
	}
	if c.SweepEvery <= 0 {
		c.SweepEvery = time.Minute
	}
	if c.ReplayWindow <= 0 {
		c.ReplayWindow = 64 << 10
	}
	if c.ReplayStall <= 0 {
		c.ReplayStall = 30 * time.Second
	}
	if c.Replays <= 0 {
		c.Replays = 64
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

// Service publishes, replays and confirms. Its owner calls Close before it
// closes the Store. All methods are safe for concurrent use.
type Service struct {
	cfg     Config
	store   Store
	emitter Emitter
	stats   counters

	lanes    lanes
	paces    *paces
	receipts *receipts
	refresh  refresher
	keeper   *keeper
	packets  sync.Pool     // of *[]byte: an event on its way to the Emitter
	readers  chan struct{} // one token a replay that reads

	// gate is held for reading while a call enters; closed is guarded by it.
	gate   sync.RWMutex
	closed bool
	calls  sync.WaitGroup // calls in progress, and what they started
	loops  sync.WaitGroup // the background loops
	// closing is closed when Close begins: what only waits gives up. quit is
	// closed when the last call has ended: the loops flush and end.
	closing, quit chan struct{}
}

// New starts a service. It begins with the watchdog's deadlines that passed
// while no process watched.
func New(cfg Config, store Store, emitter Emitter) *Service {
	s := &Service{
		cfg:     cfg.withDefaults(),
		store:   store,
		emitter: emitter,
		closing: make(chan struct{}),
		quit:    make(chan struct{}),
	}
	s.lanes.init()
	s.packets.New = func() any { return new([]byte) }
	s.paces = newPaces()
	s.receipts = newReceipts()
	s.keeper = newKeeper()
	s.readers = make(chan struct{}, s.cfg.Replays)
	s.loops.Go(s.runPaces)
	s.loops.Go(s.runReceipts)
	s.loops.Go(s.runWatchdog)
	s.loops.Go(s.runSweeps)
	return s
}

// Publish stores one event and emits it to the user's sockets. The error, if
// any, has a code for the worker ([events.Error]) unless ctx was done before
// the event was stored.
func (s *Service) Publish(ctx context.Context, ev events.Event) (Result, error) {
	return s.publishOne(ctx, ev, nil)
}

// PublishAndWait is Publish, followed by waiting until a client of the user
// has confirmed the event, for at most d. Delivered is false when nobody did,
// and at once for what is never confirmed: coalesced and ignored events.
func (s *Service) PublishAndWait(ctx context.Context, ev events.Event, d time.Duration) (res Result, delivered bool, err error) {
	w := newWaiter(ev.UserID)
	res, err = s.publishOne(ctx, ev, w)
	if err != nil || res.Status == StatusCoalesced || res.Status == StatusIgnored {
		s.receipts.forget(w)
		return res, false, err
	}
	return res, s.receipts.wait(ctx, s.closing, w, d), nil
}

func (s *Service) publishOne(ctx context.Context, ev events.Event, w *waiter) (Result, error) {
	if err := check(ev); err != nil {
		return Result{}, err
	}
	p := newSingle(entryOf(ev))
	if err := s.publish(ctx, &p.publishing, w); err != nil {
		return Result{}, err
	}
	return p.answers[0].Result, p.answers[0].Err
}

// PublishBatch stores the events in one call and emits them; answers come in
// the order of the events. A bad event fails alone, a failing store fails all.
func (s *Service) PublishBatch(ctx context.Context, evs []events.Event) []Answer {
	answers := make([]Answer, len(evs))
	entries := make([]Entry, 0, len(evs))
	places := make([]int, 0, len(evs))
	for i, ev := range evs {
		if err := check(ev); err != nil {
			answers[i].Err = err
			continue
		}
		entries = append(entries, entryOf(ev))
		places = append(places, i)
	}
	if len(entries) == 0 {
		return answers
	}
	p := newPublishing(entries)
	err := s.publish(ctx, p, nil)
	for i, place := range places {
		answers[place] = p.answers[i]
		if err != nil {
			answers[place] = Answer{Err: err}
		}
	}
	return answers
}

// check repeats the few rules whose breach would harm a store. Handlers have
// parsed the event and told the worker better.
func check(ev events.Event) error {
	if err := events.CheckUserID(ev.UserID); err != nil {
		return err
	}
	if events.IsJob(ev.Name) && ev.JobID == "" {
		return &events.Error{Code: events.CodeMissingJobID, Field: "data.jobId", Detail: "a job event needs one"}
	}
	return nil
}

func entryOf(ev events.Event) Entry {
	e := Entry{Event: ev}
	if ev.IdempotencyKey != "" {
		e.Fingerprint = fingerprint(ev)
	}
	return e
}

// fingerprint is equal for equal bodies. JobID and Attempt are parts of Data.
func fingerprint(ev events.Event) (sum [16]byte) {
	h := sha256.New()
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], uint64(len(ev.Name)))
	h.Write(n[:])
	h.Write([]byte(ev.Name))
	h.Write(ev.Data)
	binary.BigEndian.PutUint64(n[:], uint64(ev.StaleAfter))
	h.Write(n[:])
	copy(sum[:], h.Sum(nil))
	return sum
}

// enter admits a call until Close; every true needs one s.calls.Done.
func (s *Service) enter() bool {
	s.gate.RLock()
	defer s.gate.RUnlock()
	if s.closed {
		return false
	}
	s.calls.Add(1)
	return true
}

// Close refuses new calls, waits for those in progress, emits the progress
// that coalescing still held back and hands the last receipts to the store.
// The sockets should still be there. When ctx ends first, Close returns its
// error and what was not flushed is repeated or replayed later.
func (s *Service) Close(ctx context.Context) error {
	s.gate.Lock()
	already := s.closed
	s.closed = true
	s.gate.Unlock()
	if already {
		return nil
	}
	close(s.closing)
	done := make(chan struct{})
	go func() { // ends with the last call; a store that hangs holds it
		defer close(done)
		s.calls.Wait()
		close(s.quit) // the loops flush what they hold
		s.loops.Wait()
	}()
	select {
	case <-done:
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := s.flushReceipts(ctx); err != nil {
		return err
	}
	s.receipts.forgetOutcomes() // nobody can ask for them any more
	return nil
}
