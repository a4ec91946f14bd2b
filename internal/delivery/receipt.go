package delivery

import (
	"context"
	"sync"
	"time"

	"jobwire/internal/events"
)

// receipts holds what clients have confirmed and how keyed events were
// answered, on its way to the store. Nothing stays in it for idle users.
type receipts struct {
	mu       sync.Mutex
	cursors  map[string]*cursor
	outcomes map[outcomeKey]*settled
	waiters  map[string][]*waiter
	wake     chan struct{}
}

type cursor struct {
	id    events.ID
	saved events.ID // the store has it
	pins  int       // replays that have not yet read the stored cursor
}

type outcomeKey struct{ user, key string }

type settled struct {
	outcome Outcome
	saved   int // rounds since the store has it, see outcome
}

// savedRounds is for how many rounds of WriteBehind an outcome stays after it
// was saved: 2 s.
const savedRounds = 20

// maxOutcomes bounds what piles up while a store fails. What goes over it is
// answered as "stored" when it is repeated.
const maxOutcomes = 100_000

func newReceipts() *receipts {
	return &receipts{
		cursors:  make(map[string]*cursor),
		outcomes: make(map[outcomeKey]*settled),
		waiters:  make(map[string][]*waiter),
		wake:     make(chan struct{}, 1),
	}
}

// Confirmed notes that a client of the user has received everything up to id.
func (s *Service) Confirmed(userID string, id events.ID) {
	if id.IsZero() {
		return
	}
	s.stats.receipts.Add(1)
	r := s.receipts
	r.mu.Lock()
	c := r.cursors[userID]
	if c == nil {
		c = &cursor{}
		r.cursors[userID] = c
	}
	rises := id.Compare(c.id) > 0
	if rises {
		c.id = id
		r.release(userID, id)
	}
	r.mu.Unlock()
	if rises {
		r.kick()
	}
}

// release tells those who wait for id. Called with mu held.
func (r *receipts) release(userID string, id events.ID) {
	waiting := r.waiters[userID]
	if len(waiting) == 0 {
		return
	}
	kept := waiting[:0]
	for _, w := range waiting {
		if w.id.Compare(id) <= 0 {
			close(w.done)
		} else {
			kept = append(kept, w)
		}
	}
	clear(waiting[len(kept):])
	if len(kept) == 0 {
		delete(r.waiters, userID)
	} else {
		r.waiters[userID] = kept
	}
}

// lose tells those who wait for what retention removed that no client will
// ever have it.
func (r *receipts) lose(userID string, trimmed events.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, w := range r.waiters[userID] {
		w.lost = w.lost || w.id.Compare(trimmed) <= 0
	}
	r.release(userID, trimmed)
}

func (r *receipts) kick() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// pin returns the cursor as far as it is known here, and keeps later receipts
// of the user from the store until unpin. A replay needs that: a socket that
// was already in the room when another one confirmed an event must still see
// it, so its replay has to count it as unconfirmed.
func (r *receipts) pin(user string) events.ID {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.cursors[user]
	if c == nil {
		c = &cursor{}
		r.cursors[user] = c
	}
	c.pins++
	return c.id
}

func (r *receipts) unpin(user string) {
	r.mu.Lock()
	c := r.cursors[user]
	c.pins--
	dirty := c.pins == 0 && c.id.Compare(c.saved) > 0
	if c.pins == 0 && !dirty {
		delete(r.cursors, user)
	}
	r.mu.Unlock()
	if dirty {
		r.kick()
	}
}

// settle notes how a keyed event was answered.
func (r *receipts) settle(user, key string, o Outcome) {
	r.mu.Lock()
	if len(r.outcomes) < maxOutcomes {
		r.outcomes[outcomeKey{user, key}] = &settled{outcome: o}
	}
	r.mu.Unlock()
	r.kick()
}

// outcome is how the first call with a key was answered. It is asked when
// the store had no answer yet and the first call's item is done; outcomes
// stay here for a while after they were saved, because a repeat that has just
// missed one in the store may wait for the disk before it comes here.
func (r *receipts) outcome(user, key string, id events.ID) Result {
	r.mu.Lock()
	defer r.mu.Unlock()
	if o := r.outcomes[outcomeKey{user, key}]; o != nil && o.outcome.ID == id {
		return o.outcome.result(true)
	}
	// The process that took the first call died between storing and answering.
	return Result{ID: id, Status: StatusStored, Repeated: true}
}

// take lists what the store does not have yet. again says that saved outcomes
// are still kept, which a later round forgets.
func (r *receipts) take() (batch []Settlement, again bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for user, c := range r.cursors {
		if c.pins == 0 && c.id.Compare(c.saved) > 0 {
			batch = append(batch, Settlement{UserID: user, Confirmed: c.id})
		}
	}
	for k, o := range r.outcomes {
		if o.saved > 0 {
			if o.saved++; o.saved > savedRounds {
				delete(r.outcomes, k)
			} else {
				again = true
			}
			continue
		}
		batch = append(batch, Settlement{UserID: k.user, Key: k.key, Outcome: o.outcome})
	}
	return batch, again
}

func (r *receipts) forgetOutcomes() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.outcomes)
}

// saved notes that the store has the batch.
func (r *receipts) saved(batch []Settlement) (again bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, st := range batch {
		if st.Key != "" {
			if o := r.outcomes[outcomeKey{st.UserID, st.Key}]; o != nil && o.outcome == st.Outcome {
				o.saved = 1
				if len(r.outcomes) > maxOutcomes/2 {
					o.saved = savedRounds // make room, a store that works is soon asked again
				}
			}
			continue
		}
		c := r.cursors[st.UserID]
		if c == nil {
			continue
		}
		c.saved = st.Confirmed
		if c.id == c.saved && c.pins == 0 {
			delete(r.cursors, st.UserID)
		}
	}
	return len(r.outcomes) > 0 || len(r.cursors) > 0
}

func (s *Service) runReceipts() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-s.receipts.wake:
		case <-s.quit:
			return
		}
		timer.Reset(s.cfg.WriteBehind)
		select {
		case <-timer.C:
		case <-s.quit:
			return // Close flushes
		}
		ctx, cancel := context.WithTimeout(context.Background(), refreshTimeout)
		if err := s.flushReceipts(ctx); err != nil {
			s.stats.storeFailures.Add(1)
			s.cfg.Logger.Warn("receipts could not be stored, will try again", "error", err)
		}
		cancel()
	}
}

func (s *Service) flushReceipts(ctx context.Context) error {
	batch, again := s.receipts.take()
	if len(batch) == 0 {
		if again {
			s.receipts.kick()
		}
		return nil
	}
	if err := s.store.Settle(ctx, batch); err != nil {
		s.receipts.kick()
		return err
	}
	if s.receipts.saved(batch) {
		s.receipts.kick()
	}
	return nil
}

// waiter is a worker that waits for a receipt. id is set when it is known.
type waiter struct {
	user string
	id   events.ID
	done chan struct{}
	lost bool // constant once done is closed
}

func newWaiter(user string) *waiter { return &waiter{user: user, done: make(chan struct{})} }

// expect makes the waiter wait for id. It must happen before the emission.
func (r *receipts) expect(w *waiter, id events.ID) { r.expectSince(w, id, events.ID{}) }

// expectSince is expect for an event whose receipt may have come already.
func (r *receipts) expectSince(w *waiter, id, confirmed events.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	w.id = id
	if c := r.cursors[w.user]; c != nil && c.id.Compare(confirmed) > 0 {
		confirmed = c.id
	}
	if id.Compare(confirmed) <= 0 {
		close(w.done)
		return
	}
	r.waiters[w.user] = append(r.waiters[w.user], w)
}

func (r *receipts) forget(w *waiter) {
	r.mu.Lock()
	defer r.mu.Unlock()
	waiting := r.waiters[w.user]
	for i, other := range waiting {
		if other == w {
			waiting[i] = waiting[len(waiting)-1]
			waiting[len(waiting)-1] = nil
			waiting = waiting[:len(waiting)-1]
			break
		}
	}
	if len(waiting) == 0 {
		delete(r.waiters, w.user)
	} else {
		r.waiters[w.user] = waiting
	}
}

func (r *receipts) wait(ctx context.Context, closing <-chan struct{}, w *waiter, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-w.done:
		return !w.lost
	case <-timer.C:
	case <-closing:
	case <-ctx.Done():
	}
	r.forget(w)
	select {
	case <-w.done: // at the last moment
		return !w.lost
	default:
		return false
	}
}
