package engine

import (
	"sync"
	"time"
)

// heartbeat pings every session and closes those that do not answer, with one goroutine and one
// timer for all.
//
// Both waits have the same length for all sessions, so each is a list in order of time: a session
// joins at the end, and only the heads are ever looked at. The goroutine lives while there is a
// session.
//
// Its lock may be taken under a Conn's, never the other way round.
type heartbeat struct {
	srv     *Server
	epoch   time.Time
	quantum time.Duration // pings come early by at most this, so that many go together

	mu      sync.Mutex // guards what follows, and Conn.beat's links
	due     beatList   // sessions waiting for their next ping
	overdue beatList   // sessions whose pong is waited for
	running bool
	wakeAt  time.Duration // what the goroutine sleeps for
	wake    chan struct{}
}

// beat is a connection's place in one of the lists.
type beat struct {
	prev, next *Conn
	list       *beatList     // nil: in none
	at         time.Duration // since epoch
	seq        uint32        // of the last heartbeat's ping; guarded by Conn.mu
}

type beatList struct {
	head, tail *Conn
}

func (h *heartbeat) init(s *Server) {
	h.srv = s
	h.epoch = time.Now()
	h.quantum = min(10*time.Millisecond, s.cfg.PingInterval/50)
	h.wake = make(chan struct{}, 1)
}

// schedule puts c at the end of the sessions waiting for a ping. The caller holds c.mu and has seen
// c open.
func (h *heartbeat) schedule(c *Conn) { h.join(c, &h.due, h.srv.cfg.PingInterval) }

// expect puts c at the end of the sessions whose pong is waited for. The caller holds c.mu and has
// seen c open.
func (h *heartbeat) expect(c *Conn) { h.join(c, &h.overdue, h.srv.cfg.PingTimeout) }

func (h *heartbeat) join(c *Conn, list *beatList, after time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.leave(c)
	c.beat.at = time.Since(h.epoch) + after
	c.beat.list, c.beat.prev = list, list.tail
	if list.tail == nil {
		list.head = c
	} else {
		list.tail.beat.next = c
	}
	list.tail = c
	if !h.running {
		h.running = true
		h.srv.wg.Add(1) // the session still holds one
		go h.run()
	} else if c.beat.at < h.wakeAt {
		h.nudge()
	}
}

// cancel takes c out. The caller holds c.mu, and c is not open any more.
func (h *heartbeat) cancel(c *Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.leave(c)
	if h.due.head == nil && h.overdue.head == nil {
		h.nudge()
	}
}

// leave unlinks c; h.mu is held.
func (h *heartbeat) leave(c *Conn) {
	list := c.beat.list
	if list == nil {
		return
	}
	if c.beat.prev == nil {
		list.head = c.beat.next
	} else {
		c.beat.prev.beat.next = c.beat.next
	}
	if c.beat.next == nil {
		list.tail = c.beat.prev
	} else {
		c.beat.next.beat.prev = c.beat.prev
	}
	c.beat.prev, c.beat.next, c.beat.list = nil, nil, nil
}

func (h *heartbeat) nudge() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

func (h *heartbeat) run() {
	defer h.srv.wg.Done()
	timer := time.NewTimer(0)
	defer timer.Stop()
	var ping, late []*Conn
	for {
		h.mu.Lock()
		now := time.Since(h.epoch)
		ping, late = h.take(&h.due, now+h.quantum, ping[:0]), h.take(&h.overdue, now, late[:0])
		h.mu.Unlock()
		for i, c := range ping {
			c.heartbeat()
			ping[i] = nil
		}
		for i, c := range late {
			c.missedPong()
			late[i] = nil
		}

		h.mu.Lock()
		if h.due.head == nil && h.overdue.head == nil {
			h.running = false
			h.mu.Unlock()
			return
		}
		h.wakeAt = 1<<63 - 1
		for _, list := range []*beatList{&h.due, &h.overdue} {
			if list.head != nil {
				h.wakeAt = min(h.wakeAt, list.head.beat.at)
			}
		}
		sleep := h.wakeAt - time.Since(h.epoch)
		h.mu.Unlock()
		timer.Reset(sleep)
		select {
		case <-timer.C:
		case <-h.wake:
		}
	}
}

// take removes the sessions whose time has come. They are in no list until they join again, so
// whatever happens to one in between is seen under its own lock.
func (h *heartbeat) take(list *beatList, now time.Duration, into []*Conn) []*Conn {
	for list.head != nil && list.head.beat.at <= now {
		c := list.head
		h.leave(c)
		into = append(into, c)
	}
	return into
}

// heartbeat sends the ping that is due. It is counted, and its pong expected, before it can be
// answered.
func (c *Conn) heartbeat() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.live() {
		return
	}
	c.awaiting = true
	c.beat.seq = nextSeq(c.pings)
	if c.pingLocked() == nil {
		c.srv.beats.expect(c)
	}
}

// missedPong closes a session whose pong has not come in time, unless it has come just now.
func (c *Conn) missedPong() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.live() || !c.awaiting {
		return
	}
	how := politely
	if c.on != webSocket || !c.out.empty() {
		how = abruptly // it has long stopped polling, or reading
	}
	c.endLocked(ReasonPingTimeout, closeCode(ReasonPingTimeout), how)
}
