package embedded

import (
	"context"
	"math"
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
	var claims []claim
	var failed error
	for stalled < limit {
		found, err := in.overdue(now, limit)
		if err != nil {
			return 0, err
		}
		var moved *round
		for _, e := range found {
			if stalled == limit {
				in.expectDue(e.ms) // the next call goes on there
				break
			}
			var u *user
			if u, failed = in.lock(ctx, e.user); failed != nil {
				in.expectDue(e.ms)
				break // what was claimed so far is still told
			}
			did, by, err := in.stall(u, e.job, e.ms)
			if err != nil { // the instance has ended
				in.lost.Store(u.name, nil)
				in.put(u)
				failed = err
				break
			}
			if by != nil {
				moved = by
			}
			if !did {
				in.put(u)
				continue
			}
			stalled++
			u.release()
			claims = append(claims, claim{u, by})
		}
		// What was claimed or moved must be gone from the index before it is read again.
		if err := in.wait(nil, moved); err != nil {
			for _, c := range claims {
				in.lose(c.u)
			}
			return 0, err
		}
		for len(claims) > 0 {
			c := claims[0]
			claims = claims[1:]
			if err := c.u.acquire(context.Background(), in); err != nil {
				in.lose(c.u)
				continue
			}
			in.deliver(c.u)
			if in.isDead() {
				in.lost.Store(c.u.name, nil)
			}
		}
		if in.isDead() {
			return 0, in.unavailable()
		}
		if failed != nil {
			return stalled, failed
		}
		if len(found) < limit || moved == nil {
			break
		}
	}
	return stalled, nil
}

type overdueJob struct {
	ms        uint64
	user, job string
}

// overdue reads from the index at most limit jobs whose entry has passed, and notes when the next one will.
func (in *instance) overdue(now uint64, limit int) (found []overdueJob, err error) {
	// Before the scan: rounds that end from here on lower it again, earlier ones are seen.
	in.due.Store(math.MaxUint64)
	err = in.read(func() error {
		return in.scan([]byte{spaceDue}, []byte{spaceDue + 1}, func(key, _ []byte) bool {
			ms, user, job := parseDue(key)
			if ms > now || len(found) == limit {
				in.expectDue(ms)
				return false
			}
			found = append(found, overdueJob{ms, user, job})
			return true
		})
	})
	return found, err
}

// stall lets a job stall, if its deadline has really passed. The caller holds the user's lock.
func (in *instance) stall(u *user, name string, indexed uint64) (did bool, by *round, err error) {
	d := in.decide(u)
	j := u.jobs[name]
	switch {
	case j == nil || j.indexed != indexed: // of a job that is gone or has moved on
		if j == nil || j.written != indexed {
			err = d.write().Delete(dueKey(indexed, u.name, name), nil)
		}
	case j.deadline == 0 || j.deadline > d.now: // a later event has moved or cleared it
		j.indexed = j.deadline
		d.change(j)
		d.durable = true
	default:
		did = true
		from := u.last
		place := d.take()
		data := delivery.StalledData(name, time.UnixMilli(int64(j.updated)))
		if err = d.append(place, message{at: d.now, name: events.JobStalled, data: data}, new(delivery.Dropped)); err != nil {
			return false, nil, err
		}
		j.state, j.stalled, j.silent = jobStalled, place, j.updated
		j.last, j.updated = place, d.now
		j.deadline, j.indexed = 0, 0
		u.list(j)
		d.change(j)
		d.tell(delivery.Delivery{
			UserID: u.name, Place: place, Prev: from, Name: events.JobStalled, Data: data, Kind: events.Message, JobID: name,
		})
	}
	if err != nil {
		in.fail(err)
		return false, nil, err
	}
	by, err = d.commit()
	return did, by, err
}
