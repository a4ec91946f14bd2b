package handlers

import (
	"bytes"
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

// Jobs is GET /v1/users/{userId}/jobs?limit&before.
func (u *Users) Jobs(c *gin.Context) {
	userID, err := userInPath(c)
	if err != nil {
		fail(c, err)
		return
	}
	q, err := jobsQuery(userID, c.Request.URL.Query())
	if err != nil {
		fail(c, err)
		return
	}
	page, err := u.service.Jobs(c.Request.Context(), q)
	if err != nil {
		fail(c, err)
		return
	}
	answer(c, newJobList(page))
}

type disconnected struct {
	Sockets int `json:"sockets"`
}

// Disconnect is POST /v1/users/{userId}/disconnect {reason}: every socket of
// the user hears `unauthorized` {code: "disconnected", message: reason} and
// is closed for good. The body may be left out.
func (u *Users) Disconnect(c *gin.Context) {
	userID, err := userInPath(c)
	if err != nil {
		fail(c, err)
		return
	}
	reason, err := readReason(c)
	if err != nil {
		fail(c, err)
		return
	}
	sockets, err := u.service.Disconnect(c.Request.Context(), userID, reason)
	if err != nil {
		fail(c, err)
		return
	}
	answer(c, disconnected{Sockets: sockets})
}

func readReason(c *gin.Context) (string, error) {
	if leftOut(c.Request) {
		return defaultReason, nil
	}
	body, err := readBody(c, maxDisconnectBody)
	if err != nil {
		return "", err
	}
	var reason string
	if err := events.DecodeObject(body, map[string]any{"reason": &reason}); err != nil {
		return "", err
	}
	switch {
	case reason == "":
		return defaultReason, nil
	case len(reason) > maxReasonLen:
		return "", &events.Error{Code: codeInvalidReason, Field: "reason"}
	}
	return reason, nil
}

// leftOut reports whether a request has no body. Of a chunked one that shows
// only when it is read, and what was read is put back.
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
