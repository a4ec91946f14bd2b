package embedded

import (
	"time"

	"jobwire/internal/delivery"
	"jobwire/internal/events"
)

// rules decides about entries over a space. It lives for one call.
type rules struct {
	space  space
	limits delivery.Limits
	now    uint64 // ms
	floor  uint64 // no id is below this ms

	highest uint64 // the highest ms of an id given out
	durable bool   // something was decided that must be on the disk before it is answered for

	key brief
}

// user is a user's record while entries are decided about.
type user struct {
	name string
	userRecord
}

// job is a job's record while an entry is decided about.
type job struct {
	user, name string
	jobRecord
}

// load returns a user's record. Of a user who is not known, what may have been
// removed is all below the floor.
func (r *rules) load(name string) user {
	u := user{name: name, userRecord: userRecord{trimmed: events.ID{Ms: r.floor}}}
	if b := r.space.get(r.key.user(name)); b != nil {
		u.userRecord = must(decodeUser(b))
	}
	return u
}

func (r *rules) save(u *user) { r.space.put(r.key.user(u.name), u.encode()) }

// take gives out the user's next id: the clock's, unless ids are ahead of it.
func (r *rules) take(u *user) events.ID {
	ms := max(r.now, r.floor)
	id := events.ID{Ms: ms}
	if u.last.Ms >= ms {
		id = events.ID{Ms: u.last.Ms, Seq: u.last.Seq + 1}
	}
	u.last = id
	r.highest = max(r.highest, id.Ms)
	return id
}

// decide is the heart of the store.
func (r *rules) decide(e *delivery.Entry) delivery.Decision {
	u := r.load(e.Event.UserID)
	d := delivery.Decision{Confirmed: u.confirmed}
	var changed bool
	switch e.Kind {
	case delivery.KindRefresh:
		changed = r.refresh(&u, e, &d)
	case delivery.KindStall:
		changed = r.stall(&u, e, &d)
	default:
		changed = r.event(&u, e, &d)
	}
	if changed {
		r.trim(&u, &d.Dropped, trimStep)
		d.Trimmed = u.trimmed
		r.save(&u)
	}
	return d
}

func (r *rules) event(u *user, e *delivery.Entry, d *delivery.Decision) (changed bool) {
	ev := &e.Event
	if ev.IdempotencyKey != "" && r.repeated(u, e, d) {
		return false
	}
	class := events.ClassOf(ev.Name)
	var j job
	if ev.JobID != "" {
		j = r.job(u.name, ev.JobID)
		if class == events.Progress && j.finished() && ev.Attempt <= j.attempt {
			d.Verdict, d.Reason = delivery.VerdictIgnored, delivery.ReasonJobFinished
			if ev.IdempotencyKey == "" {
				return false
			}
			r.remember(u, e, keyRecord{
				settled: true, status: statusByte(delivery.StatusIgnored), reason: d.Reason,
			})
			return true
		}
	}
	if events.IsTerminal(ev.Name) && !j.progress.IsZero() {
		d.FlushID = r.take(u)
	}
	d.ID = r.append(u, logRecord{
		durable: class == events.Durable, at: r.now, name: ev.Name, job: ev.JobID, data: ev.Data,
	})
	if ev.JobID != "" {
		r.advance(u, e, d.ID, &j)
	}
	if ev.IdempotencyKey != "" {
		r.remember(u, e, keyRecord{durable: class == events.Durable, id: d.ID})
	}
	r.durable = r.durable || class == events.Durable
	return true
}

// append puts a record at the end of the user's log.
func (r *rules) append(u *user, rec logRecord) events.ID {
	id := r.take(u)
	b := rec.encode()
	r.space.put(r.key.log(u.name, id), b)
	if u.events == 0 || rec.at < u.oldest {
		u.oldest = rec.at
	}
	u.events++
	u.bytes += uint64(len(b))
	return id
}

// remove takes a record out of the user's log.
func (r *rules) remove(u *user, id events.ID) (rec []byte) {
	b := r.space.drop(r.key.log(u.name, id))
	if b == nil {
		return nil
	}
	u.events -= min(u.events, 1)
	u.bytes -= min(u.bytes, uint64(len(b)))
	return b
}

// job returns a job; one that is not known is running and has no last event.
func (r *rules) job(user, name string) job {
	j := job{user: user, name: name}
	if b := r.space.get(r.key.job(user, name)); b != nil {
		j.jobRecord = must(decodeJob(b))
	}
	return j
}

func (r *rules) saveJob(j *job) { r.space.put(r.key.job(j.user, j.name), j.encode()) }

// advance moves a job on by the event that has just been stored.
func (r *rules) advance(u *user, e *delivery.Entry, id events.ID, j *job) {
	ev := &e.Event
	if j.finished() {
		r.durable = true // progress that begins a job anew must not be forgotten by a crash
	}
	// Late progress of an earlier attempt does not take the job back there; an end does say which attempt it ends.
	if ev.Attempt > j.attempt || ev.Attempt != 0 && ev.Attempt != j.attempt && events.IsTerminal(ev.Name) {
		r.durable = true // an end that names no attempt is the end of this one, also after a crash
		j.attempt = ev.Attempt
	}
	switch ev.Name {
	case events.JobProgress:
		if !j.progress.IsZero() {
			r.remove(u, j.progress) // only the latest counts
		}
		j.state, j.progress = jobRunning, id
		r.watch(j, ev.StaleAfter)
	case events.JobCompleted:
		j.state, j.deadline = jobCompleted, 0
	case events.JobFailed:
		j.state, j.deadline = jobFailed, 0
	}
	j.last, j.updated = id, r.now
	r.saveJob(j)
}

// watch sets or clears the deadline of a job. The entry among the deadlines
// stays where it is until its time comes, and only then moves on: progress
// that comes often does not rewrite it each time.
func (r *rules) watch(j *job, staleAfter time.Duration) {
	if staleAfter <= 0 {
		j.deadline = 0
		return
	}
	j.deadline = r.now + uint64(max(staleAfter.Milliseconds(), 1))
	if j.indexed != 0 && j.indexed <= j.deadline {
		return
	}
	r.durable = true // a crash of ours must not leave the job unwatched
	r.reindex(j, j.deadline)
}

// reindex moves a job's entry among the deadlines; 0 removes it.
func (r *rules) reindex(j *job, ms uint64) {
	if j.indexed != 0 {
		r.space.drop(dueKey(j.indexed, j.user, j.name))
	}
	if ms != 0 {
		r.space.put(dueKey(ms, j.user, j.name), []byte{recordFormat})
	}
	j.indexed = ms
}

// refresh gives the latest progress of a job a new id.
func (r *rules) refresh(u *user, e *delivery.Entry, d *delivery.Decision) (changed bool) {
	j := r.job(u.name, e.Event.JobID)
	if j.last.IsZero() || j.finished() || j.progress != e.At {
		d.Verdict, d.Reason = delivery.VerdictIgnored, delivery.ReasonSuperseded
		return false
	}
	b := r.remove(u, e.At)
	if b == nil {
		panic(corrupt("the latest progress of a job"))
	}
	rec := must(decodeLog(b))
	d.ID = r.append(u, rec)
	if j.last == e.At {
		j.last = d.ID
	}
	j.progress = d.ID
	r.saveJob(&j)
	return true
}

// stall stores job_stalled when the job's deadline has passed.
func (r *rules) stall(u *user, e *delivery.Entry, d *delivery.Decision) (changed bool) {
	d.Verdict, d.Reason = delivery.VerdictIgnored, delivery.ReasonSuperseded
	name := e.Event.JobID
	j := r.job(u.name, name)
	if j.last.IsZero() || j.indexed != e.At.Ms {
		r.space.drop(dueKey(e.At.Ms, u.name, name)) // nobody's any more
		return false
	}
	if j.indexed > r.now {
		return false
	}
	if j.deadline == 0 || j.deadline > r.now {
		r.reindex(&j, j.deadline) // a later event has moved or cleared it
		r.saveJob(&j)
		return false
	}
	r.reindex(&j, 0)
	data := delivery.StalledData(name, time.UnixMilli(int64(j.updated)))
	id := r.append(u, logRecord{durable: true, at: r.now, name: events.JobStalled, job: name, data: data})
	j.state, j.deadline, j.last, j.updated = jobStalled, 0, id, r.now
	r.saveJob(&j)
	r.durable = true
	d.Verdict, d.Reason, d.ID, d.Data = delivery.VerdictStored, "", id, data
	return true
}

// due lists the jobs whose entry among the deadlines has passed, and the
// first one that has not.
func (r *rules) due(limit int) (jobs []delivery.DueJob, first uint64) {
	r.space.scan([]byte{spaceDue}, []byte{spaceDue + 1}, func(key, _ []byte) bool {
		ms, user, job := parseDue(key)
		if ms > r.now || len(jobs) == limit {
			first = ms
			return false
		}
		jobs = append(jobs, delivery.DueJob{UserID: user, JobID: job, At: events.ID{Ms: ms}})
		return true
	})
	return jobs, first
}

// settle stores a cursor or an answer.
func (r *rules) settle(st *delivery.Settlement) {
	if st.Key == "" {
		u := r.load(st.UserID)
		id := st.Confirmed
		if id.Compare(u.last) > 0 {
			id = u.last // nothing above it can have been seen
		}
		if id.Compare(u.confirmed) > 0 {
			u.confirmed = id
			r.save(&u)
		}
		return
	}
	key := answerKey(st.UserID, st.Key)
	b := r.space.get(key)
	if b == nil {
		return
	}
	k := must(decodeKey(b))
	if k.settled || k.id != st.Outcome.ID {
		return
	}
	k.settled, k.status = true, statusByte(st.Outcome.Status)
	k.sockets, k.reason = uint64(max(st.Outcome.Sockets, 0)), st.Outcome.Reason
	r.space.put(key, k.encode())
}
