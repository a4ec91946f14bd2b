package presence

import (
	"container/heap"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Status is what workers can know of a user.
type Status struct {
	UserID   string
	Online   bool      // as others see it: stays true during the grace
	Sockets  int       // connected at this moment; 0 during the grace
	LastSeen time.Time // end of the last socket; zero while online, and when not remembered
}

// Count is the number of users online, over all tenants.
func (s *Service) Count(context.Context) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.all.online), nil
}

// Get is the status of one user. A user who was never seen is offline.
func (s *Service) Get(_ context.Context, user string) (Status, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status(user), nil
}

// status needs s.mu held.
func (s *Service) status(user string) Status {
	if m := s.all.members[user]; m != nil && m.visible {
		return Status{UserID: user, Online: true, Sockets: len(m.sockets)}
	}
	return Status{UserID: user, LastSeen: s.lastSeen.at(user)}
}

// Query is the status of each of the users, in the order given. It fails for more than QueryLimit.
func (s *Service) Query(_ context.Context, users []string) ([]Status, error) {
	if len(users) > QueryLimit {
		return nil, fmt.Errorf("%d users asked for, at most %d are answered", len(users), QueryLimit)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	statuses := make([]Status, len(users))
	for i, user := range users {
		statuses[i] = s.status(user)
	}
	return statuses, nil
}

// List is a page of the users online, in the order of their ids: those after cursor, which is "" for the first page, and next
// is the cursor of the page that follows, "" after the last. limit is taken as 1 or ListLimit when it is outside of these.
// Users who come and go meanwhile may be missed; none comes twice.
func (s *Service) List(_ context.Context, cursor string, limit int) (page []Status, next string, err error) {
	limit = max(1, min(limit, ListLimit))
	s.mu.Lock()
	defer s.mu.Unlock()
	// Users are kept in no order: they come and go all the time, and pages are asked for now and then. One walk keeps the
	// lowest limit+1 ids.
	lowest := make(highestFirst, 0, limit+1)
	for _, m := range s.all.online {
		switch {
		case m.user <= cursor:
		case len(lowest) <= limit:
			heap.Push(&lowest, m)
		case m.user < lowest[0].user:
			lowest[0] = m
			heap.Fix(&lowest, 0)
		}
	}
	slices.SortFunc(lowest, func(a, b *member) int { return strings.Compare(a.user, b.user) })
	page = make([]Status, 0, min(limit, len(lowest)))
	for _, m := range lowest[:min(limit, len(lowest))] {
		page = append(page, s.status(m.user))
	}
	if len(lowest) > limit {
		next = page[limit-1].UserID
	}
	return page, next, nil
}

// highestFirst is a heap of members whose first is the one with the highest user id.
type highestFirst []*member

func (h highestFirst) Len() int           { return len(h) }
func (h highestFirst) Less(i, j int) bool { return h[i].user > h[j].user }
func (h highestFirst) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *highestFirst) Push(m any)        { *h = append(*h, m.(*member)) }
func (h *highestFirst) Pop() any {
	last := len(*h) - 1
	m := (*h)[last]
	*h = (*h)[:last]
	return m
}
