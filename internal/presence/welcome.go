package presence

import (
	"encoding/json"

	"jobwire/internal/events"
)

// timeFormat is RFC 3339 in UTC with milliseconds, as JavaScript writes it.
const timeFormat = "2006-01-02T15:04:05.000Z"

// packet announces a state: user_online {userId} or user_offline {userId,
// lastSeen}.
func (st state) packet() []byte {
	if st.visible {
		return encode(events.UserOnline, struct {
			UserID string `json:"userId"`
		}{st.user})
	}
	return encode(events.UserOffline, struct {
		UserID   string `json:"userId"`
		LastSeen string `json:"lastSeen"`
	}{st.user, st.left.UTC().Format(timeFormat)})
}

// encode has no id to give, so the packet never ends in a string argument,
// which clients would take for a recovery offset.
func encode(name string, data any) []byte {
	text, err := json.Marshal(data)
	if err != nil {
		panic("presence: " + err.Error()) // strings and numbers only
	}
	return events.Encode(name, text, events.ID{})
}

// Snapshot lists who is online to a user: at most SnapshotLimit of them, the
// viewer first if among them, and the exact count of all.
func (s *Service) Snapshot(viewer, tenant string) (users []string, count int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.snapshot(viewer, s.Room(viewer, tenant))
}

// snapshot needs s.mu held.
func (s *Service) snapshot(viewer, room string) (users []string, count int) {
	sc := s.scopeOf(room)
	if sc == nil {
		return []string{}, 0
	}
	users = make([]string, 0, min(len(sc.online), SnapshotLimit))
	if m := sc.members[viewer]; m != nil && m.visible {
		users = append(users, viewer)
	}
	for _, m := range sc.online {
		if len(users) == SnapshotLimit {
			break
		}
		if m.user != viewer {
			users = append(users, m.user)
		}
	}
	return users, len(sc.online)
}

// Welcome sends a new socket its online_users {users, count} packet. Call it
// once the socket is in its Room; send must bring packets to that socket alone,
// in order, and must not block.
//
// Announcements may reach the socket just before the list that does not know
// of them yet, and the client would forget what they said. So whatever has
// changed since the list was made is sent again after it.
func (s *Service) Welcome(viewer, tenant string, send func(packet []byte)) {
	room := s.Room(viewer, tenant)
	for {
		s.mu.Lock()
		users, count := s.snapshot(viewer, room)
		seen := s.recent.count
		s.mu.Unlock()
		send(encode(events.OnlineUsers, struct {
			Users []string `json:"users"`
			Count int      `json:"count"`
		}{users, count}))

		known := true
		for known {
			var missed []state
			missed, seen, known = s.missed(seen, room)
			if known && len(missed) == 0 {
				return
			}
			for _, st := range missed {
				if st.user != viewer {
					send(st.packet())
				}
			}
		}
	}
}

// missed lists what has changed in a room since seen, up to the number that it
// returns.
func (s *Service) missed(seen uint64, room string) (changes []state, now uint64, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	changes, known = s.recent.since(seen, room)
	return changes, s.recent.count, known
}
