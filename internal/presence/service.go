package presence

import (
	"slices"
	"sync"
	"time"
)

// Audience says who is told when a user comes and goes.
type Audience string

// The audiences.
const (
	Everyone Audience = "everyone" // all users
	Tenant   Audience = "tenant"   // users of the same tenant; those without one see nobody
	None     Audience = "none"     // nobody; workers can still ask
)

// Announcer brings a Socket.IO packet to every socket in a room, except for
// those of one user. It must not block and must not call the service.
type Announcer interface {
	Announce(room, exceptUser string, packet []byte)
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
	ghostLimit    = 4096   // sockets remembered because they left before they came
	recentLimit   = 1024   // changes remembered for Welcome
)

// Service knows who is online. It is safe for concurrent use.
type Service struct {
	cfg       Config
	announcer Announcer

	wake chan struct{} // tells run that there is something new to do
	done chan struct{} // closed when run has returned

	mu       sync.Mutex
	closed   bool
	all      *scope            // every user, whatever the tenant
	tenants  map[string]*scope // by room; only with the audience Tenant
	graces   queue[grace]      // in the order in which they end
	dirty    queue[*member]    // those whose state is still to be announced
	ghosts   ghosts
	lastSeen lastSeen
	recent   recent
}

// New starts a service; Close ends it.
func New(cfg Config, announcer Announcer) *Service {
	s := &Service{
		cfg:       cfg,
		announcer: announcer,
		wake:      make(chan struct{}, 1),
		done:      make(chan struct{}),
		all:       newScope(""),
		tenants:   map[string]*scope{},
		ghosts:    ghosts{ids: map[string]struct{}{}},
		lastSeen:  newLastSeen(),
	}
	if cfg.Audience == Everyone {
		s.all.room = everyoneRoom
	}
	go s.run()
	return s
}

const (
	everyoneRoom = "presence"
	tenantPrefix = "presence:"
)

// Room is the room in which a user's sockets hear of others, "" when they
// hear of nobody.
func (s *Service) Room(_, tenant string) string {
	switch {
	case s.cfg.Audience == Everyone:
		return everyoneRoom
	case s.cfg.Audience == Tenant && tenant != "":
		return tenantPrefix + tenant
	}
	return ""
}

// Arrive says that a socket of the user is connected. The user is online when
// it returns; others are told soon after if that is new.
func (s *Service) Arrive(user, tenant, socketID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ghosts.remove(socketID) {
		return
	}
	if room := s.Room(user, tenant); room != "" && s.scopeOf(room) == nil {
		s.tenants[room] = newScope(room)
	}
	for _, sc := range s.scopes(user, tenant) {
		m := sc.member(user)
		if slices.Contains(m.sockets, socketID) {
			continue
		}
		m.sockets = append(m.sockets, socketID)
		if !m.visible {
			s.show(m)
		}
	}
}

// Leave says that a socket is gone; clean, that the user's own client has
// closed it on purpose. A socket may leave twice, and before it arrives: it
// then never does.
func (s *Service) Leave(user, tenant, socketID string, clean bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	known := false
	for _, sc := range s.scopes(user, tenant) {
		m := sc.members[user]
		if m == nil {
			continue
		}
		i := slices.Index(m.sockets, socketID)
		if i < 0 {
			continue
		}
		known = true
		m.sockets = slices.Delete(m.sockets, i, i+1)
		if len(m.sockets) > 0 {
			continue
		}
		m.left = time.Now()
		if clean || s.cfg.Grace <= 0 {
			s.hide(m)
			continue
		}
		s.graces.push(grace{m, m.left})
		if s.graces.len() == 1 {
			s.rouse()
		}
	}
	if !known {
		s.ghosts.add(socketID)
	}
}

// scopes lists where a socket counts, as far as somebody is there. s.mu must
// be held.
func (s *Service) scopes(user, tenant string) []*scope {
	if sc := s.scopeOf(s.Room(user, tenant)); sc != nil && sc != s.all {
		return []*scope{s.all, sc}
	}
	return []*scope{s.all}
}

// scopeOf is nil for a room in which nobody is, and for "". s.mu must be held.
func (s *Service) scopeOf(room string) *scope {
	switch room {
	case "":
		return nil
	case s.all.room:
		return s.all
	}
	return s.tenants[room]
}

// show makes a member visible. s.mu must be held.
func (s *Service) show(m *member) {
	m.scope.show(m)
	if m.scope == s.all {
		s.lastSeen.forget(m.user)
	}
	s.changed(m)
}

// hide makes a member invisible as of m.left. s.mu must be held.
func (s *Service) hide(m *member) {
	m.scope.hide(m)
	if m.scope == s.all {
		s.lastSeen.remember(m.user, m.left)
	}
	s.changed(m)
}

// changed has the new state of a member announced. s.mu must be held.
func (s *Service) changed(m *member) {
	if m.scope.room == "" || s.closed {
		s.release(m)
		return
	}
	s.recent.add(m.state())
	if !m.dirty {
		m.dirty = true
		s.dirty.push(m)
		s.rouse()
	}
}

// release forgets a member, and its scope, once nothing is left to know.
// s.mu must be held.
func (s *Service) release(m *member) {
	if m.visible || m.dirty {
		return
	}
	delete(m.scope.members, m.user)
	if len(m.scope.members) == 0 && m.scope != s.all {
		delete(s.tenants, m.scope.room)
	}
}

// rouse never blocks: one pending wake-up is enough.
func (s *Service) rouse() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Close stops all announcements and waits for the one under way. Questions
// are still answered.
func (s *Service) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.rouse()
	<-s.done
}

// run owns the timer of graces and makes all announcements.
func (s *Service) run() {
	defer close(s.done)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		todo := s.next()
		switch {
		case todo.stop:
			return
		case todo.announce.user != "":
			s.announcer.Announce(todo.announce.room, todo.announce.user, todo.announce.packet())
			continue
		case todo.wait > 0:
			timer.Reset(todo.wait)
		default:
			timer.Stop()
		}
		select {
		case <-s.wake:
		case <-timer.C:
		}
	}
}

// todo is what run has to do next.
type todo struct {
	stop     bool
	announce state
	wait     time.Duration // when there is nothing to announce; 0 means until woken
}

// next ends the graces that are over, and says what follows.
func (s *Service) next() todo {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return todo{stop: true}
	}
	wait := s.endGraces(time.Now())
	if s.dirty.len() == 0 {
		return todo{wait: wait}
	}
	m := s.dirty.pop()
	m.dirty = false
	defer s.release(m)
	return todo{announce: m.state()}
}

// endGraces hides those whose grace is over and says how long the next one
// lasts, 0 when there is none. s.mu must be held.
func (s *Service) endGraces(now time.Time) time.Duration {
	for s.graces.len() > 0 {
		g := s.graces.first()
		if wait := g.left.Add(s.cfg.Grace).Sub(now); wait > 0 {
			return wait
		}
		s.graces.pop()
		// A member that came back has sockets again, or has left again since
		// and waits for another grace.
		if g.member.visible && len(g.member.sockets) == 0 && g.member.left.Equal(g.left) {
			s.hide(g.member)
		}
	}
	return 0
}
