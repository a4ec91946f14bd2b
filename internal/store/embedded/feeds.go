package embedded

import (
	"context"
	"slices"
	"sync/atomic"

	"jobwire/internal/delivery"
	"jobwire/internal/events"
)

// outgoing is a delivery, and what becomes of it.
type outgoing struct {
	delivery.Delivery
	emission delivery.Emission
}

// group is what one call tells the feeds of its user, all at once.
type group struct {
	out  []outgoing
	from events.ID // the place before the first
	by   *round    // it leaves when this is over; nil when nothing must be on the disk
}

// deliver hands to the feeds what is as durable as it must be, in the order of places, and has them emit it. Rounds end in
// their order, so when one is over, all that is lined up before what it carries may leave too. The caller holds the user's
// lock; deliver gives it and the caller's reference back.
func (in *instance) deliver(u *user) {
	subs := in.s.subscribers()
	var run []*subscription
	func() {
		defer in.put(u)
		for len(u.groups) > 0 && u.groups[0].by.over() && !in.isDead() {
			g := u.groups[0]
			u.groups[0] = nil
			u.groups = u.groups[1:]
			for i := range g.out {
				o := &g.out[i]
				o.emission.Expect(len(subs))
				o.Delivery.Emission = &o.emission
				for _, sub := range subs {
					if sub.feed.Deliver(&o.Delivery) && !slices.Contains(run, sub) {
						run = append(run, sub)
					}
				}
			}
		}
		if len(u.groups) == 0 {
			u.groups = nil
		}
	}()
	for _, sub := range run {
		sub.feed.Run(u.name)
	}
	leaveAll(subs)
}

// subscription is a feed that is told what happens, until it is cancelled.
type subscription struct {
	feed  delivery.Feed
	gone  atomic.Bool
	calls atomic.Int64
	idle  chan struct{} // tells cancel that a last call has ended
}

// Subscribe implements delivery.Store.
func (s *Store) Subscribe(feed delivery.Feed) (cancel func()) {
	sub := &subscription{feed: feed, idle: make(chan struct{}, 1)}
	s.subsMu.Lock()
	defer s.subsMu.Unlock()
	s.setSubs(append(slices.Clone(s.subs()), sub))
	return func() {
		s.subsMu.Lock()
		s.setSubs(slices.DeleteFunc(slices.Clone(s.subs()), func(other *subscription) bool { return other == sub }))
		s.subsMu.Unlock()
		sub.gone.Store(true)
		for sub.calls.Load() != 0 {
			<-sub.idle
		}
	}
}

func (s *Store) subs() []*subscription {
	if list := s.feeds.Load(); list != nil {
		return *list
	}
	return nil
}

func (s *Store) setSubs(subs []*subscription) { s.feeds.Store(&subs) }

// subscribers returns the feeds to tell, each entered: leaveAll must follow. Mostly that is the list as it is.
func (s *Store) subscribers() []*subscription {
	subs := s.subs()
	for i, sub := range subs {
		if sub.enter() {
			continue
		}
		entered := slices.Clone(subs[:i])
		for _, sub := range subs[i+1:] {
			if sub.enter() {
				entered = append(entered, sub)
			}
		}
		return entered
	}
	return subs
}

func (sub *subscription) enter() bool {
	sub.calls.Add(1)
	if sub.gone.Load() {
		sub.leave()
		return false
	}
	return true
}

func (sub *subscription) leave() {
	if sub.calls.Add(-1) == 0 && sub.gone.Load() {
		select {
		case sub.idle <- struct{}{}:
		default:
		}
	}
}

func leaveAll(subs []*subscription) {
	for _, sub := range subs {
		sub.leave()
	}
}

// lose gives up a user's turn because the instance has ended: what was lined up is told to no feed, though the disk may have
// it.
func (in *instance) lose(u *user) {
	in.lost.Store(u.name, nil)
	in.drop(u)
}

// tellLost tells the feeds of whom an instance that has ended may have left something untold. It comes before the next one
// takes calls: nothing newer may be delivered, or confirmed, first.
func (s *Store) tellLost(old *instance) {
	subs := s.subscribers()
	defer leaveAll(subs)
	old.lost.Range(func(name, _ any) bool {
		for _, sub := range subs {
			sub.feed.Lost(name.(string))
		}
		return true
	})
}

// Follow implements delivery.Store. Here the feeds are told of every user.
func (s *Store) Follow(ctx context.Context, userID string) (events.ID, error) {
	in, err := s.enter(ctx)
	if err != nil {
		return events.ID{}, err
	}
	defer in.leave()
	u, err := in.lock(ctx, userID)
	if err != nil {
		return events.ID{}, err
	}
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
	subs := s.subscribers()
	defer leaveAll(subs)
	for _, sub := range subs {
		sockets += sub.feed.Disconnect(userID, reason)
	}
	return sockets, nil
}

func (s *Store) sockets(userID string) (n int) {
	subs := s.subscribers()
	defer leaveAll(subs)
	for _, sub := range subs {
		n += sub.feed.Sockets(userID)
	}
	return n
}

func (s *Store) confirmed(c delivery.Cursor) {
	subs := s.subscribers()
	defer leaveAll(subs)
	for _, sub := range subs {
		sub.feed.Confirmed(c)
	}
}
