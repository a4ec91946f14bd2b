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

// Emitter is the sockets of this process. Its methods must not block.
type Emitter interface {
	// Emit hands one packet to all sockets of a user, in the order of the calls, and returns to how many. The calls for one
	// user come one at a time, not always with rising places: a socket leaves a packet out only by what its Live has said.
	// receipt asks the clients to confirm the message with that place as its id. The packet is the caller's again when Emit
	// returns.
	Emit(userID string, packet []byte, place events.ID, receipt bool) (sockets int)
	// Disconnect closes all sockets of a user and returns how many there were.
	Disconnect(userID, reason string) (sockets int)
	// Sockets counts the sockets of a user.
	Sockets(userID string) int
	// Reconnect closes the connections of a user, so that the clients come back by themselves.
	Reconnect(userID string)
}

// Config holds the knobs of a Service.
type Config struct {
	// Coalesce is the shortest time between two progress events of one job on the wire. 0 sends every progress.
	Coalesce time.Duration
	// WriteBehind is how long a receipt may wait before it goes to the store; 100 ms. What a crash takes of it is repeated.
	WriteBehind time.Duration
	// StallEvery and SweepEvery are the pace at which the store is asked for jobs whose deadline has passed (100 ms), and to
	// remove what is too old (1 minute).
	StallEvery, SweepEvery time.Duration
	// ReplayWindow is how many unsent bytes a replay lets pile up in its socket's queue; 64 KiB. One event may go over it.
	ReplayWindow int
	// ReplayStall ends a replay whose socket took nothing for so long; 30 s.
	ReplayStall time.Duration
	// Reads is how many replays and questions read from the store at once; 64.
	Reads int
	// OnReceipt, if not nil, is told how long after its emission a message was confirmed; perhaps by each of several clients.
	OnReceipt func(time.Duration)
	// Now is the clock; time.Now.
	Now func() time.Time
	// Logger takes facts about loss and failure; slog.Default().
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	for field, value := range map[*time.Duration]time.Duration{
		&c.WriteBehind: 100 * time.Millisecond, &c.StallEvery: 100 * time.Millisecond, &c.SweepEvery: time.Minute,
		&c.ReplayStall: 30 * time.Second,
	} {
		if *field <= 0 {
			*field = value
		}
	}
	if c.ReplayWindow <= 0 {
		c.ReplayWindow = 64 << 10
	}
	if c.Reads <= 0 {
		c.Reads = 64
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

// Service publishes, replays and confirms. Its owner calls Close before it closes the Store. All methods are safe for
// concurrent use.
type Service struct {
	cfg         Config
	store       Store
	emitter     Emitter
	unsubscribe func()
	stats       counters

	streams   streams
	throttles throttles
	receipts  receipts
	losses    losses
	packets   sync.Pool     // of *[]byte: an event on its way to the Emitter
	reads     chan struct{} // one token a read from the store

	// entry is held for reading while a call enters; closed is guarded by it.
	entry   sync.RWMutex
	closed  bool
	calls   sync.WaitGroup // calls in progress, and what they started
	loops   sync.WaitGroup // the background loops
	closing chan struct{}  // closed when Close begins: what only waits gives up
	stop    func()         // ends the loops, once the last call has ended
}

// New starts a service and subscribes it to the store.
func New(cfg Config, store Store, emitter Emitter) *Service {
	s := &Service{
		cfg:     cfg.withDefaults(),
		store:   store,
		emitter: emitter,
		closing: make(chan struct{}),
	}
	s.streams.init()
	s.throttles.init()
	s.receipts.init()
	s.packets.New = func() any { return new([]byte) }
	s.reads = make(chan struct{}, s.cfg.Reads)
	s.unsubscribe = store.Subscribe((*feed)(s))
	loops, stop := context.WithCancel(context.Background())
	s.stop = stop
	for _, run := range []func(context.Context){s.runThrottles, s.runReceipts, s.runWatchdog, s.runSweeper} {
		s.loops.Go(func() { run(loops) })
	}
	return s
}

// Publish stores one event and emits it to the user's sockets. The error, if any, has a code for the worker ([events.Error])
// unless ctx was done before the event was stored.
func (s *Service) Publish(ctx context.Context, ev events.Event) (Result, error) {
	entries := [1]Entry{entryOf(ev)}
	var answers [1]Answer
	if err := s.publish(ctx, ev.UserID, entries[:], answers[:]); err != nil {
		return Result{}, err
	}
	return answers[0].Result, answers[0].Err
}

// PublishAndWait is Publish, followed for messages by waiting, for at most d, until a client of the user has confirmed it:
// delivered says whether one did. For what is never confirmed waited is false.
func (s *Service) PublishAndWait(ctx context.Context, ev events.Event, d time.Duration) (res Result, delivered, waited bool, err error) {
	w := s.receipts.watch(ev.UserID) // before the emission, which may be confirmed at once
	defer s.receipts.forget(w)
	if res, err = s.Publish(ctx, ev); err != nil || res.Status == StatusIgnored || !ev.Kind.Logged() {
		return res, false, false, err
	}
	return res, s.await(ctx, w, res, d), true, nil
}

// PublishBatch stores and emits events, those of one user in their order, several users at once. Answers come in the order
// of the events. A bad event fails alone, and so do the events of a user that cannot be stored; the error says that none of
// the users' could.
func (s *Service) PublishBatch(ctx context.Context, evs []events.Event) ([]Answer, error) {
	type share struct {
		entries []Entry
		at      []int // where the answers belong
	}
	shares := make(map[string]*share)
	var order []*share
	for i, ev := range evs {
		sh := shares[ev.UserID]
		if sh == nil {
			sh = new(share)
			shares[ev.UserID] = sh
			order = append(order, sh)
		}
		sh.entries = append(sh.entries, entryOf(ev))
		sh.at = append(sh.at, i)
	}
	answers := make([]Answer, len(evs))
	errs := make([]error, len(order))
	slots := make(chan struct{}, batchUsers)
	var calls sync.WaitGroup
	for i, sh := range order {
		slots <- struct{}{}
		calls.Go(func() {
			defer func() { <-slots }()
			own := make([]Answer, len(sh.entries))
			if errs[i] = s.publish(ctx, sh.entries[0].UserID, sh.entries, own); errs[i] != nil {
				for k := range own {
					own[k] = Answer{Err: errs[i]}
				}
			}
			for k, at := range sh.at {
				answers[at] = own[k]
			}
		})
	}
	calls.Wait()
	for _, err := range errs {
		if err == nil {
			return answers, nil
		}
	}
	if len(errs) == 0 {
		return answers, nil
	}
	return nil, errs[0]
}

// batchUsers is how many users of a batch are at the store at once.
const batchUsers = 64

// publish is the way of every event: one call to the store, which hands what it accepts to the feed, and comes back when this
// process has emitted it.
func (s *Service) publish(ctx context.Context, userID string, entries []Entry, answers []Answer) error {
	if !s.enter() {
		return ErrClosed
	}
	defer s.calls.Done()
	decisions, err := s.store.Publish(ctx, userID, entries)
	if err != nil {
		return s.failed(ctx, err)
	}
	for i := range decisions {
		d := &decisions[i]
		s.stats.decided(d.Verdict)
		s.dropped(userID, d.Dropped)
		answers[i] = d.answer()
	}
	return nil
}

// failed is what a caller is told about a call that the store failed.
func (s *Service) failed(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	s.stats.storeFailures.Add(1)
	return unavailable(err)
}

func entryOf(ev events.Event) Entry {
	e := Entry{Event: ev}
	if ev.IdempotencyKey != "" {
		e.Fingerprint = fingerprint(&ev)
	}
	return e
}

// fingerprint is equal for equal bodies.
func fingerprint(ev *events.Event) (sum [16]byte) {
	h := sha256.New()
	part := func(b []byte) {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(b)))
		h.Write(n[:])
		h.Write(b)
	}
	part([]byte(ev.Name))
	part([]byte(ev.JobID))
	part(ev.Data)
	var rest [1 + 1 + 4 + 8]byte
	rest[0] = byte(ev.Kind)
	if ev.HasAttempt {
		rest[1] = 1
	}
	binary.BigEndian.PutUint32(rest[2:], ev.Attempt)
	binary.BigEndian.PutUint64(rest[6:], uint64(ev.StaleAfter))
	part(rest[:])
	copy(sum[:], h.Sum(nil))
	return sum
}

// Jobs returns one page of a user's jobs.
func (s *Service) Jobs(ctx context.Context, q JobsQuery) (JobsPage, error) {
	if !s.enter() {
		return JobsPage{}, ErrClosed
	}
	defer s.calls.Done()
	return read(s, ctx, func() (JobsPage, error) { return s.store.Jobs(ctx, q) })
}

// read calls the store for something that is read, a bounded number at once.
func read[T any](s *Service, ctx context.Context, call func() (T, error)) (result T, err error) {
	select {
	case s.reads <- struct{}{}:
	case <-ctx.Done():
		return result, ctx.Err()
	}
	defer func() { <-s.reads }()
	if result, err = call(); err != nil {
		return result, s.failed(ctx, err)
	}
	return result, nil
}

// Disconnect closes all sockets of a user, everywhere, and returns how many there were.
func (s *Service) Disconnect(ctx context.Context, userID, reason string) (sockets int, err error) {
	if !s.enter() {
		return 0, ErrClosed
	}
	defer s.calls.Done()
	if sockets, err = s.store.Disconnect(ctx, userID, reason); err != nil {
		return 0, s.failed(ctx, err)
	}
	return sockets, nil
}

// enter admits a call until Close; every true needs one s.calls.Done.
func (s *Service) enter() bool {
	s.entry.RLock()
	defer s.entry.RUnlock()
	if s.closed {
		return false
	}
	s.calls.Add(1)
	return true
}

// Close refuses new calls, waits for those in progress, emits the progress that throttles still hold back and hands the last
// receipts to the store. The sockets should still be there. When ctx ends first, Close returns its error, and what was not
// flushed is repeated or replayed later.
func (s *Service) Close(ctx context.Context) error {
	s.entry.Lock()
	already := s.closed
	s.closed = true
	s.entry.Unlock()
	if already {
		return nil
	}
	close(s.closing)
	done := make(chan error, 1)
	go func() { // ends with the last call; a store that hangs holds it
		s.calls.Wait()
		s.stop()
		s.loops.Wait()
		err := s.flushReceipts(ctx)
		s.unsubscribe()
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
