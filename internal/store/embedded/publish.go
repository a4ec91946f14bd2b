package embedded

import (
	"context"

	"jobwire/internal/delivery"
	"jobwire/internal/events"
)

// Publish implements delivery.Store.
func (s *Store) Publish(ctx context.Context, userID string, entries []delivery.Entry) ([]delivery.Decision, error) {
	in, err := s.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer in.leave()
	u, err := in.lock(ctx, userID)
	if err != nil {
		return nil, err
	}
	decisions := make([]delivery.Decision, len(entries))
	d := in.decide(u)
	d.out = make([]outgoing, 0, len(entries))
	for i := range entries {
		if decisions[i], err = d.event(&entries[i]); err != nil {
			d.abandon()
			in.put(u)
			return nil, err
		}
	}
	by, err := d.commit()
	if err != nil {
		in.fail(err)
		in.put(u)
		return nil, in.unavailable()
	}
	if !by.over() {
		u.release()
		if err := in.wait(nil, by); err != nil {
			in.lose(u)
			return nil, err
		}
		if err := u.acquire(context.Background(), in); err != nil {
			in.lose(u)
			return nil, err
		}
	}
	in.deliver(u) // releases u
	if in.isDead() {
		in.lost.Store(userID, nil)
		return nil, in.unavailable()
	}
	n := 0
	for i := range decisions {
		switch dec := &decisions[i]; dec.Verdict {
		case delivery.Accepted:
			dec.Sockets, dec.Held = d.out[n].emission.Wait()
			n++
		case delivery.Repeated:
			dec.Sockets = s.sockets(userID)
		}
	}
	return decisions, nil
}

// abandon ends a decision that an error has met: a read that failed, and then all of it is forgotten with the instance, or a
// full store, and then nothing was accepted.
func (d *decision) abandon() {
	if d.batch != nil {
		_ = d.batch.Close()
	}
	if d.u.dirty && !d.in.isDead() {
		d.in.flusher.add(d.u)
	}
}

// Confirm implements delivery.Store.
func (s *Store) Confirm(ctx context.Context, cursors []delivery.Cursor) error {
	in, err := s.enter(ctx)
	if err != nil {
		return err
	}
	defer in.leave()
	for _, c := range cursors {
		u, err := in.lock(ctx, c.UserID)
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
			s.confirmed(c)
		}
	}
	return nil
}

// Cursor implements delivery.Store.
func (s *Store) Cursor(ctx context.Context, userID string) (confirmed, dropped events.ID, err error) {
	in, err := s.enter(ctx)
	if err != nil {
		return confirmed, dropped, err
	}
	defer in.leave()
	u, err := in.lock(ctx, userID)
	if err != nil {
		return confirmed, dropped, err
	}
	defer in.put(u)
	return u.confirmed, u.log.dropped, nil
}
