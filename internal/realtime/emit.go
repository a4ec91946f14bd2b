package realtime

import (
	"context"
	"sync"
	"time"

	"jobwire/internal/engine"
	"jobwire/internal/events"
)

// Message is one Socket.IO packet on its way to clients.
type Message struct {
	Packet  []byte    // from events.Encode; copied by the call that takes it
	Place   events.ID // among what its user is shown; zero for what has none
	Confirm bool      // ask the client for a receipt of the message with that place as its id
}

// emission is what an emit needs while it is on its way.
type emission struct {
	members []member // of the room
	frames  [1]*engine.Frame
}

// EmitUser sends m to the sessions of a user that have not been shown newer, one frame for all of them, or keeps it back for
// them until Live. It returns to how many.
func (h *Hub) EmitUser(userID string, m Message) (sockets int) {
	e := h.emissions.Get().(*emission)
	e.members = h.users.appendMembers(e.members[:0], userID)
	if len(e.members) > 0 {
		e.frames[0] = engine.TextFrame(m.Packet)
		for i := range e.members {
			to, took := &e.members[i], false
			switch {
			case to.shown == unseen, !m.Place.IsZero() && m.Place.Compare(to.shown) <= 0:
			case to.open != nil && !m.Confirm:
				took = to.open.Send(e.frames[:]...) == nil
			default:
				took = to.session.deliver(e.frames[:], m.Place, m.Confirm)
			}
			if took {
				sockets++
			}
		}
		h.count.emits.Add(1)
		h.count.deliveries.Add(uint64(sockets))
	}
	clear(e.members) // sessions must not live on in the pool
	e.frames[0] = nil
	h.emissions.Put(e)
	return sockets
}

// appendMembers appends those who are in the room now.
func (x *index) appendMembers(to []member, name string) []member {
	h := x.shard(name)
	h.mu.Lock()
	defer h.mu.Unlock()
	if r := h.rooms[name]; r != nil {
		to = append(to, r.members...)
	}
	return to
}

// deliver sends a message for the user's room, or keeps it back. frames holds one frame.
func (s *Session) deliver(frames []*engine.Frame, place events.ID, confirm bool) bool {
	if s.held.Load() != nil { // which only ends without mu
		s.mu.Lock()
		if held := s.held.Load(); held != nil {
			took := held.keep(kept{frames[0], place, confirm}, s.hub.config.MaxHeldBytes)
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

// send hands the frames to the connection, and asks for a receipt if it should. No lock is held while sending.
func (s *Session) send(frames []*engine.Frame, id events.ID, confirm bool) bool {
	sent := false
	switch {
	case confirm && s.beginReceipt(id):
		sent = s.pinged(s.conn.Ping(frames...))
	case s.conn.Send(frames...) == nil:
		sent = true
		if confirm {
			s.askReceipt(id)
		}
	}
	if sent && !s.answered.Load() && s.conn.Buffered() > maxCorked {
		s.answer()
	}
	return sent
}

// receipts asks a client, through Engine.IO pings, what it has received. The first message takes a ping along; what follows
// within the interval is asked for together, with one more at its end. A pong confirms what had been sent when its ping went
// out. It is guarded by the session's mu.
type receipts struct {
	newest   events.ID // the highest id that was sent and asks for a receipt
	asked    events.ID // what the ping in flight will confirm; zero when none is
	at       int64     // when that ping, or the latest one, went out, in Unix ns
	seq      uint32    // of the ping in flight; 0 until it is known
	lastPong uint32    // a pong may come before Conn.Ping has returned its seq
	waits    bool      // the session is in the hub's list
}

// beginReceipt reports whether the message with that id, which is about to be sent, should take a ping along.
func (s *Session) beginReceipt(id events.ID) bool {
	now := time.Now().UnixNano()
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &s.receipts
	if !r.asked.IsZero() || r.waits || id.Compare(r.newest) <= 0 || now-r.at < int64(s.hub.config.ReceiptInterval) {
		return false
	}
	r.newest = id
	r.begin(now)
	return true
}

func (r *receipts) begin(now int64) {
	r.asked, r.seq, r.at = r.newest, 0, now
}

// askReceipt is called after a message with that id was sent without a ping.
func (s *Session) askReceipt(id events.ID) {
	s.mu.Lock()
	if r := &s.receipts; id.Compare(r.newest) > 0 { // else it is confirmed, or asked for, with the newer one
		r.newest = id
		s.askLater()
	}
	s.mu.Unlock()
}

// askLater lists the session for a ping, unless one is in flight: its pong will do so. The caller holds mu.
func (s *Session) askLater() {
	if r := &s.receipts; r.asked.IsZero() && !r.waits {
		r.waits = true
		s.hub.asks.add(s)
	}
}

// askNow sends the ping that the session was listed for.
func (s *Session) askNow(now int64) {
	s.mu.Lock()
	s.receipts.waits = false
	s.receipts.begin(now)
	s.mu.Unlock()
	s.pinged(s.conn.Ping())
}

// pinged takes the seq of the ping for r.asked, 0 when the connection is closed: what is not confirmed then will be replayed to
// another socket. No lock was held while sending, so the pong may already be there.
func (s *Session) pinged(seq uint32) bool {
	if seq == 0 {
		return false
	}
	s.mu.Lock()
	s.receipts.seq = seq
	s.mu.Unlock()
	s.checkReceipt()
	return true
}

// receiptAnswered is called for every pong, those of heartbeats too: a later ping's pong proves no less.
func (s *Session) receiptAnswered(seq uint32) {
	s.mu.Lock()
	s.receipts.lastPong = seq
	s.mu.Unlock()
	s.checkReceipt()
}

// checkReceipt confirms what the ping in flight asks for, if its pong is there.
func (s *Session) checkReceipt() {
	s.mu.Lock()
	r := &s.receipts
	if r.asked.IsZero() || r.seq == 0 || int32(r.lastPong-r.seq) < 0 { // seqs may wrap
		s.mu.Unlock()
		return
	}
	confirmed := r.asked
	r.asked = events.ID{}
	if r.newest.Compare(confirmed) > 0 {
		s.askLater()
	}
	s.mu.Unlock()
	s.hub.lifecycle.Confirmed(s.userID, confirmed)
}

// asks are the sessions that have been sent something since their last ping. One goroutine asks all of them, at most once an
// interval.
type asks struct {
	mu   sync.Mutex
	list []*Session
	wake chan struct{} // the list has something
}

func (a *asks) add(s *Session) {
	a.mu.Lock()
	a.list = append(a.list, s)
	first := len(a.list) == 1
	a.mu.Unlock()
	if first {
		a.wake <- struct{}{} // run has taken the one before
	}
}

// run ends with ctx.
func (a *asks) run(ctx context.Context, interval time.Duration) {
	timer := time.NewTimer(interval)
	defer timer.Stop()
	for {
		select {
		case <-a.wake:
		case <-ctx.Done():
			return
		}
		timer.Reset(interval)
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		a.mu.Lock()
		list := a.list
		a.list = nil
		a.mu.Unlock()
		now := time.Now().UnixNano()
		for _, s := range list {
			s.askNow(now)
		}
	}
}

// replayBuffer is what a session keeps back of the messages for its user's room, so that a replay can go out before them. It is
// guarded by the session's mu.
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
	if s.user.room != nil && !s.closed {
		s.held.Store(new(replayBuffer))
		s.hub.users.change(s, func(m *member) { m.shown = events.ID{} })
	}
}

// SkipTo leaves out what is emitted to the user from now on with a place up to upTo: the session was shown newer.
func (s *Session) SkipTo(upTo events.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hub.users.change(s, func(m *member) { m.shown = upTo })
}

// Live sends what was kept back, in the order in which it came, without what has a place up to upTo; that is left out from now
// on, too. EmitUser must not be called for that user meanwhile.
func (s *Session) Live(upTo events.ID) {
	s.SkipTo(upTo)
	for {
		s.mu.Lock()
		held := s.held.Load()
		if held == nil {
			s.mu.Unlock()
			return
		}
		batch := held.kept
		if len(batch) == 0 {
			s.held.Store(nil)
			s.open()
			s.mu.Unlock()
			return
		}
		held.kept, held.bytes = nil, 0
		s.mu.Unlock()
		for _, m := range batch { // no lock is held while sending
			if m.place.IsZero() || m.place.Compare(upTo) > 0 {
				s.send([]*engine.Frame{m.frame}, m.place, m.confirm)
			}
		}
	}
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
