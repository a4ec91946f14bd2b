package delivery_test

import (
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"jobwire/internal/delivery"
	"jobwire/internal/events"
)

// reference is the contract of a Store in its plainest form: of every user it keeps the list of all calls, and finds what it
// is asked for by going through that list from its beginning. One mutex guards everything.
//
// Handles are the processes that use it. With one handle a call is answered when its feeds have emitted it; with the network
// of a cluster (lag is set) every handle, the caller's too, is told a little later, in order.
type reference struct {
	limits delivery.Limits // Messages and Retention are kept to, if set
	// sync says how long a durable call takes to be safe; nil: no time.
	sync func() time.Duration
	// lag says how long news is on its way to a handle; nil: calls tell the feeds of their own handle themselves.
	lag func() time.Duration
	// on is called at the beginning of every call, and may wait, or fail it; nil: nothing.
	on func(ctx context.Context, op, user string) error
	// decided is told of every accepted event before anything else is; nil: nothing.
	decided func(user string, e *refEntry)

	mu      sync.Mutex // of what is above, too, once a handle is open: see set
	users   map[string]*refUser
	handles []*handle
	serial  uint64 // of the last place; it never comes twice, so no user has the id of another
}

type refUser struct {
	calls    []*refCall // in the order of their decisions
	done     int        // calls[:done] are safe, and were delivered
	confirms []refConfirm
	told     events.ID // up to which dropped messages were told
}

type refConfirm struct {
	up events.ID
	at time.Time
}

type refCall struct {
	entries []*refEntry
	durable bool
	safe    bool          // nothing need be waited for but the calls before it
	safeAt  time.Time     // when it was delivered
	ended   chan struct{} // closed when it was delivered, or a crash has taken it
	failed  bool          // by a crash
}

type refEntry struct {
	delivery.Entry
	delivery.Decision
	at       time.Time
	attempt  uint32 // the job's, with this event
	begins   bool   // a job, or a higher attempt of it
	durable  bool
	stall    bool // a job_stalled of the watchdog's
	emission *delivery.Emission
}

// refState is what a list of calls amounts to.
type refState struct {
	last    events.ID
	log     []*refEntry // the messages that retention has left
	dropped events.ID   // every message up to there is gone
	jobs    map[string]*refJob
	keys    map[string]*refEntry
}

type refJob struct {
	delivery.Job
	progress *refEntry // the attempt's latest
	stalled  *refEntry // the job_stalled, while that is its state
	due      time.Time // zero when the job is not watched
}

func (j *refJob) ended() bool {
	return j.State == delivery.JobCompleted || j.State == delivery.JobFailed
}

func newReference() *reference {
	return &reference{users: make(map[string]*refUser)}
}

// set changes what the reference does from now on.
func (r *reference) set(change func(r *reference)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(r)
}

func (r *reference) user(id string) *refUser {
	u := r.users[id]
	if u == nil {
		u = new(refUser)
		r.users[id] = u
	}
	return u
}

// state goes through the first n calls of a user.
func (r *reference) state(u *refUser, n int) *refState {
	s := &refState{jobs: make(map[string]*refJob), keys: make(map[string]*refEntry)}
	for _, c := range u.calls[:n] {
		for _, e := range c.entries {
			s.apply(e)
		}
	}
	r.retain(s)
	return s
}

// retain drops what the limits do not allow.
func (r *reference) retain(s *refState) {
	drop := 0
	if r.limits.Messages > 0 {
		drop = max(0, len(s.log)-r.limits.Messages)
	}
	if r.limits.Retention > 0 {
		old := time.Now().Add(-r.limits.Retention)
		for drop < len(s.log) && s.log[drop].at.Before(old) {
			drop++
		}
		for id, j := range s.jobs {
			if j.UpdatedAt.Before(old) {
				delete(s.jobs, id)
			}
		}
		for key, e := range s.keys {
			if e.at.Before(old) {
				delete(s.keys, key)
			}
		}
	}
	if drop > 0 {
		s.dropped = s.log[drop-1].Place
		s.log = s.log[drop:]
	}
}

// decide says what becomes of an event.
func (r *reference) decide(s *refState, e *refEntry) {
	if first := s.keys[e.IdempotencyKey]; first != nil && e.IdempotencyKey != "" {
		if e.Verdict = delivery.Repeated; first.Fingerprint != e.Fingerprint {
			e.Verdict = delivery.KeyReused
			return
		}
		e.Place, e.Reason = first.Place, first.Reason
		return
	}
	e.at = time.Now()
	e.durable = e.Kind.Logged()
	if j := s.jobs[e.JobID]; e.JobID != "" {
		if j == nil {
			e.begins, e.attempt = true, e.Attempt
		} else {
			if e.attempt = j.Attempt; e.HasAttempt {
				e.attempt = e.Attempt
			}
			e.begins = e.attempt > j.Attempt
			e.durable = e.durable || e.begins || j.stalled != nil
			switch {
			case e.attempt < j.Attempt:
				e.Verdict, e.Reason = delivery.Ignored, delivery.ReasonAttemptSuperseded
			case e.Kind == events.Progress && j.ended() && !e.begins:
				e.Verdict, e.Reason = delivery.Ignored, delivery.ReasonJobFinished
			}
		}
		e.durable = e.durable || e.StaleAfter > 0
	}
	if e.Verdict == delivery.Accepted {
		r.serial++
		e.Place = events.ID{Ms: max(uint64(time.Now().UnixMilli()), s.last.Ms), Seq: r.serial}
		if r.decided != nil {
			r.decided(e.UserID, e)
		}
	}
}

// apply does what was decided.
func (s *refState) apply(e *refEntry) {
	if e.Verdict > delivery.Ignored {
		return
	}
	if e.IdempotencyKey != "" {
		s.keys[e.IdempotencyKey] = e
	}
	if e.Verdict == delivery.Ignored {
		return
	}
	s.last = e.Place
	if e.Kind.Logged() {
		s.log = append(s.log, e)
	}
	if e.JobID == "" {
		return
	}
	j := s.jobs[e.JobID]
	if e.begins {
		j = &refJob{Job: delivery.Job{JobID: e.JobID, Attempt: e.attempt, StartedAt: e.at}}
		s.jobs[e.JobID] = j
	}
	j.Place, j.stalled, j.due = e.Place, nil, time.Time{}
	if e.stall {
		j.State, j.stalled = delivery.JobStalled, e
		return
	}
	j.UpdatedAt = e.at
	switch e.Kind {
	case events.Progress:
		j.State, j.progress, j.Progress = delivery.JobRunning, e, e.Data
		if e.StaleAfter > 0 {
			j.due = e.at.Add(e.StaleAfter)
		}
		return
	case events.Completed:
		j.State = delivery.JobCompleted
	case events.Failed:
		j.State = delivery.JobFailed
	}
	j.End = &delivery.JobEnd{Event: e.Name, Data: e.Data, ID: e.Place.String()}
}

// add decides about the entries of a call, and puts it at the end of the list.
func (r *reference) add(u *refUser, entries []*refEntry) *refCall {
	s := r.state(u, len(u.calls))
	c := &refCall{entries: entries, ended: make(chan struct{})}
	for _, e := range entries {
		r.decide(s, e)
		s.apply(e)
		r.retain(s)
		if e.Verdict == delivery.Accepted {
			c.durable = c.durable || e.durable
			e.Dropped = u.drop(s)
		}
	}
	c.safe = !c.durable
	u.calls = append(u.calls, c)
	return c
}

// drop tells what is gone by now and was not told before.
func (u *refUser) drop(s *refState) (d delivery.Dropped) {
	for _, c := range u.calls {
		for _, e := range c.entries {
			if e.Verdict == delivery.Accepted && e.Kind.Logged() && e.Place.Compare(u.told) > 0 && e.Place.Compare(s.dropped) <= 0 {
				d.Messages++
				d.UpTo = e.Place
				if e.Place.Compare(u.confirmed()) > 0 {
					d.Unconfirmed++
				}
			}
		}
	}
	if d.Messages > 0 {
		u.told = d.UpTo
	}
	return d
}

func (u *refUser) confirmed() (up events.ID) {
	for _, c := range u.confirms {
		if c.up.Compare(up) > 0 {
			up = c.up
		}
	}
	return up
}

// written is after how long the reference has surely written what it writes behind.
const written = 500 * time.Millisecond

// crash is kill -9 of the reference and all its handles. What is safe stays, and perhaps some of what is not; the order stays.
func (r *reference) crash(rnd *rand.Rand) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, h := range slices.Clone(r.handles) {
		h.end()
	}
	for _, id := range slices.Sorted(maps.Keys(r.users)) {
		u := r.users[id]
		keep := 0
		for i, c := range u.calls[:u.done] {
			if c.durable || time.Since(c.safeAt) > written {
				keep = i + 1
			}
		}
		keep += rnd.IntN(len(u.calls) - keep + 1)
		for i, c := range u.calls {
			if i >= u.done || i >= keep {
				c.failed = true
			}
			if i >= u.done {
				close(c.ended)
			}
		}
		u.calls, u.done = u.calls[:keep], keep
		u.confirms = slices.DeleteFunc(u.confirms, func(c refConfirm) bool { return time.Since(c.at) <= written })
	}
}
