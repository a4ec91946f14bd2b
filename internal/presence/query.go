package presence

import (
	"container/list"
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
	var lowest []*member
	for _, m := range s.all.online {
		if m.user <= cursor || len(lowest) > limit && m.user > lowest[limit].user {
			continue
		}
		i, _ := slices.BinarySearchFunc(lowest, m.user, func(m *member, user string) int { return strings.Compare(m.user, user) })
		lowest = slices.Insert(lowest[:min(len(lowest), limit)], i, m)
	}
	page = make([]Status, 0, min(limit, len(lowest)))
	for _, m := range lowest[:min(limit, len(lowest))] {
		page = append(page, s.status(m.user))
	}
	if len(lowest) > limit {
		next = page[limit-1].UserID
	}
	return page, next, nil
}

// lastSeen remembers when users went, for those who went last.
type lastSeen struct {
	byUser map[string]*list.Element
	order  *list.List // of seen, oldest first
}

type seen struct {
	user string
	at   time.Time
}

func (l *lastSeen) remember(user string, at time.Time) {
	l.forget(user)
	l.byUser[user] = l.order.PushBack(seen{user, at})
	if l.order.Len() > lastSeenLimit {
		l.forget(l.order.Front().Value.(seen).user)
	}
}

func (l *lastSeen) forget(user string) {
	if e := l.byUser[user]; e != nil {
		l.order.Remove(e)
		delete(l.byUser, user)
	}
}

// at is the zero time for users who are not remembered.
func (l *lastSeen) at(user string) time.Time {
	if e := l.byUser[user]; e != nil {
		return e.Value.(seen).at
	}
	return time.Time{}
}
