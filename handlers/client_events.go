package handlers

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"jobwire/internal/auth"
	"jobwire/internal/delivery"
	"jobwire/internal/events"
	"jobwire/internal/realtime"
	"jobwire/middleware"
)

// RegisterClientEvents lists all that a client may send. Add a row to offer more: a name, a payload type, and a function from
// it to the ack.
func RegisterClientEvents(hub *realtime.Hub, sessions *Sessions, jobs JobTeller, verifier middleware.TokenVerifier) {
	realtime.Handle(hub, "authenticate", refreshToken(verifier))
	realtime.Handle(hub, "get_online_users", sessions.getOnlineUsers)
	realtime.HandleInOrder(hub, "get_jobs", sessions.getJobs(jobs))
}

type tokenPayload struct {
	Token string `json:"token"`
}

// refreshToken exchanges the token of a live socket for a newer one of the same user, so that the connection outlives the old
// one's expiry.
func refreshToken(verifier middleware.TokenVerifier) func(context.Context, *realtime.Session, tokenPayload) (any, error) {
	return func(ctx context.Context, session *realtime.Session, in tokenPayload) (any, error) {
		id, err := verifier.Verify(ctx, auth.TrimBearer(in.Token))
		if err != nil {
			return nil, err
		}
		if err := session.Refresh(id); err != nil {
			return nil, err
		}
		return newIdentity(id), nil
	}
}

func (s *Sessions) getOnlineUsers(ctx context.Context, session *realtime.Session, _ struct{}) (any, error) {
	id := session.Identity()
	return s.audience.OnlineUsers(ctx, id.UserID, id.Tenant)
}

// JobTeller answers the questions of connected sockets.
type JobTeller interface {
	// JobsInOrder calls answer once, before it returns, at the place in what the socket is sent at which the jobs were read:
	// what is older went before, what is newer of a job follows. answer must not block.
	JobsInOrder(ctx context.Context, q delivery.JobsQuery, answer func(delivery.JobsPage, error))
}

// getJobs is get_jobs {limit?, before?}: the jobs of the session's own user, acked at their place in what the session is sent.
func (s *Sessions) getJobs(jobs JobTeller) func(context.Context, *realtime.Session, *jobsQuestion, func(any, error)) {
	return func(ctx context.Context, session *realtime.Session, in *jobsQuestion, ack func(any, error)) {
		bucket := s.asks.of(session)
		if !bucket.AllowN(s.asks.now(), 1) {
			ack(nil, refuse(middleware.CodeRateLimited, "", "This connection asks for jobs too often."))
			return
		}
		q, err := in.query(session.UserID())
		if err != nil {
			ack(nil, refuse(realtime.CodeInvalidPayload, "", "The argument does not fit: "+refusalOf(err).Detail+"."))
			return
		}
		jobs.JobsInOrder(ctx, q, func(page delivery.JobsPage, err error) {
			if err != nil {
				ack(nil, askFailure(err))
				return
			}
			bucket.ReserveN(s.asks.now(), min(sizeOf(page)/asksBytes, asksBurst)) // also when it is not there yet
			ack(newJobList(page), nil)
		})
	}
}

// askFailure is what a client may know of an error of delivery.
func askFailure(err error) error {
	var coded *events.Error
	switch {
	case errors.As(err, &coded) && problems[coded.Code] != nil:
		return refuse(coded.Code, "", problems[coded.Code].title+".")
	case errors.Is(err, delivery.ErrSinkClosed), errors.Is(err, context.Canceled):
		return refuse(realtime.CodeInternal, "", "The connection is closing.") // no client reads it
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

// askLimits is a token bucket for each session that has asked for jobs; forget removes it.
type askLimits struct {
	now func() time.Time

	mu        sync.Mutex
	bySession map[*realtime.Session]*rate.Limiter // guarded by mu
}

// of is the bucket of a session.
func (a *askLimits) of(session *realtime.Session) *rate.Limiter {
	a.mu.Lock()
	defer a.mu.Unlock()
	bucket := a.bySession[session]
	if bucket == nil {
		bucket = rate.NewLimiter(asksRate, asksBurst)
		a.bySession[session] = bucket
	}
	return bucket
}

// forget removes the bucket of a session that has ended.
func (a *askLimits) forget(session *realtime.Session) {
	a.mu.Lock()
	delete(a.bySession, session)
	a.mu.Unlock()
}

// sizeOf is how many bytes of workers' data a page has.
func sizeOf(page delivery.JobsPage) (size int) {
	for i := range page.Jobs {
		size += len(page.Jobs[i].Progress)
		if end := page.Jobs[i].End; end != nil {
			size += len(end.Data)
		}
	}
	return size
}
