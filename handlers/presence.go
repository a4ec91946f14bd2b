package handlers

import (
	"context"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"

	"jobwire/internal/events"
	"jobwire/internal/presence"
)

const (
	defaultPresencePage = 100
	// maxPresenceBody holds presence.QueryLimit of the longest ids, escaped.
	maxPresenceBody = 1 << 20 // bytes
)

// PresenceReader knows who is online.
type PresenceReader interface {
	// List is one page of who is online, in the order of user ids, beginning after cursor; next is "" on the last page.
	List(ctx context.Context, cursor string, limit int) (page []presence.Status, next string, err error)
	Count(ctx context.Context) (int, error)
	Get(ctx context.Context, userID string) (presence.Status, error)
	// Query answers every user in its place, presence.QueryLimit at most.
	Query(ctx context.Context, userIDs []string) ([]presence.Status, error)
}

// Presence answers who is online. Workers see every tenant.
type Presence struct {
	reader PresenceReader
}

// NewPresence answers from reader.
func NewPresence(reader PresenceReader) *Presence { return &Presence{reader: reader} }

type presenceStatus struct {
	UserID   string     `json:"userId"`
	Online   bool       `json:"online"`
	Sockets  int        `json:"sockets"`
	LastSeen *time.Time `json:"lastSeen,omitempty"`
}

func statusOf(s presence.Status) presenceStatus {
	status := presenceStatus{UserID: s.UserID, Online: s.Online, Sockets: s.Sockets}
	if !s.LastSeen.IsZero() {
		lastSeen := s.LastSeen.UTC().Truncate(time.Millisecond)
		status.LastSeen = &lastSeen
	}
	return status
}

func statusesOf(list []presence.Status) []presenceStatus {
	statuses := make([]presenceStatus, len(list)) // never null
	for i := range list {
		statuses[i] = statusOf(list[i])
	}
	return statuses
}

type presencePage struct {
	Users []presenceStatus `json:"users"`
	Next  string           `json:"next,omitempty"`
}

// List is GET /v1/presence?limit&cursor.
func (p *Presence) List(c *gin.Context) {
	query := c.Request.URL.Query()
	limit, cursor := defaultPresencePage, query.Get("cursor")
	if text := query.Get("limit"); text != "" {
		var err error
		if limit, err = strconv.Atoi(text); err != nil || limit < 1 || limit > presence.ListLimit {
			fail(c, &events.Error{
				Code: codeInvalidLimit, Field: "limit",
				Detail: "limit must be a number from 1 to " + strconv.Itoa(presence.ListLimit),
			})
			return
		}
	}
	if cursor != "" && events.CheckUserID(cursor) != nil {
		fail(c, &events.Error{Code: codeInvalidCursor, Field: "cursor"})
		return
	}
	page, next, err := p.reader.List(c.Request.Context(), cursor, limit)
	if err != nil {
		fail(c, err)
		return
	}
	answer(c, presencePage{Users: statusesOf(page), Next: next})
}

type presenceCount struct {
	Count int `json:"count"`
}

// Count is GET /v1/presence/count.
func (p *Presence) Count(c *gin.Context) {
	count, err := p.reader.Count(c.Request.Context())
	if err != nil {
		fail(c, err)
		return
	}
	answer(c, presenceCount{Count: count})
}

// Get is GET /v1/presence/{userId}.
func (p *Presence) Get(c *gin.Context) {
	userID, err := userInPath(c)
	if err != nil {
		fail(c, err)
		return
	}
	status, err := p.reader.Get(c.Request.Context(), userID)
	if err != nil {
		fail(c, err)
		return
	}
	answer(c, statusOf(status))
}

type presenceAnswer struct {
	Users []presenceStatus `json:"users"`
}

// Query is POST /v1/presence/query {userIds}: the states in the order of the
// ids. It can ask for every user, also for those whose id no path can hold.
func (p *Presence) Query(c *gin.Context) {
	body, err := readBody(c, maxPresenceBody)
	if err != nil {
		fail(c, err)
		return
	}
	var ids []events.UserID
	if err := events.DecodeObject(body, map[string]any{"userIds": &ids}); err != nil {
		fail(c, err)
		return
	}
	switch {
	case ids == nil:
		fail(c, &events.Error{Code: events.CodeMissingField, Field: "userIds"})
		return
	case len(ids) > presence.QueryLimit:
		fail(c, &events.Error{
			Code: events.CodeBatchTooLarge, Field: "userIds",
			Detail: "a query has at most " + strconv.Itoa(presence.QueryLimit) + " ids",
		})
		return
	}
	userIDs := make([]string, len(ids))
	for i, id := range ids {
		userIDs[i] = string(id)
	}
	statuses, err := p.reader.Query(c.Request.Context(), userIDs)
	if err != nil {
		fail(c, err)
		return
	}
	answer(c, presenceAnswer{Users: statusesOf(statuses)})
}
