package realtime

import (
	"context"
	"sync"
	"time"

	"jobwire/internal/events"
)

// receipts asks a client, through Engine.IO pings, what it has received. The first message takes a ping along; what follows
// within the interval is asked for together, with one more at its end. A pong confirms what had been sent when its ping went
// out. It is guarded by the session's mu.
type receipts struct {
	newest   events.ID // the highest id that was sent and asks for a receipt
	asked    events.ID // what the ping in flight will confirm
	at       int64     // when that ping, or the latest one, went out, in Unix ns
	seq      uint32    // of the ping in flight, once known
	known    bool
	inFlight bool
	waits    bool   // it is in the hub's list
	lastPong uint32 // a pong may come before Conn.Ping has returned its seq
}

// beginReceipt reports whether the message with that id, which is about to be sent, should take a ping along.
func (s *Session) beginReceipt(id events.ID) bool {
	now := time.Now().UnixNano()
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &s.receipts
	if r.inFlight || r.waits || id.Compare(r.newest) <= 0 || now-r.at < int64(s.hub.config.ReceiptInterval) {
		return false
	}
	r.newest = id
	r.begin(now)
	return true
}

func (r *receipts) begin(now int64) {
	r.inFlight, r.known, r.asked, r.at = true, false, r.newest, now
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
	if r := &s.receipts; !r.inFlight && !r.waits {
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

// pinged takes the seq of the ping for r.asked, 0 when the connection is closed: what is not confirmed then will be
// replayed to another socket. No lock was held while sending, so the pong may already be there.
func (s *Session) pinged(seq uint32) bool {
	if seq == 0 {
		return false
	}
	s.mu.Lock()
	s.receipts.seq, s.receipts.known = seq, true
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
	if !r.inFlight || !r.known || int32(r.lastPong-r.seq) < 0 { // seqs may wrap
		s.mu.Unlock()
		return
	}
	confirmed := r.asked
	r.inFlight = false
	if r.newest.Compare(confirmed) > 0 {
		s.askLater()
	}
	s.mu.Unlock()
	s.hub.count.receipts.Add(1)
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
