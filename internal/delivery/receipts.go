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
	watchers map[string]map[*watcher]struct{}
}

// Confirmed notes that a client of the user has received every message up to id.
func (s *Service) Confirmed(userID string, id events.ID) {
	s.stats.Receipts.Add(1)
	if s.raise(userID, id) && s.cfg.OnReceipt != nil {
		s.cfg.OnReceipt(max(0, time.Since(time.UnixMilli(int64(id.Ms)))))
	}
}

// raise raises a user's cursor. It reports false when it is known to be there already.
func (s *Service) raise(userID string, id events.ID) bool {
	r := &s.receipts
	r.mu.Lock()
	rises := id.Compare(r.cursors[userID]) > 0
	if rises {
		r.cursors[userID] = id
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

// settleBatch is how many cursors one call to the store raises.
const settleBatch = 128

// flushReceipts hands all cursors to the store, step by step. A cursor that has been raised meanwhile is taken once more.
func (s *Service) flushReceipts(ctx context.Context) error {
	r := &s.receipts
	for {
		var batch []Cursor
		r.mu.Lock()
		for user, id := range r.cursors {
			if batch = append(batch, Cursor{user, id}); len(batch) == settleBatch {
				break
			}
		}
		r.mu.Unlock()
		if len(batch) == 0 {
			return nil
		}
		if err := s.store.Confirm(ctx, batch); err != nil {
			return err
		}
		r.mu.Lock()
		for _, c := range batch {
			if r.cursors[c.UserID] == c.Confirmed {
				delete(r.cursors, c.UserID)
			}
		}
		r.mu.Unlock()
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
	if res.Repeated && s.ask(ctx, ev.UserID, res.ID) {
		return res, true, true, nil // its receipt came before the watcher
	}
	s.receipts.mu.Lock()
	w.place = res.ID
	w.decide()
	s.receipts.mu.Unlock()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case delivered = <-w.decided:
	case <-timer.C:
		delivered = s.ask(ctx, ev.UserID, res.ID)
	case <-s.closing:
	case <-ctx.Done():
	}
	return res, delivered, true, nil
}

// watcher is a worker that waits for a receipt. It is guarded by receipts.mu.
type watcher struct {
	place     events.ID // of the message; zero until it is known
	confirmed events.ID // the highest cursor so far
	dropped   events.ID // up to where retention has dropped messages since the watcher is there
	decided   chan bool // told once whether the message was confirmed, or never will be
}

// decide tells what has become of the message. What comes later changes it no more: no client is shown what was dropped first.
func (w *watcher) decide() {
	delivered := w.place.Compare(w.confirmed) <= 0
	if w.place.IsZero() || !delivered && w.place.Compare(w.dropped) > 0 {
		return
	}
	select {
	case w.decided <- delivered:
	default:
	}
}

// watch begins to look at a user's cursor. What the store does not have yet of it counts, for a repeat of what was confirmed.
func (r *receipts) watch(userID string) *watcher {
	r.mu.Lock()
	defer r.mu.Unlock()
	w := &watcher{confirmed: r.cursors[userID], decided: make(chan bool, 1)}
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

// tell tells those who look at a user's cursor up to where messages have been confirmed, or dropped.
func (r *receipts) tell(userID string, confirmed, dropped events.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for w := range r.watchers[userID] {
		if confirmed.Compare(w.confirmed) > 0 {
			w.confirmed = confirmed
		}
		if dropped.Compare(w.dropped) > 0 {
			w.dropped = dropped
		}
		w.decide()
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
