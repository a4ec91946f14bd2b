package presence

import (
	"context"
	"encoding/json"
	"strconv"

	"jobwire/internal/events"
)

// listed is the text of who is online in a scope, as far as online_users names them. It is kept while users come, and made
// anew, when it is asked for, after one of it has gone.
type listed struct {
	text  []byte // JSON strings with commas between them: those of the first n of scope.online
	n     int
	start int // of the last one with its comma
}

// onlineUsers is {users, count} for a viewer: at most SnapshotLimit users, the viewer among them if online, and the exact
// count of all. A viewer "" is no user.
func (sc *scope) onlineUsers(viewer string) []byte {
	l := &sc.listed
	for ; l.n < min(len(sc.online), SnapshotLimit); l.n++ {
		l.start = len(l.text)
		if l.n > 0 {
			l.text = append(l.text, ',')
		}
		l.text = append(l.text, sc.online[l.n].text...)
	}
	data := append(make([]byte, 0, len(l.text)+64), `{"users":[`...)
	if m := sc.members[viewer]; m != nil && m.visible && m.pos >= l.n { // and there it takes the place of the last one
		data = append(append(append(data, l.text[:l.start]...), ','), m.text...)
	} else {
		data = append(data, l.text...)
	}
	data = append(data, `],"count":`...)
	return append(strconv.AppendInt(data, int64(len(sc.online)), 10), '}')
}

// OnlineUsers is who is online to a user, as clients get it: {users, count}. It names at most SnapshotLimit users, the viewer
// among them if online; count is exact.
func (s *Service) OnlineUsers(_ context.Context, viewer, tenant string) (json.RawMessage, error) {
	data, _ := s.onlineUsers(viewer, tenant)
	return data, nil
}

// onlineUsers returns also how many changes it knows of.
func (s *Service) onlineUsers(viewer, tenant string) (data []byte, changes uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sc := s.scopeOf(tenant)
	return sc.onlineUsers(viewer), sc.changes
}

// Welcome sends online_users to a socket that has arrived and is in its room. send must bring packets to that socket alone,
// in order, and must not block.
//
// An announcement may have reached the socket just before a list that does not know of it yet, and the client would forget
// what it said. So after an announcement of such a change the list is sent again; what has changed since a list was made, and
// was not announced before it was sent, will be.
func (s *Service) Welcome(_ context.Context, viewer, tenant string, send func(packet []byte)) error {
	for {
		data, changes := s.onlineUsers(viewer, tenant)
		send(events.Encode(events.OnlineUsers, data, events.ID{}))
		if s.told(tenant) <= changes {
			return nil
		}
	}
}

// told is how many changes of what a tenant's users see may have been announced.
func (s *Service) told(tenant string) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.scopeOf(tenant).told
}

// timeFormat is RFC 3339 in UTC with milliseconds, as JavaScript writes it.
const timeFormat = "2006-01-02T15:04:05.000Z"

// announcement is user_online {userId} or user_offline {userId, lastSeen}. There is no id to give, so the packet does not end
// in a string argument, which clients would take for a recovery offset.
func (m *member) announcement() []byte {
	name := events.UserOnline
	data := append([]byte(`{"userId":`), m.text...)
	if !m.visible {
		name = events.UserOffline
		data = m.left.UTC().AppendFormat(append(data, `,"lastSeen":"`...), timeFormat)
		data = append(data, '"')
	}
	return events.Encode(name, append(data, '}'), events.ID{})
}
