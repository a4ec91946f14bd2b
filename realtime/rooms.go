package realtime

import (
	"hash/maphash"
	"sync"

	"jobwire/engine"
)

// index knows which sessions are in which room. It is split into shards, each with a lock of its own, under which nobody is
// called. A room exists as long as somebody is in it or has reserved a seat; both change under one lock, so a room that its
// last member leaves while another joins is never lost.
type index struct {
	seed   maphash.Seed
	shards [64]shard
}

type shard struct {
	mu    sync.Mutex
	rooms map[string]*room
}

// room is guarded by its shard's mu.
type room struct {
	name string
	// sessions are the members in no order; seats[i] is where sessions[i] sits, and open[i] its connection once it takes
	// messages as they come, see index.open. They are slices of their own, so that a snapshot of the members is two copies.
	sessions []*Session
	open     []*engine.Conn
	seats    []*seat
	reserved int // seats promised to sessions that are still connecting
}

// seat is one session's place in one room.
type seat struct {
	session *Session // constant
	room    *room    // guarded by the session's mu; nil while the seat is not taken
	at      int      // guarded by the mu of the room's shard: others move it when they leave
}

// userRoomPrefix begins the names of the rooms that the hub itself fills: "user:<id>".
const userRoomPrefix = "user:"

func newIndex() *index {
	x := &index{seed: maphash.MakeSeed()}
	for i := range x.shards {
		x.shards[i].rooms = make(map[string]*room)
	}
	return x
}

func (x *index) shardOf(name []byte) *shard {
	return &x.shards[maphash.Bytes(x.seed, name)%uint64(len(x.shards))]
}

func (x *index) shardOfString(name string) *shard {
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
	if len(r.sessions) == 0 && r.reserved == 0 {
		delete(h.rooms, r.name)
	}
}

// reserve promises one more seat in the room, unless limit seats are taken or promised.
func (x *index) reserve(name string, limit int) bool {
	h := x.shardOfString(name)
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.room(name)
	if len(r.sessions)+r.reserved >= limit {
		h.drop(r)
		return false
	}
	r.reserved++
	return true
}

// release takes back one promise of reserve.
func (x *index) release(name string) {
	h := x.shardOfString(name)
	h.mu.Lock()
	defer h.mu.Unlock()
	if r := h.rooms[name]; r != nil {
		r.reserved--
		h.drop(r)
	}
}

// join seats a session; taken must not be in a room. promised says that the seat was reserved.
func (x *index) join(name string, taken *seat, promised bool) {
	h := x.shardOfString(name)
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.room(name)
	if promised {
		r.reserved--
	}
	taken.room, taken.at = r, len(r.sessions)
	r.sessions = append(r.sessions, taken.session)
	r.open = append(r.open, nil)
	r.seats = append(r.seats, taken)
}

// leave frees a seat.
func (x *index) leave(taken *seat) {
	r := taken.room
	h := x.shardOfString(r.name)
	h.mu.Lock()
	defer h.mu.Unlock()
	last := len(r.sessions) - 1
	r.sessions[taken.at], r.open[taken.at], r.seats[taken.at] = r.sessions[last], r.open[last], r.seats[last]
	r.seats[taken.at].at = taken.at
	r.sessions[last], r.open[last], r.seats[last] = nil, nil, nil
	r.sessions, r.open, r.seats = r.sessions[:last], r.open[:last], r.seats[:last]
	taken.room = nil
	h.drop(r)
}

// open notes that a session keeps nothing back: from now on an emit may go to its connection without looking at the
// session, which to a fan-out is a cache line that nobody else needs. It stays so until the session leaves.
func (x *index) open(taken *seat) {
	h := x.shardOfString(taken.room.name)
	h.mu.Lock()
	defer h.mu.Unlock()
	taken.room.open[taken.at] = taken.session.conn
}

// crowd is who was in a room at some moment.
type crowd struct {
	sessions []*Session
	open     []*engine.Conn // nil for those to ask at the session
}

// members fills c with those who are in the room now.
func (x *index) members(name []byte, c *crowd) {
	h := x.shardOf(name)
	h.mu.Lock()
	defer h.mu.Unlock()
	if r := h.rooms[string(name)]; r != nil {
		c.sessions = append(c.sessions, r.sessions...)
		c.open = append(c.open, r.open...)
	}
}

// clear empties c for another use. Nothing lives on in it.
func (c *crowd) clear() {
	clear(c.sessions)
	clear(c.open)
	c.sessions, c.open = c.sessions[:0], c.open[:0]
}

// sessionsIn returns those who are in the room now.
func (x *index) sessionsIn(name string) []*Session {
	var c crowd
	x.members([]byte(name), &c)
	return c.sessions
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
