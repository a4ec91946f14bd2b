package presence

import (
	"container/list"
	"time"
)

// scope is a set of users who are online to the same audience. All of it is
// guarded by the service's mu.
type scope struct {
	room    string             // where changes are announced; "" for nowhere
	members map[string]*member // visible ones, and those not yet announced as gone
	online  []*member          // the visible ones, in no order
}

// member is a user within a scope.
type member struct {
	scope   *scope
	user    string
	sockets []string // ids; few, mostly one
	visible bool     // online to others: has sockets, or had some within the grace
	dirty   bool     // in the service's dirty queue
	pos     int      // in scope.online, while visible
	left    time.Time
}

// state is what is announced of a member.
type state struct {
	room, user string
	visible    bool
	left       time.Time
}

func (m *member) state() state {
	return state{m.scope.room, m.user, m.visible, m.left}
}

// grace is a wait for the return of a member who left at that time.
type grace struct {
	member *member
	left   time.Time
}

func newScope(room string) *scope {
	return &scope{room: room, members: map[string]*member{}}
}

// member finds or makes the member for a user.
func (sc *scope) member(user string) *member {
	m := sc.members[user]
	if m == nil {
		m = &member{scope: sc, user: user}
		sc.members[user] = m
	}
	return m
}

func (sc *scope) show(m *member) {
	m.visible, m.pos = true, len(sc.online)
	sc.online = append(sc.online, m)
}

func (sc *scope) hide(m *member) {
	last := len(sc.online) - 1
	sc.online[m.pos] = sc.online[last]
	sc.online[m.pos].pos = m.pos
	sc.online[last] = nil
	sc.online = sc.online[:last]
	m.visible = false
}

// queue is first in, first out, and gives memory back when it empties.
type queue[T any] struct {
	items []T
	head  int
}

func (q *queue[T]) len() int    { return len(q.items) - q.head }
func (q *queue[T]) first() T    { return q.items[q.head] }
func (q *queue[T]) push(item T) { q.items = append(q.items, item) }

func (q *queue[T]) pop() T {
	var zero T
	item := q.items[q.head]
	q.items[q.head] = zero
	q.head++
	switch {
	case q.head == len(q.items):
		q.items, q.head = nil, 0
	case q.head >= 1024 && q.head >= len(q.items)/2:
		q.items, q.head = append([]T(nil), q.items[q.head:]...), 0
	}
	return item
}

// ghosts remembers the latest sockets that left before they arrived.
type ghosts struct {
	ids   map[string]struct{}
	order queue[string]
}

func (g *ghosts) add(socketID string) {
	if _, known := g.ids[socketID]; known {
		return
	}
	g.ids[socketID] = struct{}{}
	g.order.push(socketID)
	if g.order.len() > ghostLimit {
		delete(g.ids, g.order.pop())
	}
}

// remove reports whether the socket was there. Its place in the order stays
// behind; ids of sockets do not come twice.
func (g *ghosts) remove(socketID string) bool {
	_, known := g.ids[socketID]
	delete(g.ids, socketID)
	return known
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

// recent remembers the latest changes, so that Welcome can tell what it has
// missed. Changes are numbered, and count is the number of the next one.
type recent struct {
	changes [recentLimit]state
	count   uint64
}

func (r *recent) add(st state) {
	r.changes[r.count%recentLimit] = st
	r.count++
}

// since lists the changes in a room from a number on, in their order. It
// reports false when they are no longer all known.
func (r *recent) since(number uint64, room string) ([]state, bool) {
	if r.count-number > recentLimit {
		return nil, false
	}
	var changes []state
	for ; number < r.count; number++ {
		if st := r.changes[number%recentLimit]; st.room == room {
			changes = append(changes, st)
		}
	}
	return changes, true
}
