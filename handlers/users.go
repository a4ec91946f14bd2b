package handlers

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"

	"github.com/gin-gonic/gin"

	"jobwire/internal/delivery"
	"jobwire/internal/events"
)

// CodeTokenRevoked is the code of the `unauthorized` event that a user's
// sockets get when a worker disconnects them.
const CodeTokenRevoked = "token_revoked"

const (
	maxReasonLen      = 256     // bytes
	maxDisconnectBody = 4 << 10 // bytes
	defaultReason     = "the session was ended by the application"
)

// Disconnector closes all sockets of a user, after a last packet.
type Disconnector interface {
	DisconnectUser(ctx context.Context, userID string, last []byte) (sockets int, err error)
}

// JobLister knows the jobs of users.
type JobLister interface {
	Jobs(ctx context.Context, userID string) ([]delivery.Job, error)
}

// Users answers calls about one user.
type Users struct {
	disconnector Disconnector
	jobs         JobLister
}

// NewUsers answers from disconnector and jobs.
func NewUsers(disconnector Disconnector, jobs JobLister) *Users {
	return &Users{disconnector: disconnector, jobs: jobs}
}

type disconnected struct {
	Sockets int `json:"sockets"`
}

// Disconnect is POST /v1/users/{userId}/disconnect {reason}: every socket of
// the user hears `unauthorized` {code: "token_revoked", message: reason} and
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
	data, err := json.Marshal(struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}{CodeTokenRevoked, reason})
	if err != nil {
		fail(c, err)
		return
	}
	last := events.Encode(events.Unauthorized, data, events.ID{})
	sockets, err := u.disconnector.DisconnectUser(c.Request.Context(), userID, last)
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

type jobList struct {
	Jobs []delivery.Job `json:"jobs"`
}

// Jobs is GET /v1/users/{userId}/jobs.
func (u *Users) Jobs(c *gin.Context) {
	userID, err := userInPath(c)
	if err != nil {
		fail(c, err)
		return
	}
	jobs, err := u.jobs.Jobs(c.Request.Context(), userID)
	if err != nil {
		fail(c, err)
		return
	}
	if jobs == nil {
		jobs = []delivery.Job{} // a list, never null
	}
	answer(c, jobList{Jobs: jobs})
}
