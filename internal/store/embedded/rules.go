package embedded

import (
	"time"

	"github.com/cockroachdb/pebble/v2"

	"jobwire/internal/delivery"
	"jobwire/internal/events"
)

// decision is one call's decisions about one user. The caller holds the user's lock for as long as it lives.
type decision struct {
	in  *instance
	u   *user
	now uint64 // ms

	batch   *pebble.Batch // what goes to the disk beside the user's record, jobs and answers; nil when nothing does
	out     []outgoing    // what was accepted, in the order of places
	from    events.ID     // the user's last place before
	durable bool          // the disk must have it before it is answered
	settle  bool          // the answer rests on what may not be on the disk yet
	ceiling uint64        // the highest ms taken that is not below the ceiling on the disk
	full    bool          // nothing more can be stored
}

func (in *instance) decide(u *user) *decision {
	u.prune()
	return &decision{in: in, u: u, now: in.clock(), from: u.last, full: in.s.full.Load()}
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

// event decides about one entry.
func (d *decision) event(e *delivery.Entry) (dec delivery.Decision, err error) {
	if e.IdempotencyKey != "" {
		known, err := d.repeated(e, &dec)
		if known || err != nil {
			d.settle = true
			return dec, err
		}
	}
	var j *job
	if e.Kind != events.Message {
		j = d.job(e.JobID, &dec.Dropped)
		if dec.Reason = ignored(j, &e.Event); dec.Reason != "" {
			dec.Verdict = delivery.Ignored
			d.settle = true // the state that it is ignored for
			return dec, d.remember(e, &dec)
		}
	}
	if d.full {
		return dec, delivery.ErrStoreFull
	}
	from := d.u.last
	dec.Place = d.take()
	if e.Kind != events.Message {
		d.advance(j, &e.Event, dec.Place, &dec.Dropped)
	}
	if e.Kind.Logged() {
		if err := d.append(dec.Place, message{at: d.now, name: e.Name, data: e.Data}, &dec.Dropped); err != nil {
			return dec, err
		}
	}
	d.tell(delivery.Delivery{
		UserID: d.u.name, Place: dec.Place, Prev: from, Name: e.Name, Data: e.Data, Kind: e.Kind, JobID: e.JobID,
	})
	return dec, d.remember(e, &dec)
}

// job returns a job of the user, nil when it is not known, or not any more.
func (d *decision) job(name string, dropped *delivery.Dropped) *job {
	j := d.u.jobs[name]
	if j != nil && j.updated < d.cutoff() {
		d.drop(j, dropped)
		return nil
	}
	return j
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

// advance moves a job on by an event that is not ignored.
func (d *decision) advance(j *job, e *events.Event, place events.ID, dropped *delivery.Dropped) {
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
	j.last, j.updated = place, d.now
	if e.Kind == events.Progress {
		if j.state == jobStalled {
			d.durable = true
		}
		j.state, j.stalled, j.silent = jobRunning, events.ID{}, 0
		j.progress = progress{place, e.Name, replace(j.progress.data, e.Data)}
		d.watch(j, e.StaleAfter)
	} else {
		j.state = jobCompleted
		if e.Kind == events.Failed {
			j.state = jobFailed
		}
		j.stalled, j.silent = events.ID{}, 0
		j.end = end{place, e.Name, replace(j.end.data, e.Data)}
		j.deadline, j.indexed = 0, 0
	}
	u.jobsBytes += j.dataSize() - before
	u.list(j)
	d.change(j)
	d.trimJobs(j, dropped)
}

// replace copies data to where old was, unless that is much too large: what was sent is a part of a larger body.
func replace(old, data []byte) []byte {
	if cap(old) > 2*len(data)+512 {
		old = nil
	}
	return append(old[:0], data...)
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

// change marks a job as changed since it was written.
func (d *decision) change(j *job) {
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
func (d *decision) append(place events.ID, m message, dropped *delivery.Dropped) error {
	u := d.u
	if u.log.messages == 0 || m.at < u.log.oldest {
		u.log.oldest = m.at
	}
	u.log.messages++
	u.log.bytes += uint64(m.size())
	u.logged = place
	u.fresh = append(u.fresh, logEntry{id: place, at: m.at, size: m.size()})
	d.durable = true
	if err := d.trimMessages(dropped); err != nil {
		return err
	}
	m.log = u.log
	return d.write().Set(messageKey(u.name, place), m.encode(), nil)
}

// write returns the batch of what goes to the disk.
func (d *decision) write() *pebble.Batch {
	if d.batch == nil {
		d.batch = d.in.db.NewBatch()
	}
	d.u.dirty = true
	return d.batch
}

// tell lines up a delivery to the feeds.
func (d *decision) tell(del delivery.Delivery) {
	d.out = append(d.out, outgoing{})
	o := &d.out[len(d.out)-1]
	o.Delivery = del
}

// commit hands what was decided to the committer, or what may wait to the flusher, and lines up what the feeds will be told.
// It returns the round to wait for; nil when there is none.
func (d *decision) commit() (*round, error) {
	in, u := d.in, d.u
	if in.flusher.unwritten.Load() > maxUnwritten {
		d.durable = d.durable || u.dirty
	}
	var by *round
	if n := len(u.groups); n > 0 {
		by = u.groups[n-1].by
	}
	switch {
	case d.durable || d.batch != nil:
		b := d.write()
		due, err := in.encode(u, b)
		if err != nil {
			return nil, err
		}
		by = in.commits.add(b, true, d.ceiling, due)
		u.carried(by)
	case u.dirty:
		in.flusher.add(u)
	}
	if len(d.out) > 0 {
		u.groups = append(u.groups, &group{out: d.out, from: d.from, by: by})
	} else if !d.settle && d.batch == nil {
		return nil, nil
	}
	return by, nil
}

// carried notes which round carries the user's changes.
func (u *user) carried(by *round) {
	u.by = by
	for i := len(u.fresh) - 1; i >= 0 && u.fresh[i].by == nil; i-- {
		u.fresh[i].by = by
	}
	for i := len(u.replies) - 1; i >= 0 && u.replies[i].by == nil; i-- {
		u.replies[i].by = by
	}
}

// encode writes the user's record, jobs and answers into a batch, as far as they have changed, and returns the earliest
// deadline among them. The record is not written for what load finds in messages and jobs.
func (in *instance) encode(u *user, b *pebble.Batch) (due uint64, err error) {
	set := func(key, value []byte) {
		if err == nil {
			err = b.Set(key, value, nil)
		}
	}
	remove := func(key []byte) {
		if err == nil {
			err = b.Delete(key, nil)
		}
	}
	for _, j := range u.changed {
		j.changed, j.counted = false, 0
		if j.written != j.indexed {
			if j.written != 0 {
				remove(dueKey(j.written, u.name, j.name))
			}
			if j.indexed != 0 {
				set(dueKey(j.indexed, u.name, j.name), []byte{recordFormat})
				if due == 0 || j.indexed < due {
					due = j.indexed
				}
			}
			j.written = j.indexed
		}
		if j.gone {
			remove(jobKey(u.name, j.name))
		} else {
			set(jobKey(u.name, j.name), j.encode())
		}
	}
	clear(u.changed)
	u.changed = u.changed[:0]
	for i := len(u.replies) - 1; i >= 0 && u.replies[i].by == nil; i-- {
		if a := u.replies[i]; u.answers[a.key] == a && !a.gone {
			set(answerKey(u.name, a.key), a.encode())
			set(keyByAgeKey(u.name, a.n), encodeAged(a.at, a.key))
		}
	}
	if oldest := u.oldestAt(); u.known() && u.aged == 0 && oldest != 0 {
		u.aged, u.rewrite = oldest, true
		set(ageKey(u.aged, u.name), []byte{recordFormat})
	}
	switch {
	case !u.known():
		remove(userKey(u.name, kindUser))
	case u.rewrite:
		set(userKey(u.name, kindUser), u.encode())
	}
	u.rewrite = false
	in.flusher.unwritten.Add(-int64(u.unwritten))
	u.unwritten, u.dirty = 0, false
	return due, err
}
