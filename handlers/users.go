package handlers

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"net/http"

	"github.com/gin-gonic/gin"

	"jobwire/internal/delivery"
	"jobwire/internal/events"
)

const (
	maxReasonLen      = 256     // bytes
	maxDisconnectBody = 4 << 10 // bytes
	defaultReason     = "the session was ended by the application"
)

// UserService knows the jobs of users, and ends their sessions.
type UserService interface {
	Jobs(ctx context.Context, q delivery.JobsQuery) (delivery.JobsPage, error)
	// Disconnect closes all sockets of a user, after telling them the reason.
	Disconnect(ctx context.Context, userID, reason string) (sockets int, err error)
}

// Users answers calls about one user.
type Users struct {
	service UserService
}

// NewUsers answers from service.
func NewUsers(service UserService) *Users { return &Users{service: service} }

// jobsQuestion asks for one page of a user's jobs. It is the argument of get_jobs, which may be left out, and the query of
// GET /v1/users/{userId}/jobs.
type jobsQuestion struct {
	Limit  *int    `json:"limit"`
	Before *string `json:"before"` // the `next` of the page before
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
		if q.Before, err = events.ParseID(*in.Before); err != nil || q.Before.IsZero() {
			return q, refuse(codeInvalidCursor, "before", "before must be the next of an earlier page")
		}
	}
	return q, checkLimit(q.Limit, delivery.MaxJobsLimit)
}

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

// Jobs is GET /v1/users/{userId}/jobs?limit&before.
func (u *Users) Jobs(c *gin.Context) (any, error) {
	userID, err := userInPath(c)
	if err != nil {
		return nil, err
	}
	query := c.Request.URL.Query()
	limit := limitIn(query, delivery.DefaultJobsLimit)
	question := jobsQuestion{Limit: &limit}
	if before := query.Get("before"); before != "" {
		question.Before = &before
	}
	q, err := question.query(userID)
	if err != nil {
		return nil, err
	}
	page, err := u.service.Jobs(c.Request.Context(), q)
	return newJobList(page), err
}

// Disconnect is POST /v1/users/{userId}/disconnect {reason}: every socket of the user hears `unauthorized`
// {code: "disconnected", message: reason} and is closed for good. The body may be left out.
func (u *Users) Disconnect(c *gin.Context) (any, error) {
	userID, err := userInPath(c)
	if err != nil {
		return nil, err
	}
	reason := ""
	if !leftOut(c.Request) {
		body, err := readBody(c.Request, maxDisconnectBody)
		if err != nil {
			return nil, err
		}
		if err := events.DecodeObject(body, map[string]any{"reason": &reason}); err != nil {
			return nil, err
		}
		if len(reason) > maxReasonLen {
			return nil, refuse(codeInvalidReason, "reason", "")
		}
	}
	sockets, err := u.service.Disconnect(c.Request.Context(), userID, cmp.Or(reason, defaultReason))
	return gin.H{"sockets": sockets}, err
}

// leftOut reports whether a request has no body. Of a chunked one that shows only when it is read, and what was read is put
// back.
func leftOut(r *http.Request) bool {
	if r.ContentLength >= 0 {
		return r.ContentLength == 0
	}
	first := make([]byte, 1)
	n, err := r.Body.Read(first)
	if n == 0 && errors.Is(err, io.EOF) {
		return true
	}
	r.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(first[:n]), r.Body), r.Body}
	return false
}
