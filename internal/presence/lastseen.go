package presence

import (
	"container/list"
	"time"
)

// lastSeen remembers when users went, for those who went last.
type lastSeen struct {
	byUser map[string]*list.Element
	order  *list.List // of seen, oldest first
}

type seen struct {
	user string
	at   time.Time
}

func newLastSeen() lastSeen {
	return lastSeen{byUser: map[string]*list.Element{}, order: list.New()}
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
