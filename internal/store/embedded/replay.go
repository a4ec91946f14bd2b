package embedded

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"jobwire/internal/delivery"
	"jobwire/internal/events"
)

// Read implements delivery.Store.
func (s *Store) Read(ctx context.Context, q delivery.Query) (p delivery.Page, err error) {
	in, err := s.enter(ctx)
	if err != nil {
		return p, err
	}
	defer in.leave()
	u, err := in.lock(ctx, q.UserID)
	if err != nil {
		return p, err
	}
	now := in.clock()
	p = delivery.Page{Recovered: true, Place: u.last}
	at := q.Next
	if at == nil {
		at = &delivery.QueryState{Until: u.last}
		if q.HasOffset {
			counts := q.Offset.Compare(u.last) <= 0
			if counts {
				if err := in.settle(ctx, &u); err != nil { // the log must show it
					return p, err
				}
				if counts, err = in.hasMessage(u, q.Offset, now); err != nil {
					in.put(u)
					return p, err
				}
			}
			at.From, p.Recovered = q.Offset, counts
		}
		if !q.HasOffset || !p.Recovered {
			at.From = u.confirmed
			if at.From.Compare(q.Confirmed) < 0 {
				at.From = q.Confirmed
			}
			if at.From.Compare(q.Since) > 0 {
				at.From = q.Since
			}
		}
	} else {
		p.Place = at.Until
	}
	states := u.states(at, q, s.cutoff(now))
	if err := in.settleAndPut(ctx, u); err != nil {
		return p, err
	}
	if err := in.read(func() error { return in.fill(&p, q, *at, states, s.cutoff(now)) }); err != nil || !q.HasOffset {
		return p, err
	}
	// What was dropped since the page before is not in this one.
	if u, err = in.lock(ctx, q.UserID); err != nil {
		return p, err
	}
	p.Recovered = p.Recovered && (u.log.dropped.Compare(at.From) <= 0 || u.log.dropped.Compare(at.After) <= 0)
	in.put(u)
	return p, nil
}

// settle waits until what is lined up for a user is on the disk and has been told. It may give the lock back for a while;
// after an error the caller has neither lock nor reference.
func (in *instance) settle(ctx context.Context, u **user) error {
	if len((*u).groups) == 0 {
		return nil
	}
	name := (*u).name
	if err := in.settleAndPut(ctx, *u); err != nil {
		return err
	}
	var err error
	*u, err = in.lock(ctx, name)
	return err
}

// settleAndPut is settle for a caller that is done with the user.
func (in *instance) settleAndPut(ctx context.Context, u *user) error {
	if len(u.groups) == 0 {
		in.put(u)
		return nil
	}
	by := u.groups[len(u.groups)-1].by
	u.release()
	if err := in.wait(ctx, by); err != nil {
		in.drop(u)
		return err
	}
	if err := u.acquire(ctx, in); err != nil {
		in.drop(u)
		return err
	}
	in.deliver(u)
	if in.isDead() {
		return in.unavailable()
	}
	return nil
}

// hasMessage reports whether the log has a message, and that is not too old.
func (in *instance) hasMessage(u *user, id events.ID, now uint64) (has bool, err error) {
	if id.Compare(u.log.dropped) <= 0 {
		return false, nil
	}
	err = in.read(func() error {
		b, closer, err := in.db.Get(messageKey(u.name, id))
		if errors.Is(err, pebble.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		m := decodeMessage(b)
		has = m.at >= in.s.cutoff(now)
		return closer.Close()
	})
	return has, err
}

// states returns the records of unfinished jobs that may be part of a page, in the order of places: no more than fit.
func (u *user) states(at *delivery.QueryState, q delivery.Query, cutoff uint64) (recs []delivery.Record) {
	wanted := func(place events.ID) bool { return place.Compare(at.After) > 0 && place.Compare(at.Until) <= 0 }
	type state struct {
		j       *job
		place   events.ID
		stalled bool
	}
	var found []state
	for j := u.running.oldest; j != nil; j = j.next {
		if j.updated < cutoff {
			continue
		}
		if wanted(j.progress.place) { // a zero place is not
			found = append(found, state{j, j.progress.place, false})
		}
		logged := j.stalled.Compare(at.From) > 0 && j.stalled.Compare(u.log.dropped) > 0 // then the message says it
		if j.state == jobStalled && !logged && wanted(j.stalled) {
			found = append(found, state{j, j.stalled, true})
		}
	}
	slices.SortFunc(found, func(a, b state) int { return a.place.Compare(b.place) })
	size := 0
	for i, f := range found {
		if i > q.Limit || i > 1 && size > q.Bytes {
			break // one more than fits, so that the page knows that there are more
		}
		r := delivery.Record{Place: f.place, Name: f.j.progress.event}
		if f.stalled {
			r.Name, r.Data = events.JobStalled, delivery.StalledData(f.j.name, time.UnixMilli(int64(f.j.silent)))
		} else {
			r.Data = bytes.Clone(f.j.progress.data)
		}
		size += len(r.Data)
		recs = append(recs, r)
	}
	return recs
}

// maxLook is how many messages one page looks at.
const maxLook = 2048

// fill puts messages and states into a page by their places, until it is full.
func (in *instance) fill(p *delivery.Page, q delivery.Query, at delivery.QueryState, states []delivery.Record, cutoff uint64) error {
	size, full := 0, false
	add := func(r delivery.Record) bool {
		if n := len(p.Records); n > 0 && (n >= q.Limit || size+len(r.Data) > q.Bytes) {
			full = true
			return false
		}
		size += len(r.Data)
		p.Records = append(p.Records, r)
		at.After = r.Place
		return true
	}
	after := at.From
	if after.Compare(at.After) < 0 {
		after = at.After
	}
	looked := 0
	err := in.scan(next(messageKey(q.UserID, after)), next(messageKey(q.UserID, at.Until)), func(key, value []byte) bool {
		place, m := trailingID(key), decodeMessage(value)
		for ; len(states) > 0 && states[0].Place.Compare(place) < 0; states = states[1:] {
			if !add(states[0]) {
				return false
			}
		}
		if looked++; looked > maxLook {
			full = true
			return false
		}
		if m.at < cutoff {
			p.Recovered = p.Recovered && !q.HasOffset
			at.After = place
			return true
		}
		return add(delivery.Record{Place: place, Name: m.name, Data: bytes.Clone(m.data), Message: true})
	})
	for ; !full && err == nil && len(states) > 0; states = states[1:] {
		add(states[0])
	}
	if full {
		p.Next = &at
	}
	return err
}
