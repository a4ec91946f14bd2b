package embedded

import (
	"bytes"
	"context"
	"slices"
	"time"

	"jobwire/internal/delivery"
	"jobwire/internal/events"
)

// Read implements delivery.Store.
func (s *Store) Read(ctx context.Context, q delivery.Query) (p delivery.Page, err error) {
	in, u, err := s.begin(ctx, q.UserID)
	if err != nil {
		return p, err
	}
	defer in.leave()
	if q.Next == nil && q.HasOffset { // the log must show it
		if err := in.finish(ctx, u, u.pending()); err != nil {
			return p, err
		}
		if u, err = in.lock(ctx, q.UserID); err != nil {
			return p, err
		}
	}
	at, cutoff, recovered := q.Next, s.cutoff(in.clock()), true
	if at == nil {
		at = &delivery.QueryState{Until: u.last}
		if q.HasOffset {
			if recovered, err = in.hasMessage(u, q.Offset, cutoff); err != nil {
				in.put(u)
				return p, err
			}
			at.From = q.Offset
		}
		if !q.HasOffset || !recovered {
			at.From = later(u.confirmed, q.Confirmed)
			if at.From.Compare(q.Since) > 0 {
				at.From = q.Since
			}
		}
	}
	states := u.states(at, q, cutoff)
	if err := in.finish(ctx, u, u.pending()); err != nil {
		return p, err
	}
	page := delivery.Page{Recovered: recovered, Place: at.Until}
	if err := in.read(func() error { return in.fill(&page, q, *at, states, cutoff) }); err != nil {
		return p, err // the page is that of a read that goes on, perhaps
	}
	if !q.HasOffset {
		return page, nil
	}
	// What was dropped since the page before is not in this one.
	if u, err = in.lock(ctx, q.UserID); err != nil {
		return p, err
	}
	page.Recovered = page.Recovered && (u.log.dropped.Compare(at.From) <= 0 || u.log.dropped.Compare(at.After) <= 0)
	in.put(u)
	return page, nil
}

// hasMessage reports whether the log has a message, and that is not too old.
func (in *instance) hasMessage(u *user, id events.ID, cutoff uint64) (bool, error) {
	if id.Compare(u.log.dropped) <= 0 || id.Compare(u.last) > 0 {
		return false, nil
	}
	has := false
	err := in.read(func() error {
		b, err := in.get(messageKey(u.name, id))
		if b != nil {
			var m message
			new(codec).decode(b, "a message", &m)
			has = m.at >= cutoff
		}
		return err
	})
	return err == nil && has, err
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
	for j := u.running.oldest(); j != nil; j = j.order.next.item {
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
		r := delivery.Record{Place: f.place, Name: f.j.progress.name}
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
	var c codec
	var m message
	looked := 0
	err := in.scan(next(messageKey(q.UserID, later(at.From, at.After))), next(messageKey(q.UserID, at.Until)), func(key, value []byte) bool {
		place := trailingID(key)
		c.decode(value, "a message", &m)
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

// Jobs implements delivery.Store.
func (s *Store) Jobs(ctx context.Context, q delivery.JobsQuery) (p delivery.JobsPage, err error) {
	in, u, err := s.begin(ctx, q.UserID)
	if err != nil {
		return p, err
	}
	defer in.leave()
	p = u.jobsPage(q, s.cutoff(in.clock()))
	return p, in.finish(ctx, u, u.pending())
}

// jobsPage lists jobs by their latest change: it merges the two lists of the user from their ends.
func (u *user) jobsPage(q delivery.JobsQuery, cutoff uint64) delivery.JobsPage {
	p := delivery.JobsPage{Place: u.last}
	size := 0
	for a, b := u.finished.latest(), u.running.latest(); a != nil || b != nil; {
		var j *job
		if b == nil || a != nil && a.last.Compare(b.last) > 0 {
			j, a = a, a.order.prev.item
		} else {
			j, b = b, b.order.prev.item
		}
		if j.updated < cutoff || !q.Before.IsZero() && j.last.Compare(q.Before) >= 0 {
			continue
		}
		n := len(j.progress.data) + len(j.end.data)
		if len(p.Jobs) > 0 && (len(p.Jobs) >= q.Limit || size+n > delivery.MaxJobsBytes) {
			p.Next = p.Jobs[len(p.Jobs)-1].Place
			break
		}
		size += n
		p.Jobs = append(p.Jobs, j.show())
	}
	return p
}

// show copies a job's record for the caller.
func (j *job) show() delivery.Job {
	out := delivery.Job{
		JobID: j.name, State: jobStates[j.state], Attempt: j.attempt, Place: j.last,
		StartedAt: time.UnixMilli(int64(j.started)).UTC(), UpdatedAt: time.UnixMilli(int64(j.updated)).UTC(),
	}
	if !j.progress.place.IsZero() {
		out.Progress = bytes.Clone(j.progress.data)
	}
	if j.finished() {
		out.End = &delivery.JobEnd{Event: j.end.name, Data: bytes.Clone(j.end.data), ID: j.end.place.String()}
	}
	return out
}
