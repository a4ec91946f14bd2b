package embedded

import (
	"context"
	"slices"

	"jobwire/internal/delivery"
	"jobwire/internal/events"
)

// Publish implements delivery.Store.
func (s *Store) Publish(ctx context.Context, userID string, entries []delivery.Entry) ([]delivery.Decision, error) {
	in, u, err := s.begin(ctx, userID)
	if err != nil {
		return nil, err
	}
	defer in.leave()
	decisions := make([]delivery.Decision, len(entries))
	d := in.decide(u)
	d.out = make([]outgoing, 0, len(entries))
	for i := range entries {
		if err := d.event(&entries[i], &decisions[i]); err != nil {
			// A read has failed, and then all is forgotten with the instance, or the store is full, and nothing was accepted.
			if u.dirty && !in.isDead() {
				in.flusher.add(u)
			}
			in.put(u)
			return nil, err
		}
	}
	if err := in.finish(context.Background(), u, d.commit()); err != nil {
		in.lost.Store(userID, nil)
		return nil, err
	}
	n := 0
	for i := range decisions {
		switch dec := &decisions[i]; dec.Verdict {
		case delivery.Accepted:
			dec.Sockets, dec.Held = d.out[n].emission.Wait()
			n++
		case delivery.Repeated:
			s.each(func(feed delivery.Feed) { dec.Sockets += feed.Sockets(userID) })
		}
	}
	return decisions, nil
}

// begin lets a call in and locks its user. The caller must put the user, and leave.
func (s *Store) begin(ctx context.Context, userID string) (in *instance, u *user, err error) {
	if in, err = s.enter(ctx); err != nil {
		return nil, nil, err
	}
	if u, err = in.lock(ctx, userID); err != nil {
		in.leave()
	}
	return in, u, err
}

// lock returns a user, loaded and locked; put gives it back. Waiting for another call ends with ctx.
func (in *instance) lock(ctx context.Context, name string) (*user, error) {
	u := in.users.get(name)
	if err := u.acquire(ctx, in); err != nil {
		in.drop(u)
		return nil, err
	}
	if !u.loaded {
		if err := in.read(func() error { return in.load(u) }); err != nil {
			u.release()
			in.drop(u)
			return nil, err
		}
		u.loaded = true
	}
	return u, nil
}

// decision is one call's decisions about one user. The caller holds the user's lock for as long as it lives.
type decision struct {
	in     *instance
	u      *user
	now    uint64 // ms
	cutoff uint64 // what is before it is too old

	batch   batch             // what goes to the disk beside the user's record, jobs and answers; nil when nothing does
	out     []outgoing        // what was accepted, in the order of places
	dropped *delivery.Dropped // by the event that is decided about
	from    events.ID         // the user's last place before
	durable bool              // the disk must have it before it is answered
	settle  bool              // the answer rests on what may not be on the disk yet
	ceiling uint64            // the highest ms taken that is not below the ceiling on the disk
	full    bool              // nothing more can be stored
}

// outgoing is a delivery, and what becomes of it.
type outgoing struct {
	delivery.Delivery
	emission delivery.Emission
}

func (in *instance) decide(u *user) *decision {
	u.prune()
	now := in.clock()
	return &decision{in: in, u: u, now: now, cutoff: in.s.cutoff(now), from: u.last, full: in.s.health.full.Load()}
}

// event decides about one entry.
func (d *decision) event(e *delivery.Entry, dec *delivery.Decision) error {
	if e.IdempotencyKey != "" {
		if known, err := d.repeated(e, dec); known || err != nil {
			d.settle = true
			return err
		}
	}
	d.dropped = &dec.Dropped
	var j *job // nil when it is not known, or not any more
	if e.Kind != events.Message {
		if j = d.u.jobs[e.JobID]; j != nil && j.updated < d.cutoff {
			d.drop(j)
			j = nil
		}
		if dec.Reason = ignored(j, &e.Event); dec.Reason != "" {
			dec.Verdict = delivery.Ignored
			d.settle = true // the state that it is ignored for
			return d.remember(e, dec)
		}
	}
	if d.full {
		return delivery.ErrStoreFull
	}
	prev := d.u.last
	dec.Place = d.take()
	if e.Kind != events.Message {
		d.advance(j, &e.Event, dec.Place)
	}
	if e.Kind.Logged() {
		if err := d.append(dec.Place, e.Name, e.Data); err != nil {
			return err
		}
	}
	d.out = append(d.out, outgoing{Delivery: delivery.Delivery{
		UserID: d.u.name, Place: dec.Place, Prev: prev, Name: e.Name, Data: e.Data, Kind: e.Kind, JobID: e.JobID,
	}})
	return d.remember(e, dec)
}

// ignored returns why a job's event changes nothing; "" when it does. An event without an attempt belongs to the current one.
func ignored(j *job, e *events.Event) (reason string) {
	switch {
	case j == nil, !e.HasAttempt && e.Kind.Ends(), e.HasAttempt && e.Attempt > j.attempt:
		return ""
	case e.HasAttempt && e.Attempt < j.attempt:
		return delivery.ReasonAttemptSuperseded
	case e.Kind == events.Progress && j.finished():
		return delivery.ReasonJobFinished
	}
	return ""
}

// take gives out the user's next place: the clock's, unless places are ahead of it.
func (d *decision) take() events.ID {
	place := events.ID{Ms: max(d.now, d.in.floor.Load())}
	if d.u.last.Ms >= place.Ms {
		place = events.ID{Ms: d.u.last.Ms, Seq: d.u.last.Seq + 1}
	}
	d.u.last = place
	raise(&d.in.highest, place.Ms)
	if place.Ms >= d.in.ceiling.Load() {
		d.durable = true
		d.ceiling = place.Ms
	}
	return place
}

// advance moves a job on by an event that is not ignored.
func (d *decision) advance(j *job, e *events.Event, place events.ID) {
	u := d.u
	if j == nil {
		j = &job{name: e.JobID, jobRecord: jobRecord{started: d.now}}
		if e.HasAttempt {
			j.attempt = e.Attempt
		}
		u.add(j)
	} else if e.HasAttempt && e.Attempt > j.attempt {
		d.durable = true
		u.jobsBytes -= j.dataSize()
		j.jobRecord = jobRecord{started: d.now, attempt: e.Attempt, indexed: j.indexed}
	}
	before := j.dataSize()
	if e.Kind == events.Progress {
		if j.state == jobStalled {
			d.durable = true
		}
		j.state = jobRunning
		j.progress = jobEvent{place, e.Name, replace(j.progress.data, e.Data)}
		d.watch(j, e.StaleAfter)
	} else {
		j.state = jobCompleted
		if e.Kind == events.Failed {
			j.state = jobFailed
		}
		j.end = jobEvent{place, e.Name, replace(j.end.data, e.Data)}
		j.deadline, j.indexed = 0, 0
	}
	j.stalled, j.silent = events.ID{}, 0
	u.jobsBytes += j.dataSize() - before
	d.change(j, place)
	d.trimJobs(j)
}

// replace copies data to where old was, unless that is much too large: what was sent is a part of a larger body.
func replace(old, data []byte) []byte {
	if cap(old) > 2*len(data)+512 {
		old = nil
	}
	return append(old[:0], data...)
}

// change makes a job the one that has changed last, at a place.
func (d *decision) change(j *job, place events.ID) {
	j.last, j.updated = place, d.now
	d.u.list(j)
	d.rewrite(j)
}

// rewrite marks a job as changed since it was written.
func (d *decision) rewrite(j *job) {
	u := d.u
	if !j.changed {
		j.changed = true
		u.changed = append(u.changed, j)
	}
	more := j.size() - j.counted
	j.counted += more
	u.unwritten += more
	d.in.flusher.unwritten.Add(int64(more))
	u.dirty = true
}

// append puts a message at the end of the log, and makes room for it.
func (d *decision) append(place events.ID, name string, data []byte) error {
	u, m := d.u, message{at: d.now, name: name, data: data}
	if u.log.messages == 0 || m.at < u.log.oldest {
		u.log.oldest = m.at
	}
	u.log.messages++
	u.log.bytes += uint64(m.size())
	u.logged = place
	u.fresh = append(u.fresh, logEntry{id: place, at: m.at, size: m.size()})
	d.durable = true
	if err := d.trimMessages(); err != nil {
		return err
	}
	m.log = u.log
	d.write().put(messageKey(u.name, place), &m)
	return nil
}

// write returns the batch of what goes to the disk.
func (d *decision) write() batch {
	if d.batch.Batch == nil {
		d.batch = d.in.newBatch()
	}
	d.u.dirty = true
	return d.batch
}

// group is what one call tells the feeds of its user, all at once.
type group struct {
	out  []outgoing
	from events.ID // the place before the first
	by   *round    // it leaves when this is over; nil when nothing must be on the disk
}

// pending is the round to wait for until all that is lined up for the feeds may leave.
func (u *user) pending() *round {
	if n := len(u.groups); n > 0 {
		return u.groups[n-1].by
	}
	return nil
}

// commit hands what was decided to the committer, or what may wait to the flusher, and lines up what the feeds will be told.
// It returns the round to wait for; nil when there is none.
func (d *decision) commit() (by *round) {
	in, u := d.in, d.u
	by = u.pending()
	switch {
	case d.durable || d.batch.Batch != nil || u.dirty && in.flusher.unwritten.Load() > maxUnwritten:
		by = in.write(u, d.write(), true, d.ceiling)
	case u.dirty:
		in.flusher.add(u)
	}
	if len(d.out) > 0 {
		u.groups = append(u.groups, &group{out: d.out, from: d.from, by: by})
	} else if !d.settle && d.batch.Batch == nil {
		return nil
	}
	return by
}

// write puts what has changed of a user into a batch and lines that up. The caller holds the user's lock.
func (in *instance) write(u *user, b batch, sync bool, ceiling uint64) *round {
	due := u.encode(b)
	in.flusher.unwritten.Add(-int64(u.unwritten))
	u.unwritten, u.dirty = 0, false
	u.by = in.commits.add(b, sync, ceiling, due)
	for i := len(u.fresh) - 1; i >= 0 && u.fresh[i].by == nil; i-- {
		u.fresh[i].by = u.by
	}
	for i := len(u.replies) - 1; i >= 0 && u.replies[i].by == nil; i-- {
		u.replies[i].by = u.by
	}
	return u.by
}

// encode writes the user's record, jobs and answers into a batch, as far as they have changed, and returns the earliest
// deadline among them. The record is not written for what load finds in messages and jobs.
func (u *user) encode(b batch) (due uint64) {
	for _, j := range u.changed {
		j.changed, j.counted = false, 0
		if j.written != j.indexed {
			if j.written != 0 {
				b.remove(dueKey(j.written, u.name, j.name))
			}
			if j.indexed != 0 {
				b.set(dueKey(j.indexed, u.name, j.name), []byte{recordFormat})
				due = earlier(due, j.indexed)
			}
			j.written = j.indexed
		}
		if j.gone {
			b.remove(jobKey(u.name, j.name))
		} else {
			b.put(jobKey(u.name, j.name), j)
		}
	}
	clear(u.changed)
	u.changed = u.changed[:0]
	for i := len(u.replies) - 1; i >= 0 && u.replies[i].by == nil; i-- {
		if r := u.replies[i]; u.answers[r.key] == r && !r.gone {
			b.put(answerKey(u.name, r.key), r)
			b.put(keyByAgeKey(u.name, r.n), &aged{r.at, []byte(r.key)})
		}
	}
	if oldest := u.oldestAt(); u.known() && u.aged == 0 && oldest != 0 {
		u.aged, u.rewrite = oldest, true
		b.set(ageKey(u.aged, u.name), []byte{recordFormat})
	}
	switch {
	case !u.known():
		b.remove(userKey(u.name, kindUser))
	case u.rewrite:
		b.put(userKey(u.name, kindUser), u)
	}
	u.rewrite = false
	return due
}

// finish waits for a round. Then it hands to the feeds what is as durable as it must be, in the order of places, and has them
// emit it: rounds end in their order, so when one is over, all that is lined up before what it carries may leave too. The
// caller holds the user's lock; finish gives it and the caller's reference back.
func (in *instance) finish(ctx context.Context, u *user, by *round) error {
	if !by.over() {
		u.release()
		err := in.wait(ctx, by)
		if err == nil {
			err = u.acquire(ctx, in)
		}
		if err != nil {
			in.drop(u)
			return err
		}
	}
	to := in.s.enterAudience()
	defer to.leave()
	var run []delivery.Feed
	func() {
		defer in.put(u)
		for len(u.groups) > 0 && u.groups[0].by.over() && !in.isDead() {
			g := u.groups[0]
			u.groups[0] = nil
			u.groups = u.groups[1:]
			for i := range g.out {
				o := &g.out[i]
				o.emission.Expect(len(to.feeds))
				o.Delivery.Emission = &o.emission
				for _, feed := range to.feeds {
					if feed.Deliver(&o.Delivery) && !slices.Contains(run, feed) {
						run = append(run, feed)
					}
				}
			}
		}
		if len(u.groups) == 0 {
			u.groups = nil
		}
	}()
	for _, feed := range run {
		feed.Run(u.name)
	}
	if in.isDead() {
		return in.unavailable()
	}
	return nil
}
