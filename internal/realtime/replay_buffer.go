package realtime

import (
	"jobwire/internal/engine"
	"jobwire/internal/events"
)

// replayBuffer is what a session keeps back of the messages for its user's room, so that a replay can go out before them. It
// is guarded by the session's mu.
type replayBuffer struct {
	kept  []kept
	bytes int
	full  bool // the limit was passed: the connection is being closed
}

type kept struct {
	frame   *engine.Frame
	place   events.ID
	confirm bool
}

// JoinUser lets the messages for the session's user reach the session from now on, and keeps them back until Live.
func (s *Session) JoinUser() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.user.room == nil || s.closed {
		return
	}
	s.held = new(replayBuffer)
	s.holding.Store(true)
	s.hub.rooms.show(&s.user, events.ID{})
}

// SkipTo leaves out what is emitted to the user from now on with a place up to upTo: the session was shown newer.
func (s *Session) SkipTo(upTo events.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.user.room != nil {
		s.hub.rooms.show(&s.user, upTo)
	}
}

// Live sends what was kept back, in the order in which it came, without what has a place up to upTo; that is left out from now
// on, too. EmitUser must not be called for that user meanwhile.
func (s *Session) Live(upTo events.ID) {
	s.SkipTo(upTo)
	for {
		s.mu.Lock()
		if s.held == nil {
			s.mu.Unlock()
			return
		}
		batch := s.held.kept
		if len(batch) == 0 {
			s.held = nil
			s.holding.Store(false)
			s.open()
			s.mu.Unlock()
			return
		}
		s.held.kept, s.held.bytes = nil, 0
		s.mu.Unlock()
		for _, m := range batch { // no lock is held while sending
			if m.place.IsZero() || m.place.Compare(upTo) > 0 {
				s.send([]*engine.Frame{m.frame}, m.place, m.confirm)
			}
		}
	}
}

// deliver sends a message for the user's room, or keeps it back. frames holds one frame.
func (s *Session) deliver(frames []*engine.Frame, place events.ID, confirm bool) bool {
	// holding may only lag behind on its way to false, and then mu decides.
	if s.holding.Load() {
		s.mu.Lock()
		if s.held != nil {
			took := s.held.keep(kept{frames[0], place, confirm}, s.hub.config.MaxHeldBytes)
			s.mu.Unlock()
			if !took {
				s.conn.Close(ReasonSlowReplay)
			}
			return took
		}
		s.mu.Unlock()
	}
	return s.send(frames, place, confirm)
}

// keep adds a message, unless that would pass the limit in bytes; one message always fits. Beyond it everything is let go of:
// the client comes back and asks for it again.
func (b *replayBuffer) keep(m kept, limit int) bool {
	if b.full || len(b.kept) > 0 && b.bytes+m.frame.Size() > limit {
		b.kept, b.full = nil, true
		return false
	}
	b.bytes += m.frame.Size()
	b.kept = append(b.kept, m)
	return true
}
