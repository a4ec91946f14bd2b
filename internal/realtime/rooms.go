package realtime

import (
	"hash/maphash"
	"math"
	"sync"

	"jobwire/internal/engine"
	"jobwire/internal/events"
)

// index knows which sessions are in which room. It is split into shards, each with a lock of its own, under which nobody is
// called. A room exists as long as somebody is in it or has reserved a seat; both change under one lock, so a room that its
// last member leaves while another joins is never lost.
type index struct {
	seed   maphash.Seed
	seat   func(*Session) *seat // that in a room of this index
	shards [64]shard
}

type shard struct {
	mu    sync.Mutex
	rooms map[string]*room
}

// room is guarded by its shard's mu.
type room struct {
	name     string
	members  []member // in no order
	reserved int      // seats promised to sessions that are still connecting
}

// member is a session in a room, with all that an emit has to look at: the session itself is a cache line that a fan-out would
// have to wait for.
type member struct {
	session *Session
	open    *engine.Conn // nil while the session is to be asked, see Session.open
	shown   events.ID    // what has a place up to there is left out; everything before Session.JoinUser
}

// unseen is the place of a member to whom nothing is emitted yet.
var unseen = events.ID{Ms: math.MaxUint64, Seq: math.MaxUint64}

// seat is one session's place in one room. A session has one in each index.
type seat struct {
	room *room // guarded by the session's mu; nil while the seat is not taken
	at   int   // guarded by the mu of the room's shard: others move it when they leave
}

func newIndex(seat func(*Session) *seat) *index {
	x := &index{seed: maphash.MakeSeed(), seat: seat}
	for i := range x.shards {
		x.shards[i].rooms = make(map[string]*room)
	}
	return x
}

func (x *index) shard(name string) *shard {
	return &x.shards[maphash.String(x.seed, name)%uint64(len(x.shards))]
}

// room returns the room of that name, which it makes if need be. The caller holds the shard's mu.
func (h *shard) room(name string) *room {
	r := h.rooms[name]
	if r == nil {
		r = &room{name: name}
		h.rooms[name] = r
	}
	return r
}

// drop forgets a room that nobody needs. The caller holds the shard's mu.
func (h *shard) drop(r *room) {
	if len(r.members) == 0 && r.reserved == 0 {
		delete(h.rooms, r.name)
	}
}

// reserve promises one more seat in the room, unless limit seats are taken or promised.
func (x *index) reserve(name string, limit int) bool {
	h := x.shard(name)
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.room(name)
	if len(r.members)+r.reserved >= limit {
		h.drop(r)
		return false
	}
	r.reserved++
	return true
}

// release takes back one promise of reserve.
func (x *index) release(name string) {
	h := x.shard(name)
	h.mu.Lock()
	defer h.mu.Unlock()
	if r := h.rooms[name]; r != nil {
		r.reserved--
		h.drop(r)
	}
}

// join seats a session that has no seat yet. promised says that the seat was reserved. The caller of this and of what follows
// holds the session's mu.
func (x *index) join(name string, s *Session, promised bool, shown events.ID) {
	h := x.shard(name)
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.room(name)
	if promised {
		r.reserved--
	}
	*x.seat(s) = seat{r, len(r.members)}
	r.members = append(r.members, member{session: s, shown: shown})
}

// leave frees the session's seat, if it has one.
func (x *index) leave(s *Session) {
	taken := x.seat(s)
	r := taken.room
	if r == nil {
		return
	}
	h := x.shard(r.name)
	h.mu.Lock()
	defer h.mu.Unlock()
	last := len(r.members) - 1
	r.members[taken.at] = r.members[last]
	x.seat(r.members[last].session).at = taken.at
	r.members[last] = member{}
	r.members = r.members[:last]
	taken.room = nil
	h.drop(r)
}

// change lets update change how a session stands in its room, if it has a seat.
func (x *index) change(s *Session, update func(*member)) {
	taken := x.seat(s)
	if taken.room == nil {
		return
	}
	h := x.shard(taken.room.name)
	h.mu.Lock()
	defer h.mu.Unlock()
	update(&taken.room.members[taken.at])
}

// sessionsIn returns those who are in the room now.
func (x *index) sessionsIn(name string) []*Session {
	members := x.appendMembers(nil, name)
	sessions := make([]*Session, len(members))
	for i := range members {
		sessions[i] = members[i].session
	}
	return sessions
}

// count returns how many members of a room are emitted to.
func (x *index) count(name string) (members int) {
	h := x.shard(name)
	h.mu.Lock()
	defer h.mu.Unlock()
	if r := h.rooms[name]; r != nil {
		for i := range r.members {
			if r.members[i].shown != unseen {
				members++
			}
		}
	}
	return members
}

// size returns how many rooms there are.
func (x *index) size() (rooms int) {
	for i := range x.shards {
		h := &x.shards[i]
		h.mu.Lock()
		rooms += len(h.rooms)
		h.mu.Unlock()
	}
	return rooms
}

// RoomPacket is a Socket.IO packet for a room.
type RoomPacket struct {
	Packet     []byte // from events.Encode; copied by the call that takes it
	ExceptUser string // whose sessions do not get it; at most one packet of a call names the same user. "" for none
}

// EmitRoom sends packets to the sessions in a room, in order and past what is kept back. They are encoded once, and each
// session gets all that are for it in one write. It returns to how many sessions.
func (h *Hub) EmitRoom(room string, packets []RoomPacket) (sockets int) {
	sessions := h.rooms.sessionsIn(room)
	if len(sessions) == 0 || len(packets) == 0 {
		return 0
	}
	var batch engine.Batch
	except := make(map[string]int) // the places of packets that leave a user out
	for i, p := range packets {
		batch.Add(p.Packet)
		if p.ExceptUser != "" {
			except[p.ExceptUser] = i
		}
	}
	last, deliveries := len(packets), 0
	all := [1]*engine.Frame{batch.Frame(0, last)}
	for _, s := range sessions {
		frames, n := all[:], last
		if i, out := except[s.userID]; out {
			if n--; n == 0 {
				continue
			}
			frames = frames[:0:0]
			if i > 0 {
				frames = append(frames, batch.Frame(0, i))
			}
			if i+1 < last {
				frames = append(frames, batch.Frame(i+1, last))
			}
		}
		if s.send(frames, events.ID{}, false) {
			sockets++
			deliveries += n
		}
	}
	h.count.emits.Add(1)
	h.count.deliveries.Add(uint64(deliveries))
	return sockets
}
