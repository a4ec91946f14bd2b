package presence

import (
	"encoding/json"
	"time"
)

// scope is a set of users who are online to the same audience. All of it is guarded by the service's mu.
type scope struct {
	room    string             // where changes are announced; "" for nowhere
	members map[string]*member // visible ones, and those not yet announced as gone
	online  []*member          // the visible ones, in no order
	changed []*member          // those to announce, in the order in which they changed
	version uint64             // counts announcements
	listed  listed             // the text of online
}

// member is a user within a scope.
type member struct {
	scope   *scope
	user    string
	text    []byte   // user as JSON
	sockets []string // ids; few, mostly one
	visible bool     // online to others: has sockets, or had some within the grace
	changed bool     // in scope.changed
	pos     int      // in scope.online, while visible
	left    time.Time
}

func newScope(room string) *scope {
	return &scope{room: room, members: map[string]*member{}}
}

// member finds or makes the member for a user.
func (sc *scope) member(user string) *member {
	m := sc.members[user]
	if m == nil {
		text, _ := json.Marshal(user) // a string: cannot fail
		m = &member{scope: sc, user: user, text: text}
		sc.members[user] = m
	}
	return m
}

func (sc *scope) show(m *member) {
	m.visible, m.pos = true, len(sc.online)
	sc.online = append(sc.online, m)
}

func (sc *scope) hide(m *member) {
	if m.pos < sc.listed.n {
		sc.listed = listed{text: sc.listed.text[:0]}
	}
	last := len(sc.online) - 1
	sc.online[m.pos] = sc.online[last]
	sc.online[m.pos].pos = m.pos
	sc.online[last] = nil
	sc.online = sc.online[:last]
	m.visible = false
}
