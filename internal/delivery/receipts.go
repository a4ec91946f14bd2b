package delivery

import (
	"context"
	"sync"
	"time"

	"jobwire/internal/events"
)

// receipts are the cursors that clients have raised, on their way to the store, and the workers that wait for one. Nothing
// stays in it for idle users.
type receipts struct {
	mu       sync.Mutex
	cursors  map[string]events.ID // what the store does not have yet
	unsaved  []string             // the users of cursors whose turn has not come, in the order in which they were raised
	watchers map[string]map[*watcher]struct{}
}

// Confirmed notes that a client of the user has received every message up to id.
func (s *Service) Confirmed(userID string, id events.ID) {
	s.stats.receipts.Add(1)
	if s.raise(userID, id) && s.cfg.OnReceipt != nil {
		s.cfg.OnReceipt(max(0, time.Since(time.UnixMilli(int64(id.Ms)))))
	}
}

// raise raises a user's cursor. It reports false when it is known to be there already.
func (s *Service) raise(userID string, id events.ID) bool {
	r := &s.receipts
	r.mu.Lock()
	before, waits := r.cursors[userID]
	rises := id.Compare(before) > 0
	if rises {
		r.cursors[userID] = id
		if !waits {
			r.unsaved = append(r.unsaved, userID)
		}
	}
	r.mu.Unlock()
	if rises {
		r.tell(userID, id, events.ID{})
	}
	return rises
}

// known is the cursor of a user as far as the store does not have it yet.
func (r *receipts) known(userID string) events.ID {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.cursors[userID]
}

// flushReceipts hands all cursors to the store, step by step.
func (s *Service) flushReceipts(ctx context.Context) error {
	for {
		batch := s.receipts.take()
		if len(batch) == 0 {
			return nil
		}
		err := s.store.Confirm(ctx, batch)
		s.receipts.saved(batch, err == nil)
		if err != nil {
			return err
		}
	}
}

// settleBatch is how many cursors one call to the store raises.
const settleBatch = 128

// take returns the next cursors for the store, at most settleBatch.
func (r *receipts) take() []Cursor {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := min(len(r.unsaved), settleBatch)
	batch := make([]Cursor, n)
	for i, user := range r.unsaved[:n] {
		batch[i] = Cursor{user, r.cursors[user]}
	}
	if r.unsaved = r.unsaved[n:]; len(r.unsaved) == 0 {
		r.unsaved = nil
	}
	return batch
}

// saved notes what has become of a batch: a cursor that the store does not have, or has raised meanwhile, takes its turn again.
func (r *receipts) saved(batch []Cursor, stored bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range batch {
		if stored && r.cursors[c.UserID] == c.Confirmed {
			delete(r.cursors, c.UserID)
		} else {
			r.unsaved = append(r.unsaved, c.UserID)
		}
	}
}

// PublishAndWait is Publish, followed for messages by waiting, for at most d, until a client of the user has confirmed it:
// delivered says whether one did. For what is never confirmed waited is false.
func (s *Service) PublishAndWait(ctx context.Context, ev events.Event, d time.Duration) (res Result, delivered, waited bool, err error) {
	w := s.receipts.watch(ev.UserID) // before the emission, which may be confirmed at once
	defer s.receipts.forget(ev.UserID, w)
	if res, err = s.Publish(ctx, ev); err != nil || res.Status == StatusIgnored || !ev.Kind.Logged() {
		return res, false, false, err
	}
	return res, s.await(ctx, ev.UserID, w, res, d), true, nil
}

// watcher is a worker that waits for a receipt. It is guarded by receipts.mu.
type watcher struct {
	place     events.ID // of the message; zero until it is known
	confirmed events.ID // the highest cursor since the watcher is there
	dropped   events.ID // up to where retention has dropped messages since
	changed   chan struct{}
}

// outcome says whether the message was confirmed, and whether it never will be any more.
func (w *watcher) outcome() (delivered, lost bool) {
	if w.place.IsZero() {
		return false, false
	}
	delivered = w.place.Compare(w.confirmed) <= 0
	return delivered, !delivered && w.place.Compare(w.dropped) <= 0
}

// watch begins to look at a user's cursor.
func (r *receipts) watch(userID string) *watcher {
	w := &watcher{changed: make(chan struct{}, 1)}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.watchers[userID] == nil {
		r.watchers[userID] = make(map[*watcher]struct{})
	}
	r.watchers[userID][w] = struct{}{}
	return w
}

func (r *receipts) forget(userID string, w *watcher) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if delete(r.watchers[userID], w); len(r.watchers[userID]) == 0 {
		delete(r.watchers, userID)
	}
}

// tell tells those who look at a user's cursor up to where messages have been confirmed, or dropped, as of now. No client is
// shown any more what was dropped first.
func (r *receipts) tell(userID string, confirmed, dropped events.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for w := range r.watchers[userID] {
		if delivered, lost := w.outcome(); delivered || lost {
			continue
		}
		if confirmed.Compare(w.confirmed) > 0 {
			w.confirmed = confirmed
		}
		if dropped.Compare(w.dropped) > 0 {
			w.dropped = dropped
		}
		notify(w.changed)
	}
}

// await waits until the message of a result is confirmed, for at most d.
func (s *Service) await(ctx context.Context, userID string, w *watcher, res Result, d time.Duration) (delivered bool) {
	s.receipts.mu.Lock()
	w.place = res.ID
	s.receipts.mu.Unlock()
	if res.Repeated && (res.ID.Compare(s.receipts.known(userID)) <= 0 || s.ask(ctx, userID, res.ID)) {
		return true // its receipt came before the watcher
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		s.receipts.mu.Lock()
		delivered, lost := w.outcome()
		s.receipts.mu.Unlock()
		if delivered || lost {
			return delivered
		}
		select {
		case <-w.changed:
			continue
		case <-timer.C:
			return s.ask(ctx, userID, res.ID)
		case <-s.closing:
		case <-ctx.Done():
		}
		return false
	}
}

// askTimeout bounds by how much the last question may outlast a worker's wait.
const askTimeout = time.Second

// ask asks the store whether a message is confirmed: the news of it may have been lost on its way from another node.
func (s *Service) ask(ctx context.Context, userID string, id events.ID) bool {
	if !s.enter() {
		return false
	}
	defer s.calls.Done()
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	confirmed, dropped, err := s.store.Cursor(ctx, userID)
	return err == nil && id.Compare(confirmed) <= 0 && id.Compare(dropped) > 0
}
