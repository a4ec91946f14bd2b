package handlers

import (
	"context"
	"errors"
	"net/url"
	"strconv"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"jobwire/internal/delivery"
	"jobwire/internal/events"
	"jobwire/internal/realtime"
	"jobwire/middleware"
)

// jobList is one page of a user's jobs, the same for workers and for clients.
type jobList struct {
	Jobs []delivery.Job `json:"jobs"`
	Next string         `json:"next,omitempty"`
}

func newJobList(page delivery.JobsPage) jobList {
	list := jobList{Jobs: page.Jobs}
	if list.Jobs == nil {
		list.Jobs = []delivery.Job{} // a list, never null
	}
	if !page.Next.IsZero() {
		list.Next = page.Next.String()
	}
	return list
}

// jobsQuery reads ?limit&before.
func jobsQuery(userID string, values url.Values) (delivery.JobsQuery, error) {
	q := delivery.JobsQuery{UserID: userID, Limit: delivery.DefaultJobsLimit}
	var err error
	if text := values.Get("limit"); text != "" {
		if q.Limit, err = strconv.Atoi(text); err != nil {
			q.Limit = 0 // out of range
		}
	}
	if text := values.Get("before"); text != "" {
		if q.Before, err = parseBefore(text); err != nil {
			return q, err
		}
	}
	return q, checkLimit(q.Limit)
}

func checkLimit(limit int) error {
	if limit < 1 || limit > delivery.MaxJobsLimit {
		return &events.Error{
			Code: codeInvalidLimit, Field: "limit",
			Detail: "limit must be a number from 1 to " + strconv.Itoa(delivery.MaxJobsLimit),
		}
	}
	return nil
}

// parseBefore reads the `next` of the page before.
func parseBefore(text string) (events.ID, error) {
	id, err := events.ParseID(text)
	if err != nil || id.IsZero() {
		return events.ID{}, &events.Error{Code: codeInvalidCursor, Field: "before", Detail: "before must be the next of an earlier page"}
	}
	return id, nil
}

// JobTeller answers the questions of connected sockets.
type JobTeller interface {
	// JobsInOrder calls answer once, before it returns, at the place in what the socket is sent at which the jobs were read:
	// what is older went before, what is newer of a job follows. answer must not block.
	JobsInOrder(ctx context.Context, q delivery.JobsQuery, answer func(delivery.JobsPage, error))
}

// jobsQuestion is the argument of get_jobs, which may be left out.
type jobsQuestion struct {
	Limit  *int    `json:"limit"`
	Before *string `json:"before"`
}

// query makes the question one about that user's jobs.
func (in *jobsQuestion) query(userID string) (delivery.JobsQuery, error) {
	q := delivery.JobsQuery{UserID: userID, Limit: delivery.DefaultJobsLimit}
	if in == nil {
		return q, nil
	}
	if in.Limit != nil {
		q.Limit = *in.Limit
	}
	if in.Before != nil {
		var err error
		if q.Before, err = parseBefore(*in.Before); err != nil {
			return q, err
		}
	}
	return q, checkLimit(q.Limit)
}

// getJobs is get_jobs {limit?, before?}: the jobs of the session's own user, acked at their place in what the session is sent.
func (s *Sessions) getJobs(jobs JobTeller) func(context.Context, *realtime.Session, *jobsQuestion, func(any, error)) {
	return func(ctx context.Context, session *realtime.Session, in *jobsQuestion, ack func(any, error)) {
		if !s.asks.allow(session) {
			ack(nil, &events.Error{Code: middleware.CodeRateLimited, Detail: "This connection asks for jobs too often."})
			return
		}
		q, err := in.query(session.UserID())
		if err != nil {
			ack(nil, &events.Error{Code: realtime.CodeInvalidPayload, Detail: "The argument does not fit: " + refusalOf(err).Detail + "."})
			return
		}
		jobs.JobsInOrder(ctx, q, func(page delivery.JobsPage, err error) {
			if err != nil {
				ack(nil, askFailure(err))
				return
			}
			s.asks.charge(session, page)
			ack(newJobList(page), nil)
		})
	}
}

// askFailure is what a client may know of an error of delivery.
func askFailure(err error) error {
	var coded *events.Error
	switch {
	case errors.As(err, &coded) && problems[coded.Code] != nil:
		return &events.Error{Code: coded.Code, Detail: problems[coded.Code].title + "."}
	case errors.Is(err, delivery.ErrSinkClosed), errors.Is(err, context.Canceled):
		return &events.Error{Code: realtime.CodeInternal, Detail: "The connection is closing."} // no client reads it
	}
	return err
}

// How often a session may ask for jobs: a burst, refilled at a rate a second. An ask takes one, and one more for each
// asksBytes of the data in its answer.
const (
	asksBurst = 500
	asksRate  = 20
	asksBytes = 16 << 10
)

// askLimits is a token bucket for each session that has asked for jobs; forget removes it. The zero value is ready.
type askLimits struct {
	now func() time.Time // time.Now when nil

	mu        sync.Mutex
	bySession map[*realtime.Session]*rate.Limiter // guarded by mu
}

func (a *askLimits) time() time.Time {
	if a.now != nil {
		return a.now()
	}
	return time.Now()
}

// allow takes one token of the session's bucket, if it has one.
func (a *askLimits) allow(session *realtime.Session) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	bucket := a.bySession[session]
	if bucket == nil {
		if a.bySession == nil {
			a.bySession = make(map[*realtime.Session]*rate.Limiter)
		}
		bucket = rate.NewLimiter(asksRate, asksBurst)
		a.bySession[session] = bucket
	}
	return bucket.AllowN(a.time(), 1)
}

// charge takes what the answer costs beyond that, also when it is not there yet.
func (a *askLimits) charge(session *realtime.Session, page delivery.JobsPage) {
	size := 0
	for i := range page.Jobs {
		job := &page.Jobs[i]
		size += len(job.Progress)
		if job.End != nil {
			size += len(job.End.Data)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if bucket := a.bySession[session]; bucket != nil {
		bucket.ReserveN(a.time(), min(size/asksBytes, asksBurst))
	}
}

// forget removes the bucket of a session that has ended.
func (a *askLimits) forget(session *realtime.Session) {
	a.mu.Lock()
	delete(a.bySession, session)
	a.mu.Unlock()
}
