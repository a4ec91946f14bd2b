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

// presencePage is the answer of List, and of Query, which has all in one page.
type presencePage struct {
	Users []presenceStatus `json:"users"`
	Next  string           `json:"next,omitempty"`
}

// List is GET /v1/presence?limit&cursor.
func (p *Presence) List(c *gin.Context) (any, error) {
	query := c.Request.URL.Query()
	limit, cursor := limitIn(query, defaultPresencePage), query.Get("cursor")
	if err := checkLimit(limit, presence.ListLimit); err != nil {
		return nil, err
	}
	if cursor != "" && events.CheckUserID(cursor) != nil {
		return nil, refuse(codeInvalidCursor, "cursor", "")
	}
	page, next, err := p.reader.List(c.Request.Context(), cursor, limit)
	return presencePage{Users: statusesOf(page), Next: next}, err
}

// Count is GET /v1/presence/count.
func (p *Presence) Count(c *gin.Context) (any, error) {
	count, err := p.reader.Count(c.Request.Context())
	return gin.H{"count": count}, err
}

// Get is GET /v1/presence/{userId}.
func (p *Presence) Get(c *gin.Context) (any, error) {
	userID, err := userInPath(c)
	if err != nil {
		return nil, err
	}
	status, err := p.reader.Get(c.Request.Context(), userID)
	return statusOf(status), err
}

// Query is POST /v1/presence/query {userIds}: the states in the order of the ids. It can ask for every user, also for those
// whose id no path can hold.
func (p *Presence) Query(c *gin.Context) (any, error) {
	body, err := readBody(c.Request, maxPresenceBody)
	if err != nil {
		return nil, err
	}
	var ids []events.UserID
	if err := events.DecodeObject(body, map[string]any{"userIds": &ids}); err != nil {
		return nil, err
	}
	switch {
	case ids == nil:
		return nil, refuse(events.CodeMissingField, "userIds", "")
	case len(ids) > presence.QueryLimit:
		return nil, refuse(events.CodeBatchTooLarge, "userIds", "a query has at most "+strconv.Itoa(presence.QueryLimit)+" ids")
	}
	userIDs := make([]string, len(ids))
	for i, id := range ids {
		userIDs[i] = string(id)
	}
	statuses, err := p.reader.Query(c.Request.Context(), userIDs)
	return presencePage{Users: statusesOf(statuses)}, err
}
