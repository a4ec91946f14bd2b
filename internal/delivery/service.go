// Package delivery carries a worker's event to every tab of its user.
//
// In flow validated events (Publish), the receipts of clients (Confirmed), newly connected sockets (Open) and their questions
// (JobsInOrder). Out flow packets, to all sockets of a user through the [Emitter], or to one socket through its [Sink].
//
// Every event takes one way: Publish → [Store] → [Feed] → stream → Emitter; publish.go has it from top to bottom. The store
// decides about an event, gives it its place among all events of its user, stores it and hands it to the feed in the order of
// places. The user's stream emits what comes, one at a time: it thins out progress, lets sockets join at a place, ends their
// replays at a place, and answers their questions at a place. So nothing older ever follows newer, and this package needs no
// other order than the store's. It keeps only what may be lost with the process.
package delivery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
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
	// WriteBehind is the pace at which receipts go to the store; 100 ms. What a crash takes of them is repeated.
	WriteBehind time.Duration
	// StallEvery and SweepEvery are the pace at which the store is asked for jobs whose deadline has passed (100 ms), and to
	// remove what is too old (1 minute).
	StallEvery, SweepEvery time.Duration
	// ReplayWindow is how many unsent bytes a replay lets pile up in its socket's queue; 64 KiB. One event may go over it.
	ReplayWindow int
	// ReplayStall ends a replay whose socket took nothing for so long; 30 s.
	ReplayStall time.Duration
	// OnReceipt, if not nil, is told how long after its emission a message was confirmed; perhaps by each of several clients.
	OnReceipt func(time.Duration)
	// Logger takes facts about loss and failure; slog.Default().
	Logger *slog.Logger
}

// storeReads is how many replays and questions read from the store at once.
const storeReads = 64

// Service publishes, replays and confirms. Its owner calls Close before it closes the Store. All methods are safe for
// concurrent use.
type Service struct {
	cfg         Config
	store       Store
	emitter     Emitter
	unsubscribe func()
	stats       Stats

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
	cfg.WriteBehind = cmp.Or(cfg.WriteBehind, 100*time.Millisecond)
	cfg.StallEvery = cmp.Or(cfg.StallEvery, 100*time.Millisecond)
	cfg.SweepEvery = cmp.Or(cfg.SweepEvery, time.Minute)
	cfg.ReplayWindow = cmp.Or(cfg.ReplayWindow, 64<<10)
	cfg.ReplayStall = cmp.Or(cfg.ReplayStall, 30*time.Second)
	cfg.Logger = cmp.Or(cfg.Logger, slog.Default())
	s := &Service{
		cfg:       cfg,
		store:     store,
		emitter:   emitter,
		streams:   streams{byUser: make(map[string]*stream)},
		throttles: throttles{wake: make(chan struct{}, 1)},
		receipts:  receipts{cursors: make(map[string]events.ID), watchers: make(map[string]map[*watcher]struct{})},
		packets:   sync.Pool{New: func() any { return new([]byte) }},
		reads:     make(chan struct{}, storeReads),
		closing:   make(chan struct{}),
	}
	s.unsubscribe = store.Subscribe((*feed)(s))
	loops, stop := context.WithCancel(context.Background())
	s.stop = stop
	for _, run := range []func(context.Context){s.runThrottles, s.runReceipts, s.runWatchdog, s.runSweeper} {
		s.loops.Go(func() { run(loops) })
	}
	return s
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

// beginRead waits until one more may read from the store; endRead must follow.
func (s *Service) beginRead(ctx context.Context) error {
	select {
	case s.reads <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *Service) endRead() { <-s.reads }

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

// The codes that workers see beside those of package events.
const (
	CodeStoreUnavailable = "store_unavailable"      // 503: nothing was stored, try again
	CodeStoreFull        = "store_full"             // 507: the store has reached its bound, nothing was stored
	CodeShuttingDown     = "shutting_down"          // 503: nothing was stored, try another node or later
	CodeKeyReused        = "idempotency_key_reused" // 422: the key came before with another body
)

var (
	// ErrStoreUnavailable says that the event was not stored. It wraps the cause.
	ErrStoreUnavailable error = &events.Error{Code: CodeStoreUnavailable, Detail: "the event store is not available, nothing was stored"}
	// ErrStoreFull says that the store has no room for the event.
	ErrStoreFull error = &events.Error{Code: CodeStoreFull, Detail: "the event store is full, nothing was stored"}
	// ErrClosed is what every call answers once Close has begun.
	ErrClosed error = &events.Error{Code: CodeShuttingDown, Detail: "the server is shutting down, nothing was stored"}
	// ErrKeyReused refuses an idempotency key that came before with another body.
	ErrKeyReused error = &events.Error{Code: CodeKeyReused, Field: "Idempotency-Key", Detail: "the key was used before for another event of this user"}
)

// failed is what a caller is told about a call that the store failed.
func (s *Service) failed(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	s.stats.StoreFailures.Add(1)
	return unavailable(err)
}

// unavailable gives a store's failure the code that workers see and keeps the cause for logs. Errors that have a code already
// pass unchanged.
func unavailable(err error) error {
	var coded *events.Error
	if err == nil || errors.As(err, &coded) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrStoreUnavailable, err)
}

// Stats are counters since the start, of this process; they go on.
type Stats struct {
	Decided       [KeyReused + 1]atomic.Uint64 // events of workers, by what the store decided
	Emitted       atomic.Uint64                // emissions to the sockets of a user
	Coalesced     atomic.Uint64                // progress held back
	Stalled       atomic.Uint64                // job_stalled events
	Receipts      atomic.Uint64                // confirmations by clients
	Replays       atomic.Uint64                // sockets that attached
	Unrecovered   atomic.Uint64                // of them, those whose offset did not count
	Replayed      atomic.Uint64                // events sent in replays
	Dropped       atomic.Uint64                // messages that retention removed
	Lost          atomic.Uint64                // of them, those that no client had confirmed
	JobsDropped   atomic.Uint64                // job records that retention removed
	StoreFailures atomic.Uint64                // calls that the store failed
	Disorder      atomic.Uint64                // deliveries that came below the place of an earlier one and were left out
}

// Stats are the counters, for reading.
func (s *Service) Stats() *Stats { return &s.stats }
