package embedded

import (
	"context"
	"slices"
	"sync/atomic"

	"jobwire/internal/delivery"
	"jobwire/internal/events"
)

// audience is the feeds that are told what happens. It is never changed: another one takes its place.
type audience struct {
	feeds []delivery.Feed
	calls atomic.Int64 // of those who tell them something
}

// Subscribe implements delivery.Store.
func (s *Store) Subscribe(feed delivery.Feed) (cancel func()) {
	own := &struct{ delivery.Feed }{feed} // one of several of the same
	s.changeAudience(func(feeds []delivery.Feed) []delivery.Feed { return append(feeds, own) })
	return func() {
		s.changeAudience(func(feeds []delivery.Feed) []delivery.Feed {
			return slices.DeleteFunc(feeds, func(f delivery.Feed) bool { return f == own })
		})
	}
}

// changeAudience returns when nobody tells the former audience anything any more.
func (s *Store) changeAudience(change func(feeds []delivery.Feed) []delivery.Feed) {
	s.audienceMu.Lock()
	defer s.audienceMu.Unlock()
	old := s.audience.Load()
	s.audience.Store(&audience{feeds: change(slices.Clone(old.feeds))})
	untilZero(context.Background(), &old.calls)
}

// enterAudience returns the feeds to tell; leave must follow.
func (s *Store) enterAudience() *audience {
	for {
		a := s.audience.Load()
		a.calls.Add(1)
		if s.audience.Load() == a {
			return a
		}
		a.leave()
	}
}

func (a *audience) leave() { a.calls.Add(-1) }

// each tells every feed something.
func (s *Store) each(tell func(delivery.Feed)) {
	a := s.enterAudience()
	defer a.leave()
	for _, feed := range a.feeds {
		tell(feed)
	}
}

// Follow implements delivery.Store. Here the feeds are told of every user.
func (s *Store) Follow(ctx context.Context, userID string) (place events.ID, err error) {
	in, u, err := s.begin(ctx, userID)
	if err != nil {
		return place, err
	}
	defer in.leave()
	defer in.put(u)
	if len(u.groups) > 0 {
		return u.groups[0].from, nil
	}
	return u.last, nil
}

// Unfollow implements delivery.Store.
func (s *Store) Unfollow(string) {}

// Disconnect implements delivery.Store.
func (s *Store) Disconnect(ctx context.Context, userID, reason string) (sockets int, err error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	s.each(func(feed delivery.Feed) { sockets += feed.Disconnect(userID, reason) })
	return sockets, nil
}

// Confirm implements delivery.Store.
func (s *Store) Confirm(ctx context.Context, cursors []delivery.Cursor) error {
	for _, c := range cursors {
		in, u, err := s.begin(ctx, c.UserID)
		if err != nil {
			return err
		}
		if c.Confirmed.Compare(u.last) > 0 {
			c.Confirmed = u.last // nothing above it can have been received
		}
		raised := c.Confirmed.Compare(u.confirmed) > 0
		if raised {
			u.confirmed, u.rewrite = c.Confirmed, true
			in.flusher.add(u)
		}
		in.put(u)
		if raised {
			s.each(func(feed delivery.Feed) { feed.Confirmed(c) })
		}
		in.leave()
	}
	return nil
}

// Cursor implements delivery.Store.
func (s *Store) Cursor(ctx context.Context, userID string) (confirmed, dropped events.ID, err error) {
	in, u, err := s.begin(ctx, userID)
	if err != nil {
		return confirmed, dropped, err
	}
	defer in.leave()
	defer in.put(u)
	return u.confirmed, u.log.dropped, nil
}
