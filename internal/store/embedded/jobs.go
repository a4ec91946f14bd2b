package embedded

import (
	"bytes"
	"context"
	"time"

	"jobwire/internal/delivery"
)

// Jobs implements delivery.Store.
func (s *Store) Jobs(ctx context.Context, q delivery.JobsQuery) (p delivery.JobsPage, err error) {
	in, err := s.enter(ctx)
	if err != nil {
		return p, err
	}
	defer in.leave()
	u, err := in.lock(ctx, q.UserID)
	if err != nil {
		return p, err
	}
	p = u.jobsPage(q, s.cutoff(in.clock()))
	return p, in.settleAndPut(ctx, u)
}

// jobsPage lists jobs by their latest change: it merges the two lists of the user from their ends.
func (u *user) jobsPage(q delivery.JobsQuery, cutoff uint64) delivery.JobsPage {
	p := delivery.JobsPage{Place: u.last}
	size := 0
	for a, b := u.finished.latest, u.running.latest; a != nil || b != nil; {
		var j *job
		if b == nil || a != nil && a.last.Compare(b.last) > 0 {
			j, a = a, a.prev
		} else {
			j, b = b, b.prev
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
		out.End = &delivery.JobEnd{Event: j.end.event, Data: bytes.Clone(j.end.data), ID: j.end.id.String()}
	}
	return out
}
