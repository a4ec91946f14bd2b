package presence

import (
	"time"

	"jobwire/internal/events"
)

// announcement is what a room is to hear.
type announcement struct {
	room    string
	packets []Packet
}

// run ends graces and makes all announcements.
func (s *Service) run() {
	defer close(s.done)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		due, wait, closed := s.next()
		for _, a := range due {
			s.announcer.Announce(a.room, a.packets)
		}
		switch {
		case closed:
			return
		case len(due) > 0:
			continue // there may be more by now
		}
		timer.Reset(wait)
		select {
		case <-s.wake:
		case <-timer.C:
		}
	}
}

// next ends the graces that are over and returns what is due to be announced, or how long nothing will be unless run is
// woken up.
func (s *Service) next() (due []announcement, wait time.Duration, closed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, 0, true
	}
	now := time.Now()
	wait = s.endGraces(now)
	if len(s.changed) == 0 {
		return nil, wait, false
	}
	storm := s.storm.rest(now)
	s.withheld = s.withheld || storm > 0
	if rest := max(storm, s.announced.Add(gatherTime).Sub(now)); rest > 0 {
		return nil, min(wait, rest), false
	}
	return s.gather(now), 0, false
}

// gather takes the changes of all scopes: of each up to gatherLimit, those beyond it follow at once; after a storm all, and
// the list stands for them. s.mu must be held.
func (s *Service) gather(now time.Time) []announcement {
	due := make([]announcement, len(s.changed))
	var beyond []*scope
	for i, sc := range s.changed {
		sc.told = sc.changes
		due[i].room = sc.room
		members := sc.changed
		if s.withheld {
			due[i].packets = []Packet{{Text: events.Encode(events.OnlineUsers, sc.onlineUsers(""), events.ID{})}}
		} else {
			members = members[:min(len(members), gatherLimit)]
			due[i].packets = make([]Packet, 0, len(members))
		}
		for _, m := range members {
			m.changed = false
			if !s.withheld {
				due[i].packets = append(due[i].packets, Packet{m.announcement(), m.user})
			}
			s.release(m)
		}
		if sc.changed = sc.changed[len(members):]; len(sc.changed) > 0 {
			beyond = append(beyond, sc)
		}
	}
	s.withheld = false
	if s.changed = beyond; len(beyond) == 0 {
		s.announced = now
	}
	return due
}

// grace is a wait for the return of a member who left at that time.
type grace struct {
	member *member
	left   time.Time
}

// endGraces hides those whose grace is over and says how long the next one lasts. s.mu must be held.
func (s *Service) endGraces(now time.Time) time.Duration {
	for len(s.graces) > 0 {
		g := s.graces[0]
		if wait := g.left.Add(s.cfg.Grace).Sub(now); wait > 0 {
			return wait
		}
		s.graces[0] = grace{}
		s.graces = s.graces[1:]
		// A member that came back has sockets again, or has left again since and waits for another grace.
		if m := g.member; m.visible && len(m.sockets) == 0 && m.left.Equal(g.left) {
			s.hide(m)
		}
	}
	s.graces = nil
	return time.Hour
}

const (
	// stormRate is how many sockets a second after a start are a storm, in which nothing is announced.
	stormRate = 100
	// stormLimit is how long after the first socket there may be one.
	stormLimit = 30 * time.Second
)

// storm recognizes that all clients come back after a start. It is guarded by the service's mu.
type storm struct {
	limit  time.Time            // zero until the first socket
	latest [stormRate]time.Time // when the latest sockets came, a ring
	oldest int                  // in latest
}

// count takes note of a socket that comes now.
func (st *storm) count(now time.Time) {
	if st.limit.IsZero() {
		st.limit = now.Add(stormLimit)
	}
	if now.Before(st.limit) {
		st.latest[st.oldest] = now
		st.oldest = (st.oldest + 1) % stormRate
	}
}

// rest is how long the storm lasts at least; there is none when that is not above 0.
func (st *storm) rest(now time.Time) time.Duration {
	return min(st.latest[st.oldest].Add(time.Second).Sub(now), st.limit.Sub(now))
}
