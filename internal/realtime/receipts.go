package realtime

import "jobwire/internal/events"

// receipts asks a client, through Engine.IO pings, what it has received. At most one such ping is in flight; its pong
// confirms what had been sent when it went out, and what was sent since is asked for with the next. It is guarded by the
// session's mu.
type receipts struct {
	newest   events.ID // the highest id that was sent and asks for a receipt
	asked    events.ID // what the ping in flight will confirm
	seq      uint32    // of the ping in flight, once known
	known    bool
	inFlight bool
	lastPong uint32 // a pong may come before Conn.Ping has returned its seq
}

// beginReceipt reports whether the message with that id, which is about to be sent, should take a ping along.
func (s *Session) beginReceipt(id events.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &s.receipts
	if r.inFlight || id.Compare(r.newest) <= 0 {
		return false
	}
	r.newest = id
	r.begin(id)
	return true
}

func (r *receipts) begin(id events.ID) { r.inFlight, r.known, r.asked = true, false, id }

// askReceipt is called after a message with that id was sent without a ping.
func (s *Session) askReceipt(id events.ID) {
	s.mu.Lock()
	r := &s.receipts
	if id.Compare(r.newest) <= 0 {
		s.mu.Unlock()
		return // confirmed, or asked for, with the newer one
	}
	r.newest = id
	if r.inFlight {
		s.mu.Unlock()
		return
	}
	r.begin(id)
	s.mu.Unlock()
	s.pinged(s.conn.Ping())
}

// pinged takes the seq of the ping for r.asked, 0 when the connection is closed: what is not confirmed then will be
// replayed to another socket. No lock was held while sending, so the pong may already be there.
func (s *Session) pinged(seq uint32) bool {
	sent := seq != 0
	for seq != 0 {
		s.mu.Lock()
		r := &s.receipts
		r.seq, r.known = seq, true
		confirmed, again, done := r.answer()
		s.mu.Unlock()
		if done {
			s.confirm(confirmed)
		}
		if !again {
			break
		}
		seq = s.conn.Ping()
	}
	return sent
}

// receiptAnswered is called for every pong, those of heartbeats too: a later ping's pong proves no less.
func (s *Session) receiptAnswered(seq uint32) {
	s.mu.Lock()
	r := &s.receipts
	r.lastPong = seq
	confirmed, again, done := r.answer()
	s.mu.Unlock()
	if done {
		s.confirm(confirmed)
	}
	if again {
		s.pinged(s.conn.Ping())
	}
}

func (s *Session) confirm(id events.ID) {
	s.hub.count.receipts.Add(1)
	s.hub.lifecycle.Confirmed(s.userID, id)
}

// answer says whether the ping in flight is answered, what that confirms, and whether another one has to follow.
func (r *receipts) answer() (confirmed events.ID, again, done bool) {
	if !r.inFlight || !r.known || int32(r.lastPong-r.seq) < 0 { // seqs may wrap
		return events.ID{}, false, false
	}
	confirmed = r.asked
	r.known = false
	if r.newest.Compare(r.asked) > 0 {
		r.asked = r.newest
		return confirmed, true, true
	}
	r.inFlight = false
	return confirmed, false, true
}
