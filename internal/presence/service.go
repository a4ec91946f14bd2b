// Package presence knows who is online, and tells those who may know.
//
// In flow the sockets that come and go ([Service.Arrive], [Service.Leave]); out flow announcements through an [Announcer],
// the list for a new socket ([Service.Welcome]), and answers for workers ([Service.List], [Service.Get], [Service.Query],
// [Service.Count]).
//
// A user is online from the first socket until a grace after the last one, however that one ended: a reload, a page that
// mounts its components twice and a lost connection look the same to others. Sockets are told apart by their ids, so the
// late end of an old one takes nothing from a new one.
//
// Who sees whom is decided by the [Audience]. With [Tenant] a user is online or not for each tenant by itself: the sockets
// that came with a token of that tenant count there, and there only. Workers see users over all tenants.
//
// # Announcements
//
// One goroutine, the service's own, waits for the ends of graces and makes all announcements, under no lock. It gathers: the
// first change after a quiet time is announced at once, what follows within gatherTime goes together, and everybody in the
// room gets it in one write. So a thousand who come in a second cost each of them a few writes, not a thousand.
//
// What is announced of a user is the state at that moment, also when that is what was announced last: a list that was made
// in between may say otherwise. So announcements of a user are never out of order, the last one is always true, and states
// in between are left out instead of being queued.
//
// After a start all clients come back at once. While they do, faster than stormRate, nothing is announced. When that is
// over, everybody gets the list once more.
//
// In a cluster it is nodes that count sockets, and a shared store will hold the users of each. That replaces what a scope does
// here, and nothing of the API: the methods have their contexts and errors for a store that is far away.
package presence

import (
	"container/list"
	"context"
	"encoding/json"
	"slices"
	"sync"
	"time"
)

// Audience says who sees a user come and go.
type Audience string

// The audiences.
const (
	Everyone Audience = "everyone" // all users
	Tenant   Audience = "tenant"   // users of the same tenant; those without one see no users
	None     Audience = "none"     // no users; workers can still ask
)

// Packet is a Socket.IO packet for a room.
type Packet struct {
	Text       []byte
	ExceptUser string // whose sockets do not get it; "" for none. No two packets of an announcement name the same user
}

// Announcer brings packets to every socket in a room, in their order and in one write a socket. It must not block and must
// not call the service.
type Announcer interface {
	Announce(room string, packets []Packet)
}

// Config has no defaults: the zero value announces nothing and has no grace.
type Config struct {
	Grace    time.Duration // between the last socket's end and the announcement
	Audience Audience
}

// Bounds on what the service holds and answers.
const (
	SnapshotLimit = 1000 // users named in online_users
	ListLimit     = 1000 // users on a page of List
	QueryLimit    = 1000 // users in a Query

	lastSeenLimit = 10_000 // offline users whose last time is remembered
	gatherLimit   = 1000   // changes in one announcement: as many of the longest ids fit into the smallest output queue
)

// gatherTime is how long changes are gathered: a room gets an announcement each gatherTime at most.
const gatherTime = 250 * time.Millisecond

// Service knows who is online. It is safe for concurrent use.
type Service struct {
	cfg       Config
	announcer Announcer

	wake chan struct{} // tells run that there is something new to do
	done chan struct{} // closed when run has returned

	mu        sync.Mutex
	closed    bool
	all       *scope            // every user, whatever the tenant
	rooms     map[string]*scope // those that have an audience; all among them when that is everyone
	graces    []grace           // in the order in which they end
	changed   []*scope          // those with changes to announce
	announced time.Time         // when the last changes were
	storm     storm
	withheld  bool // a storm has kept changes from being announced
	lastSeen  lastSeen
}

// scope is a set of users who are online to the same audience. All of it is guarded by the service's mu.
type scope struct {
	room    string             // where changes are announced; "" for nowhere
	members map[string]*member // visible ones, and those not yet announced as gone
	online  []*member          // the visible ones, in no order
	changed []*member          // those to announce, in the order in which they changed
	changes uint64             // counts them
	told    uint64             // up to which of them they may have been announced
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

// New starts a service; Close ends it.
func New(cfg Config, announcer Announcer) *Service {
	s := &Service{
		cfg:       cfg,
		announcer: announcer,
		wake:      make(chan struct{}, 1),
		done:      make(chan struct{}),
		all:       &scope{members: map[string]*member{}},
		rooms:     map[string]*scope{},
		lastSeen:  lastSeen{map[string]*list.Element{}, list.New()},
	}
	if cfg.Audience == Everyone {
		s.all.room = everyoneRoom
		s.rooms[everyoneRoom] = s.all
	}
	go s.run()
	return s
}

const (
	everyoneRoom = "presence"
	tenantPrefix = "presence:"
)

// room is where the sockets of a tenant's users hear of others, "" when they do not.
func (s *Service) room(tenant string) string {
	switch {
	case s.cfg.Audience == Everyone:
		return everyoneRoom
	case s.cfg.Audience == Tenant && tenant != "":
		return tenantPrefix + tenant
	}
	return ""
}

// scopes lists where a user's sockets with that room count. s.mu must be held.
func (s *Service) scopes(room string) []*scope {
	if room == s.all.room || room == "" {
		return []*scope{s.all}
	}
	if s.rooms[room] == nil {
		s.rooms[room] = &scope{room: room, members: map[string]*member{}}
	}
	return []*scope{s.all, s.rooms[room]}
}

// scopeOf is what the sockets of a tenant's users see, an empty scope when that is nothing. s.mu must be held.
func (s *Service) scopeOf(tenant string) *scope {
	if sc := s.rooms[s.room(tenant)]; sc != nil {
		return sc
	}
	return new(scope)
}

// Arrive says that a socket of the user is connected. The user is online when it returns; others hear of that soon after, if
// it is new. The socket is to join the room, if there is one, and to be welcomed then. Each socket arrives once at most.
func (s *Service) Arrive(_ context.Context, user, tenant, socketID string) (room string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.storm.count(time.Now())
	room = s.room(tenant)
	for _, sc := range s.scopes(room) {
		m := sc.member(user)
		m.sockets = append(m.sockets, socketID)
		if m.visible {
			continue
		}
		m.visible, m.pos = true, len(sc.online)
		sc.online = append(sc.online, m)
		if sc == s.all {
			s.lastSeen.forget(user)
		}
		s.change(m)
	}
	return room, nil
}

// Leave says that a socket is gone that has arrived before, if it ever will. It may say so twice.
func (s *Service) Leave(_ context.Context, user, tenant, socketID string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if len(s.graces) == 0 {
		s.wakeUp()
	}
	for _, sc := range s.scopes(s.room(tenant)) {
		m := sc.member(user)
		if i := slices.Index(m.sockets, socketID); i >= 0 {
			m.sockets = slices.Delete(m.sockets, i, i+1)
			if len(m.sockets) == 0 {
				m.left = now
				s.graces = append(s.graces, grace{m, now})
			}
		}
		s.release(m)
	}
	s.endGraces(now) // there may be none
	return nil
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

// hide makes a member invisible as of m.left. s.mu must be held.
func (s *Service) hide(m *member) {
	sc, last := m.scope, len(m.scope.online)-1
	if m.pos < sc.listed.n {
		sc.listed = listed{text: sc.listed.text[:0]}
	}
	sc.online[m.pos] = sc.online[last]
	sc.online[m.pos].pos = m.pos
	sc.online[last] = nil
	sc.online = sc.online[:last]
	m.visible = false
	if sc == s.all {
		s.lastSeen.remember(m.user, m.left)
	}
	s.change(m)
}

// change has the new state of a member announced. s.mu must be held.
func (s *Service) change(m *member) {
	sc := m.scope
	sc.changes++
	if sc.room != "" && !s.closed && !m.changed {
		if len(s.changed) == 0 {
			s.wakeUp()
		}
		if len(sc.changed) == 0 {
			s.changed = append(s.changed, sc)
		}
		m.changed = true
		sc.changed = append(sc.changed, m)
	}
	s.release(m)
}

// release forgets a member, and its scope, once nothing is left to know. s.mu must be held.
func (s *Service) release(m *member) {
	if m.visible || m.changed {
		return
	}
	delete(m.scope.members, m.user)
	if len(m.scope.members) == 0 && m.scope != s.all {
		delete(s.rooms, m.scope.room)
	}
}

// wakeUp never blocks: one pending wake-up is enough.
func (s *Service) wakeUp() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Close stops all announcements and waits for the one under way. Questions are still answered.
func (s *Service) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.wakeUp()
	<-s.done
}
