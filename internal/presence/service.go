package presence

import (
	"context"
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

// New starts a service; Close ends it.
func New(cfg Config, announcer Announcer) *Service {
	s := &Service{
		cfg:       cfg,
		announcer: announcer,
		wake:      make(chan struct{}, 1),
		done:      make(chan struct{}),
		all:       newScope(""),
		rooms:     map[string]*scope{},
		lastSeen:  newLastSeen(),
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
		s.rooms[room] = newScope(room)
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
		if !m.visible {
			s.show(m)
		}
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

// show makes a member visible. s.mu must be held.
func (s *Service) show(m *member) {
	m.scope.show(m)
	if m.scope == s.all {
		s.lastSeen.forget(m.user)
	}
	s.change(m)
}

// hide makes a member invisible as of m.left. s.mu must be held.
func (s *Service) hide(m *member) {
	m.scope.hide(m)
	if m.scope == s.all {
		s.lastSeen.remember(m.user, m.left)
	}
	s.change(m)
}

// change has the new state of a member announced. s.mu must be held.
func (s *Service) change(m *member) {
	sc := m.scope
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
