package engine

import (
	"time"

	"jobwire/internal/timers"
)

// beat is a connection's heartbeat: the next ping it has to send, or the pong it waits for.
type beat struct {
	timer timers.Timer
	seq   uint32        // of the last heartbeat's ping; guarded by Conn.mu
	at    time.Duration // when the timer expires, by Server.clock; guarded by Conn.mu
}

// beating is a Conn that waits in Server.beats, which closing ones do not.
type beating Conn

func (b *beating) Timer() *timers.Timer { return &b.beat.timer }

// clock is the time since the server was made, whatever becomes of the wall clock.
func (s *Server) clock() int64 { return int64(time.Since(s.epoch)) }

// waitLocked sets the time of an open session's next ping, or the time by which its pong must have come.
func (c *Conn) waitLocked(until time.Duration) {
	c.beat.at = until
	c.srv.beats.Set((*beating)(c), int64(until))
}

// restLocked begins the pause before the next ping, which is up to 10 ms shorter, so that many pings go together.
func (c *Conn) restLocked() {
	interval := c.srv.cfg.PingInterval
	at := time.Duration(c.srv.clock()) + interval
	c.waitLocked(at.Truncate(max(1, min(10*time.Millisecond, interval/50))))
}

// Expired sends the ping that is due, or ends a session whose pong has not come in time.
func (b *beating) Expired() {
	c := (*Conn)(b)
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Duration(c.srv.clock())
	switch {
	case !c.live(), now < c.beat.at: // its pong has come just now
	case c.awaiting:
		how := politely
		if c.on != webSocket || !c.out.empty() {
			how = abruptly // it has long stopped polling, or reading
		}
		c.endLocked(ReasonPingTimeout, closeCode(ReasonPingTimeout), how)
	default:
		// It is counted, and its pong expected, before it can be answered.
		c.awaiting = true
		c.beat.seq = nextSeq(c.pings)
		if c.pingLocked() == nil {
			c.waitLocked(now + c.srv.cfg.PingTimeout)
		}
	}
}

// pongLocked takes one pong in. It reports the seq of the ping that it answers, and false when there is none.
func (c *Conn) pongLocked() (uint32, bool) {
	if c.pongs == c.pings {
		return 0, false
	}
	c.pongs = nextSeq(c.pongs)
	if c.awaiting && c.pongs == c.beat.seq {
		c.awaiting = false
		c.restLocked()
	}
	return c.pongs, true
}

// nextSeq skips 0, which stands for no ping.
func nextSeq(seq uint32) uint32 {
	if seq++; seq == 0 {
		return 1
	}
	return seq
}
