package embedded

import (
	"context"
	"math"

	"jobwire/internal/delivery"
)

const (
	// trimStep is how much of each kind one call removes of one user beyond what its own entries bring, so that a POST stays
	// short after a lowered limit. Later calls and the sweep do the rest.
	trimStep = 64

	// headStep is how many of the oldest messages are looked up at once.
	headStep = 32
)

// cutoff is the time before which everything is too old.
func (s *Store) cutoff(now uint64) uint64 {
	if age := uint64(s.limits.Retention.Milliseconds()); now > age {
		return now - age
	}
	return 0
}

// prune forgets of the user what was kept because reading the disk might not have shown it yet.
func (u *user) prune() {
	for len(u.fresh) > 0 && u.fresh[0].by != nil && u.fresh[0].by.over() {
		if len(u.heads) < headStep && uint64(len(u.heads)+len(u.fresh)) == u.log.messages {
			u.heads = append(u.heads, logEntry{id: u.fresh[0].id, at: u.fresh[0].at, size: u.fresh[0].size})
		}
		u.fresh = u.fresh[1:]
	}
	if len(u.fresh) == 0 {
		u.fresh = nil
	}
	for len(u.replies) > 0 && u.replies[0].by != nil && u.replies[0].by.over() {
		if a := u.replies[0]; u.answers[a.key] == a {
			delete(u.answers, a.key)
		}
		u.replies[0] = nil
		u.replies = u.replies[1:]
	}
}

// trimMessages removes the oldest messages while there are too many, too large or too old ones. The latest always stays.
func (d *decision) trimMessages() error {
	u, limits := d.u, &d.in.s.limits
	for range trimStep {
		over := u.log.messages > uint64(limits.Messages) || u.log.bytes > uint64(limits.MessagesBytes)
		if u.log.messages <= 1 || !over && u.log.oldest >= d.cutoff {
			return nil
		}
		if gone, err := d.dropHead(over); !gone || err != nil {
			return err
		}
	}
	return nil
}

// dropHead removes the oldest message, if it is too old or anyway, and reports whether it did.
func (d *decision) dropHead(anyway bool) (gone bool, err error) {
	u := d.u
	if len(u.heads) == 0 && u.log.messages > uint64(len(u.fresh)) {
		if err := d.lookUpHeads(); err != nil {
			return false, err
		}
	}
	list := &u.heads
	if len(u.heads) == 0 {
		list = &u.fresh
	}
	if len(*list) == 0 {
		return false, nil
	}
	m := (*list)[0]
	if !anyway && m.at >= d.cutoff {
		u.log.oldest = m.at
		return false, nil
	}
	*list = (*list)[1:]
	// A message's key is written once and removed once, so that the two may vanish together at the next compaction.
	_ = d.write().SingleDelete(messageKey(u.name, m.id), nil)
	u.log.messages--
	u.log.bytes -= min(u.log.bytes, uint64(m.size))
	u.log.dropped = m.id
	d.dropped.Messages++
	d.dropped.UpTo = m.id
	if m.id.Compare(u.confirmed) > 0 {
		d.dropped.Unconfirmed++
	}
	return true, nil
}

// lookUpHeads reads what trimming must know of the oldest messages on the disk. It seeks behind what was removed, since a
// walk over that would be slow.
func (d *decision) lookUpHeads() error {
	u := d.u
	lower, upper := next(messageKey(u.name, u.log.dropped)), past(userKey(u.name, kindMessage))
	if len(u.fresh) > 0 {
		upper = messageKey(u.name, u.fresh[0].id)
	}
	var heads []logEntry
	var c codec
	var m message
	err := d.in.read(func() error {
		return d.in.scan(lower, upper, func(key, value []byte) bool {
			c.decode(value, "a message", &m)
			heads = append(heads, logEntry{id: trailingID(key), at: m.at, size: m.size()})
			return len(heads) < headStep
		})
	})
	if err == nil {
		u.heads = heads
	}
	return err
}

// drop removes a job.
func (d *decision) drop(j *job) {
	u := d.u
	u.rewrite = true // its place was perhaps the last one
	delete(u.jobs, j.name)
	j.order.unlink()
	u.jobsBytes -= j.size()
	j.gone, j.deadline, j.indexed = true, 0, 0
	d.rewrite(j)
	d.dropped.Jobs++
	if !j.finished() {
		d.dropped.Running++
	}
}

// trimJobs removes jobs while there are too many or too large ones: the oldest finished ones, then the oldest others; never
// the one that has just changed.
func (d *decision) trimJobs(latest *job) {
	u, limits := d.u, &d.in.s.limits
	for range trimStep {
		if len(u.jobs) <= limits.Jobs && u.jobsBytes <= limits.JobsBytes {
			return
		}
		j := u.finished.oldest()
		if j == nil || j == latest {
			j = u.running.oldest()
		}
		if j == nil || j == latest {
			return
		}
		d.drop(j)
	}
}

// oldestAt is the time of the oldest that a user has; 0 when there is nothing.
func (u *user) oldestAt() uint64 {
	oldest := uint64(math.MaxUint64)
	if u.log.messages > 0 {
		oldest = u.log.oldest
	}
	for _, l := range []*list[job]{&u.finished, &u.running} {
		if j := l.oldest(); j != nil {
			oldest = min(oldest, j.updated)
		}
	}
	if u.keys > 0 {
		oldest = min(oldest, u.oldestKey)
	}
	if oldest == math.MaxUint64 {
		return 0
	}
	return oldest
}

// sweepStep is how many users one step of a sweep looks at.
const sweepStep = 128

// Sweep implements delivery.Store. It finds users by the ages of the oldest that they have.
func (s *Store) Sweep(ctx context.Context) (swept delivery.Swept, err error) {
	in, err := s.enter(ctx)
	if err != nil {
		return swept, err
	}
	defer in.leave()
	s.health.sweeping.Store(true)
	defer func() { s.health.sweeping.Store(swept.More) }()
	found, _, err := in.timed(spaceAge, s.cutoff(in.clock()), sweepStep)
	if err != nil {
		return swept, err
	}
	swept.More = len(found) == sweepStep
	var last *round
	for _, e := range found {
		var dropped delivery.Dropped
		by, more, err := in.sweepUser(ctx, e.user, e.ms, &dropped)
		swept.More = swept.More || more
		if dropped != (delivery.Dropped{}) {
			if swept.Dropped == nil {
				swept.Dropped = make(map[string]delivery.Dropped)
			}
			swept.Dropped[e.user] = dropped
		}
		if err != nil {
			return swept, err
		}
		if by != nil {
			last = by
		}
	}
	err = in.wait(ctx, last)
	for _, e := range found { // who has nothing left was kept in memory until this was on the disk
		in.drop(in.users.get(e.user))
	}
	return swept, err
}

// timed reads at most limit entries before a time of an index by time, and the time of the next one; 0 when there is none.
func (in *instance) timed(space byte, before uint64, limit int) (found []timed, next uint64, err error) {
	var entries []timed
	var after timed
	err = in.read(func() error {
		return in.scan([]byte{space}, []byte{space + 1}, func(key, _ []byte) bool {
			e := parseTimed(key)
			if e.ms >= before || len(entries) == limit {
				after = e
				return false
			}
			entries = append(entries, e)
			return true
		})
	})
	if err != nil {
		return nil, 0, err
	}
	return entries, after.ms, nil
}

// sweepUser removes what is too old of one user, and the user when nothing is left.
func (in *instance) sweepUser(ctx context.Context, name string, aged uint64, dropped *delivery.Dropped) (by *round, more bool, err error) {
	u, err := in.lock(ctx, name)
	if err != nil {
		return nil, false, err
	}
	defer in.put(u)
	if len(u.groups) > 0 {
		return nil, true, nil // something is on its way; the next step finds it all here
	}
	d := in.decide(u)
	d.dropped = dropped
	d.write().remove(ageKey(aged, name))
	if u.aged != aged { // an entry that a crash or an earlier one has left behind
		return d.commit(), false, nil
	}
	before := int64(u.log.bytes) + int64(u.jobsBytes)
	removed := 0
	for gone := true; gone && removed < trimStep && u.log.messages > 0; removed++ {
		if gone, err = d.dropHead(false); err != nil {
			return nil, false, err
		}
	}
	for _, l := range []*list[job]{&u.finished, &u.running} {
		for ; removed < 2*trimStep && l.oldest() != nil && l.oldest().updated < d.cutoff; removed++ {
			d.drop(l.oldest())
		}
	}
	if err := d.forgetKeys(0); err != nil {
		return nil, false, err
	}
	in.s.health.removed.Add(before - int64(u.log.bytes) - int64(u.jobsBytes))
	u.rewrite = true
	u.aged = 0 // encode enters it again at what is the oldest now
	if u.log.messages == 0 && len(u.jobs) == 0 && u.keys == 0 {
		raise(&in.floor, u.last.Ms+1) // later places must stay above what the user has had
		u.userRecord = userRecord{}
	}
	oldest := u.oldestAt()
	return d.commit(), oldest != 0 && oldest < d.cutoff, nil
}
