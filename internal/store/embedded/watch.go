package embedded

import (
	"context"
	"math"
	"sync/atomic"
	"time"

	"jobwire/internal/delivery"
	"jobwire/internal/events"
)

// expectDue lowers the time before which no deadline is on the disk.
func (in *instance) expectDue(ms uint64) {
	if ms == 0 {
		return
	}
	for old := in.due.Load(); old > ms && !in.due.CompareAndSwap(old, ms); old = in.due.Load() {
	}
}

// raise sets n to at least to.
func raise(n *atomic.Uint64, to uint64) {
	for old := n.Load(); old < to && !n.CompareAndSwap(old, to); old = n.Load() {
	}
}

// watch sets or clears the deadline of a job. The entry among the deadlines stays where it is until its time comes, and only
// then moves on: progress that comes often does not rewrite it each time.
func (d *decision) watch(j *job, staleAfter time.Duration) {
	if staleAfter <= 0 {
		j.deadline = 0
		return
	}
	if j.deadline == 0 {
		d.durable = true // a crash of ours must not leave the job unwatched
	}
	j.deadline = d.now + uint64(max(staleAfter.Milliseconds(), 1))
	if j.indexed == 0 || j.indexed > j.deadline {
		d.durable = true
		j.indexed = j.deadline
	}
}

// Stall implements delivery.Store. Asking while nothing is due costs nothing.
func (s *Store) Stall(ctx context.Context, limit int) (stalled int, err error) {
	in, err := s.enter(ctx)
	if err != nil {
		return 0, err
	}
	defer in.leave()
	now := in.clock()
	if in.due.Load() > now || limit <= 0 {
		return 0, nil
	}
	type claim struct {
		u  *user
		by *round
	}
	var failed error
	for more := true; more && failed == nil; {
		// Before the index is read: rounds that end from here on lower it again, earlier ones are seen.
		in.due.Store(math.MaxUint64)
		want := limit - stalled
		found, next, err := in.timed(spaceDue, now+1, want)
		if err != nil {
			return 0, err
		}
		in.expectDue(next)
		var moved *round
		var claims []claim
		for _, e := range found {
			var u *user
			if u, failed = in.lock(ctx, e.user); failed != nil { // what was claimed so far is still told
				in.expectDue(e.ms)
				break
			}
			did, by, err := in.stall(u, e.job, e.ms)
			if by != nil {
				moved = by
			}
			if did {
				stalled++
				u.release()
				claims = append(claims, claim{u, by})
			} else {
				in.put(u)
			}
			if failed = err; err != nil { // the instance has ended
				break
			}
		}
		// What was claimed or moved must be gone from the index before it is read again.
		ended := in.wait(context.Background(), moved)
		for _, c := range claims {
			if err := c.u.acquire(context.Background(), in); err != nil {
				in.drop(c.u)
				ended = err
			} else if err := in.finish(context.Background(), c.u, c.by); err != nil {
				ended = err
			}
			if ended != nil {
				in.lost.Store(c.u.name, nil)
			}
		}
		if ended != nil {
			return 0, ended
		}
		more = stalled < limit && len(found) == want && moved != nil
	}
	return stalled, failed
}

// stall lets a job stall, if its deadline has really passed. The caller holds the user's lock.
func (in *instance) stall(u *user, name string, indexed uint64) (did bool, by *round, err error) {
	d := in.decide(u)
	d.dropped = new(delivery.Dropped)
	j := u.jobs[name]
	switch {
	case j == nil || j.indexed != indexed: // of a job that is gone or has moved on
		if j == nil || j.written != indexed {
			d.write().remove(dueKey(indexed, u.name, name))
		}
	case j.deadline == 0 || j.deadline > d.now: // a later event has moved or cleared it
		j.indexed = j.deadline
		d.rewrite(j)
		d.durable = true
	default:
		did = true
		prev := u.last
		place := d.take()
		data := delivery.StalledData(name, time.UnixMilli(int64(j.updated)))
		if err := d.append(place, events.JobStalled, data); err != nil {
			return false, nil, err
		}
		j.state, j.stalled, j.silent = jobStalled, place, j.updated
		j.deadline, j.indexed = 0, 0
		d.change(j, place)
		d.out = append(d.out, outgoing{Delivery: delivery.Delivery{
			UserID: u.name, Place: place, Prev: prev, Name: events.JobStalled, Data: data, Kind: events.Message, JobID: name,
		}})
	}
	return did, d.commit(), nil
}
