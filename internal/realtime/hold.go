package realtime

import (
	"jobwire/internal/engine"
	"jobwire/internal/events"
)

// hold is what a session keeps back of the messages for its user's room, so that a replay can go out before them.
// It is guarded by the session's mu.
type hold struct {
	kept  []kept
	bytes int
	asked bool // Hold was called: it lasts beyond Connected
	full  bool // the limit was passed: the connection is being closed
}

type kept struct {
	frame   *engine.Frame
	id      events.ID
	confirm bool
}

// Hold keeps the messages for the user's room back until Live is called. It is for Lifecycle.Connected, before which nothing
// has been sent: there everything is kept back anyway, and sent when Connected returns unless Hold was called.
func (s *Session) Hold() {
	s.mu.Lock()
	if s.hold != nil {
		s.hold.asked = true
	}
	s.mu.Unlock()
}

// Live ends Hold: it sends what was kept back in the order in which it came, without the messages whose id is not after the
// given one. Messages without an id are always sent.
func (s *Session) Live(after events.ID) {
	for {
		s.mu.Lock()
		if s.hold == nil {
			s.mu.Unlock()
			return
		}
		batch := s.hold.kept
		if len(batch) == 0 {
			s.hold = nil
			s.holding.Store(false)
			s.open()
			s.mu.Unlock()
			return
		}
		s.hold.kept, s.hold.bytes = nil, 0
		s.mu.Unlock()
		// Sent without the lock. Whoever has a message for this session meanwhile still finds it held and lines up behind.
		for _, m := range batch {
			if m.id.IsZero() || m.id.Compare(after) > 0 {
				s.send([]*engine.Frame{m.frame}, m.id, m.confirm)
			}
		}
	}
}

// deliver sends a message for the user's room, or keeps it back. frames holds one frame.
func (s *Session) deliver(frames []*engine.Frame, id events.ID, confirm bool) bool {
	// holding may only lag behind on its way to false, and then mu decides.
	if s.holding.Load() {
		s.mu.Lock()
		if s.hold != nil {
			took := s.hold.keep(kept{frames[0], id, confirm}, s.hub.config.MaxHeldBytes)
			s.mu.Unlock()
			if !took {
				s.conn.Close(ReasonSlowReplay)
			}
			return took
		}
		s.mu.Unlock()
	}
	return s.send(frames, id, confirm)
}

// keep adds a message, unless that would pass the limit in bytes. Then everything is let go of: the client comes back and
// asks for it again.
func (h *hold) keep(m kept, limit int) bool {
	if h.full || h.bytes+m.frame.Size() > limit {
		h.kept, h.full = nil, true
		return false
	}
	h.bytes += m.frame.Size()
	h.kept = append(h.kept, m)
	return true
}
