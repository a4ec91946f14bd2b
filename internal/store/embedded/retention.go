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
func (d *decision) cutoff() uint64 { return d.in.s.cutoff(d.now) }

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
func (d *decision) trimMessages(dropped *delivery.Dropped) error {
	u, cutoff := d.u, d.cutoff()
	for range trimStep {
		over := u.log.messages > uint64(d.in.s.limits.Messages) || u.log.bytes > uint64(d.in.s.limits.MessagesBytes)
		if u.log.messages <= 1 || !over && u.log.oldest >= cutoff {
			return nil
		}
		head, err := d.head()
		if err != nil || head == nil {
			return err
		}
		if !over && head.at >= cutoff {
			u.log.oldest = head.at
			return nil
		}
		if err := d.dropHead(dropped); err != nil {
			return err
		}
	}
	return nil
}

// head returns the oldest message; nil when there is none.
func (d *decision) head() (*logEntry, error) {
	u := d.u
	if len(u.heads) == 0 {
		if err := d.lookUpHeads(); err != nil {
			return nil, err
		}
	}
	switch {
	case len(u.heads) > 0:
		return &u.heads[0], nil
	case len(u.fresh) > 0:
		return &u.fresh[0], nil
	}
	return nil, nil
}

// lookUpHeads reads what trimming must know of the oldest messages on the disk. It seeks behind what was removed, since a
// walk over that would be slow.
func (d *decision) lookUpHeads() error {
	u := d.u
	if u.log.messages == uint64(len(u.fresh)) {
		return nil
	}
	upper := past(userKey(u.name, kindMessage))
	if len(u.fresh) > 0 {
		upper = messageKey(u.name, u.fresh[0].id)
	}
	return d.in.read(func() error {
		return d.in.scan(next(messageKey(u.name, u.log.dropped)), upper, func(key, value []byte) bool {
			m := decodeMessage(value)
			u.heads = append(u.heads, logEntry{id: trailingID(key), at: m.at, size: m.size()})
			return len(u.heads) < headStep
		})
	})
}

// dropHead removes the oldest message, which head has found.
func (d *decision) dropHead(dropped *delivery.Dropped) error {
	u := d.u
	list := &u.heads
	if len(u.heads) == 0 {
		list = &u.fresh
	}
	m := (*list)[0]
	*list = (*list)[1:]
	// A message's key is written once and removed once, so that the two may vanish together at the next compaction.
	if err := d.write().SingleDelete(messageKey(u.name, m.id), nil); err != nil {
		return err
	}
	u.log.messages--
	u.log.bytes -= min(u.log.bytes, uint64(m.size))
	u.log.dropped = m.id
	dropped.Messages++
	dropped.UpTo = m.id
	if m.id.Compare(u.confirmed) > 0 {
		dropped.Unconfirmed++
	}
	return nil
}

// drop removes a job.
func (d *decision) drop(j *job, dropped *delivery.Dropped) {
	u := d.u
	u.rewrite = true // its place was perhaps the last one
	delete(u.jobs, j.name)
	j.unlink()
	u.jobsBytes -= j.size()
	j.gone, j.deadline, j.indexed = true, 0, 0
	d.change(j)
	dropped.Jobs++
	if !j.finished() {
		dropped.Running++
	}
}

// trimJobs removes jobs while there are too many or too large ones: the oldest finished ones, then the oldest others; never
// the one that has just changed.
func (d *decision) trimJobs(latest *job, dropped *delivery.Dropped) {
	u := d.u
	for range trimStep {
		if len(u.jobs) <= d.in.s.limits.Jobs && u.jobsBytes <= d.in.s.limits.JobsBytes {
			return
		}
		j := u.finished.oldest
		if j == nil || j == latest {
			j = u.running.oldest
		}
		if j == nil || j == latest {
			return
		}
		d.drop(j, dropped)
	}
}

// oldestAt is the time of the oldest that a user has; 0 when there is nothing.
func (u *user) oldestAt() uint64 {
	oldest := uint64(math.MaxUint64)
	if u.log.messages > 0 {
		oldest = u.log.oldest
	}
	for _, l := range []*jobList{&u.finished, &u.running} {
		if l.oldest != nil {
			oldest = min(oldest, l.oldest.updated)
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
	s.sweeping.Store(true)
	defer func() { s.sweeping.Store(swept.More) }()
	type entry struct {
		ms   uint64
		user string
	}
	var found []entry
	err = in.read(func() error {
		return in.scan([]byte{spaceAge}, ageKey(s.cutoff(in.clock()), ""), func(key, _ []byte) bool {
			ms, user := parseAge(key)
			found = append(found, entry{ms, user})
			return len(found) < sweepStep
		})
	})
	swept.More = len(found) == sweepStep
	var last *round
	for _, e := range found {
		if err != nil {
			return swept, err
		}
		var dropped delivery.Dropped
		var by *round
		var more bool
		by, more, err = in.sweepUser(ctx, e.user, e.ms, &dropped)
		swept.More = swept.More || more
		if dropped != (delivery.Dropped{}) {
			if swept.Dropped == nil {
				swept.Dropped = make(map[string]delivery.Dropped)
			}
			swept.Dropped[e.user] = dropped
		}
		if by != nil {
			last = by
		}
	}
	if err != nil {
		return swept, err
	}
	return swept, in.wait(ctx, last)
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
	cutoff := d.cutoff()
	before := int64(u.log.bytes) + int64(u.jobsBytes)
	if u.aged != aged { // an entry that a crash or an earlier one has left behind
		return in.removeAge(d, aged)
	}
	removed := 0
	for ; removed < trimStep && u.log.messages > 0; removed++ {
		head, err := d.head()
		if err != nil {
			return nil, false, err
		}
		if head == nil {
			break
		}
		if u.log.oldest = head.at; head.at >= cutoff {
			break
		}
		if err := d.dropHead(dropped); err != nil {
			return nil, false, err
		}
	}
	for _, l := range []*jobList{&u.finished, &u.running} {
		for ; removed < 2*trimStep && l.oldest != nil && l.oldest.updated < cutoff; removed++ {
			d.drop(l.oldest, dropped)
		}
	}
	if err := d.forgetKeys(0); err != nil {
		return nil, false, err
	}
	if err := d.write().Delete(ageKey(aged, name), nil); err != nil {
		return nil, false, err
	}
	in.s.removed.Add(before - int64(u.log.bytes) - int64(u.jobsBytes))
	u.rewrite = true
	u.aged = 0 // encode enters it again at what is the oldest now
	if u.log.messages == 0 && len(u.jobs) == 0 && u.keys == 0 {
		raise(&in.floor, u.last.Ms+1) // later places must stay above what the user has had
		u.userRecord = userRecord{}
	}
	oldest := u.oldestAt()
	by, err = d.commit()
	return by, oldest != 0 && oldest < cutoff, err
}

func (in *instance) removeAge(d *decision, aged uint64) (by *round, more bool, err error) {
	if err := d.write().Delete(ageKey(aged, d.u.name), nil); err != nil {
		return nil, false, err
	}
	by, err = d.commit()
	return by, false, err
}
