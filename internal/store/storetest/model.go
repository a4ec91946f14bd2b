package storetest

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"jobwire/internal/delivery"
	"jobwire/internal/events"
)

// model is a store without any cleverness.
type model struct {
	limits delivery.Limits
	users  map[string]*modelUser
}

type modelUser struct {
	last, confirmed events.ID
	log             []modelMessage
	jobs            map[string]*modelJob
	keys            map[string]modelKey
}

type modelMessage struct {
	place events.ID
	at    time.Time
	name  string
	data  string
}

type modelJob struct {
	state
	latest           delivery.JobState
	progress         modelMessage
	end              modelMessage
	last             events.ID
	started, updated time.Time
	deadline         time.Time
	stalled          events.ID
	silentSince      time.Time
}

type modelKey struct {
	body   byte
	at     time.Time
	place  events.ID
	reason string
}

func (m *model) user(name string) *modelUser {
	u := m.users[name]
	if u == nil {
		u = &modelUser{jobs: make(map[string]*modelJob), keys: make(map[string]modelKey)}
		m.users[name] = u
	}
	return u
}

// expire drops what is too old.
func (u *modelUser) expire(cutoff time.Time) {
	u.log = slices.DeleteFunc(u.log, func(r modelMessage) bool { return r.at.Before(cutoff) })
	maps.DeleteFunc(u.jobs, func(_ string, j *modelJob) bool { return j.updated.Before(cutoff) })
	maps.DeleteFunc(u.keys, func(_ string, k modelKey) bool { return k.at.Before(cutoff) })
}

func (j *modelJob) size(id string) int {
	n := len(id)
	if j.state.progress >= 0 {
		n += len(j.progress.name) + len(j.progress.data)
	}
	if j.ended {
		n += len(j.end.name) + len(j.end.data)
	}
	return n
}

// trim keeps the budgets; latest is the job that has just changed.
func (m *model) trim(u *modelUser, latest string) {
	bytes := 0
	for _, r := range u.log {
		bytes += len(r.name) + len(r.data)
	}
	for len(u.log) > 1 && (len(u.log) > m.limits.Messages || bytes > m.limits.MessagesBytes) {
		bytes -= len(u.log[0].name) + len(u.log[0].data)
		u.log = u.log[1:]
	}
	for {
		bytes, oldest := 0, ""
		older := func(a, b *modelJob) bool {
			if a.ended != b.ended {
				return a.ended
			}
			return a.last.Compare(b.last) < 0
		}
		for id, j := range u.jobs {
			bytes += j.size(id)
			if id != latest && (oldest == "" || older(j, u.jobs[oldest])) {
				oldest = id
			}
		}
		if oldest == "" || len(u.jobs) <= m.limits.Jobs && bytes <= m.limits.JobsBytes {
			return
		}
		delete(u.jobs, oldest)
	}
}

// decide says what the store must; the place of what is accepted is the store's.
func (m *model) decide(u *modelUser, now time.Time, e delivery.Entry, place events.ID) (verdict delivery.Verdict, at events.ID, reason string) {
	if k, ok := u.keys[e.IdempotencyKey]; ok {
		if k.body != e.Fingerprint[0] {
			return delivery.KeyReused, events.ID{}, ""
		}
		return delivery.Repeated, k.place, k.reason
	}
	if e.Kind != events.Message {
		j := u.jobs[e.JobID]
		if j == nil {
			j = &modelJob{}
		}
		before := *j
		s := step{e.Kind, -1}
		if e.HasAttempt {
			s.attempt = int(e.Attempt)
		}
		known, was := j.known, j.attempt
		reason = j.take(0, s)
		if reason == "" {
			if !known || j.attempt != was {
				before = modelJob{}
				*j = modelJob{state: j.state, started: now}
			}
			j.apply(now, e, place)
			if before.stalled.IsZero() {
				j.stalled = events.ID{}
			}
			u.jobs[e.JobID] = j
		}
	}
	if reason != "" {
		verdict, place = delivery.Ignored, events.ID{}
	} else {
		u.last = place
		if e.Kind.Logged() {
			u.log = append(u.log, modelMessage{place, now, e.Name, string(e.Data)})
		}
		m.trim(u, e.JobID)
	}
	if e.IdempotencyKey != "" {
		u.keys[e.IdempotencyKey] = modelKey{e.Fingerprint[0], now, place, reason}
	}
	return verdict, place, reason
}

func (j *modelJob) apply(now time.Time, e delivery.Entry, place events.ID) {
	r := modelMessage{place, now, e.Name, string(e.Data)}
	j.last, j.updated, j.deadline, j.stalled = place, now, time.Time{}, events.ID{}
	switch e.Kind {
	case events.Progress:
		j.progress, j.latest = r, delivery.JobRunning
		if e.StaleAfter > 0 {
			j.deadline = now.Add(e.StaleAfter)
		}
	case events.Completed:
		j.end, j.latest = r, delivery.JobCompleted
	case events.Failed:
		j.end, j.latest = r, delivery.JobFailed
	}
}

// replay says what a client must see.
func (u *modelUser) replay(q delivery.Query) (recs []string, recovered bool) {
	recovered = !q.HasOffset || slices.ContainsFunc(u.log, func(r modelMessage) bool { return r.place == q.Offset })
	from := q.Offset
	if !q.HasOffset || !recovered {
		from = slices.MaxFunc([]events.ID{u.confirmed, q.Confirmed}, events.ID.Compare)
		from = slices.MinFunc([]events.ID{from, q.Since}, events.ID.Compare)
	}
	type record struct {
		place events.ID
		text  string
	}
	var all []record
	logged := make(map[events.ID]bool)
	for _, r := range u.log {
		if r.place.Compare(from) > 0 {
			logged[r.place] = true
			all = append(all, record{r.place, fmt.Sprint(r.place, r.name, r.data, true)})
		}
	}
	for id, j := range u.jobs {
		if j.ended {
			continue
		}
		all = append(all, record{j.progress.place, fmt.Sprint(j.progress.place, j.progress.name, j.progress.data, false)})
		if !j.stalled.IsZero() && !logged[j.stalled] {
			data := delivery.StalledData(id, j.silentSince)
			all = append(all, record{j.stalled, fmt.Sprint(j.stalled, events.JobStalled, string(data), false)})
		}
	}
	slices.SortFunc(all, func(a, b record) int { return a.place.Compare(b.place) })
	for _, r := range all {
		recs = append(recs, r.text)
	}
	return recs, recovered
}

func (u *modelUser) list() (jobs []string) {
	ids := slices.Collect(maps.Keys(u.jobs))
	slices.SortFunc(ids, func(a, b string) int { return u.jobs[b].last.Compare(u.jobs[a].last) })
	for _, id := range ids {
		j := u.jobs[id]
		end := ""
		if j.ended {
			end = fmt.Sprint(j.end.name, j.end.data, j.end.place)
		}
		jobs = append(jobs, fmt.Sprint(id, j.latest, j.attempt, j.progress.data, end, j.started, j.updated, j.last))
	}
	return jobs
}

func listed(jobs []delivery.Job) (out []string) {
	for _, j := range jobs {
		end := ""
		if j.End != nil {
			end = fmt.Sprint(j.End.Event, string(j.End.Data), j.End.ID)
		}
		out = append(out, fmt.Sprint(j.JobID, j.State, j.Attempt, string(j.Progress), end, j.StartedAt, j.UpdatedAt, j.Place))
	}
	return out
}

// testModel does random things to a store and to the model, and compares.
func testModel(t *testing.T, open Open) {
	seeds, ops := 12, 400
	if testing.Short() {
		seeds = 3
	}
	for seed := range seeds {
		t.Run(fmt.Sprint("seed", seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(uint64(seed), 1)) //nolint:gosec // to be repeated
			limits := delivery.Limits{
				Retention: 10 * time.Minute, Messages: 2 + r.IntN(20), Jobs: 1 + r.IntN(8),
				MessagesBytes: 200 + r.IntN(2000), JobsBytes: 300 + r.IntN(2000),
			}
			b := newBench(t, open, limits)
			m := &model{limits: limits.WithDefaults(), users: make(map[string]*modelUser)}
			for op := range ops {
				b.step(m, r)
				if t.Failed() {
					t.Fatalf("at step %d", op)
				}
			}
		})
	}
}

func (b *bench) step(m *model, r *rand.Rand) {
	b.Helper()
	user := fmt.Sprint("user", r.IntN(3))
	u := m.user(user)
	now := b.clock()
	u.expire(now.Add(-m.limits.Retention))
	switch n := r.IntN(100); {
	case n < 50:
		entries := make([]delivery.Entry, 1+r.IntN(3))
		for i := range entries {
			kind := events.Kind(r.IntN(4))
			e := entry(kind, "", data(fmt.Sprintf(`"%0*d"`, 1+r.IntN(100), r.IntN(1000))))
			if kind != events.Message {
				e.JobID = fmt.Sprint(r.IntN(6))
				if r.IntN(2) == 0 {
					attempt(uint32(r.IntN(3)))(&e)
				}
			}
			if kind == events.Progress && r.IntN(3) == 0 {
				e.StaleAfter = time.Duration(1+r.IntN(300)) * time.Second
			}
			if r.IntN(4) == 0 {
				key(fmt.Sprint(r.IntN(10)), byte(r.IntN(2)))(&e)
			}
			entries[i] = e
		}
		last := u.last
		for i, d := range b.publish(user, entries...) {
			verdict, place, reason := m.decide(u, now, entries[i], d.Place)
			if d.Verdict != verdict || d.Reason != reason || d.Place != place {
				b.Fatalf("%+v: %+v, want %v %v %q", entries[i].Event, d, verdict, place, reason)
			}
			if d.Verdict == delivery.Accepted {
				if d.Place.Compare(last) <= 0 {
					b.Fatalf("%s after %s", d.Place, last)
				}
				last = d.Place
			}
		}
	case n < 62:
		c := events.ID{Ms: 1 << 50}
		if len(u.log) > 0 && r.IntN(10) > 0 {
			c = u.log[r.IntN(len(u.log))].place
		}
		b.confirm(user, c)
		c = slices.MinFunc([]events.ID{c, u.last}, events.ID.Compare)
		u.confirmed = slices.MaxFunc([]events.ID{c, u.confirmed}, events.ID.Compare)
	case n < 74:
		q := delivery.Query{UserID: user, Since: b.follow(user), Limit: 1 + r.IntN(8), Bytes: 1 + r.IntN(300)}
		if len(u.log) > 0 && r.IntN(2) == 0 {
			q.Since = u.log[r.IntN(len(u.log))].place
		}
		if r.IntN(2) == 0 {
			q.HasOffset, q.Offset = true, events.ID{Ms: uint64(now.UnixMilli()), Seq: uint64(r.IntN(3))}
			if len(u.log) > 0 && r.IntN(3) > 0 {
				q.Offset = u.log[r.IntN(len(u.log))].place
			}
		}
		recs, first := b.replay(q)
		var got []string
		for _, rec := range recs {
			got = append(got, fmt.Sprint(rec.Place, rec.Name, string(rec.Data), rec.Message))
		}
		want, recovered := u.replay(q)
		same(b, "replay", got, want)
		same(b, "recovered", first.Recovered, recovered)
	case n < 80:
		var got []delivery.Job
		for q := (delivery.JobsQuery{UserID: user, Limit: 1 + r.IntN(4)}); ; {
			page, err := b.store.Jobs(context.Background(), q)
			if err != nil {
				b.Fatal(err)
			}
			got = append(got, page.Jobs...)
			if q.Before = page.Next; q.Before.IsZero() {
				break
			}
		}
		same(b, "jobs", listed(got), u.list())
	case n < 88:
		b.advance(time.Duration(r.IntN(90)) * time.Second)
	case n < 93:
		b.stallModel(m)
	case n < 96:
		b.sweep()
		for _, u := range m.users {
			if u.expire(now.Add(-m.limits.Retention)); len(u.log)+len(u.jobs)+len(u.keys) == 0 {
				u.last, u.confirmed = events.ID{}, events.ID{} // forgotten
			}
		}
	default:
		b.restart()
	}
}

// stallModel lets stall what is overdue, and takes over the places.
func (b *bench) stallModel(m *model) {
	b.Helper()
	now := b.clock()
	want := 0
	for _, u := range m.users {
		u.expire(now.Add(-m.limits.Retention))
		for _, j := range u.jobs {
			if !j.deadline.IsZero() && !j.deadline.After(now) {
				want++
			}
		}
	}
	same(b, "stalled", b.stall(), want)
	for name, u := range m.users {
		overdue := make(map[string]*modelJob)
		for id, j := range u.jobs {
			if !j.deadline.IsZero() && !j.deadline.After(now) {
				overdue[id] = j
			}
		}
		b.feed.mu.Lock()
		var told []delivery.Delivery
		for _, d := range b.feed.told[name] {
			if d.Name == events.JobStalled && d.Place.Compare(u.last) > 0 {
				told = append(told, d)
			}
		}
		b.feed.mu.Unlock()
		slices.SortFunc(told, func(a, b delivery.Delivery) int { return cmp.Or(a.Place.Compare(b.Place)) })
		for _, d := range told {
			j := overdue[d.JobID]
			if j == nil {
				b.Fatalf("%s of %s stalled", d.JobID, name)
			}
			same(b, "data", string(d.Data), string(delivery.StalledData(d.JobID, j.updated)))
			j.silentSince, j.stalled, j.latest = j.updated, d.Place, delivery.JobStalled
			j.last, j.updated, j.deadline = d.Place, now, time.Time{}
			u.last = d.Place
			u.log = append(u.log, modelMessage{d.Place, now, d.Name, string(d.Data)})
			m.trim(u, d.JobID)
		}
		same(b, "stalled jobs", len(told), len(overdue))
	}
}
