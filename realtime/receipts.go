package realtime

import "jobwire/events"

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

// askReceipt is called after a message with that id was handed to the connection.
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
	r.inFlight, r.known, r.asked = true, false, id
	s.mu.Unlock()
	s.pingForReceipt()
}

// pingForReceipt sends the ping for r.asked. No lock is held while sending, so its pong may already be there afterwards.
func (s *Session) pingForReceipt() {
	for {
		seq := s.conn.Ping()
		if seq == 0 {
			return // closed: what is not confirmed will be replayed to another socket
		}
		s.mu.Lock()
		r := &s.receipts
		r.seq, r.known = seq, true
		confirmed, again, done := r.answer()
		s.mu.Unlock()
		if done {
			s.confirm(confirmed)
		}
		if !again {
			return
		}
	}
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
		s.pingForReceipt()
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
