package delivery

import (
	"context"
	"sync"
	"time"
)

// throttle keeps one job's progress to one emission an interval. It exists from an emission until an interval has passed with
// nothing held back. It belongs to whoever runs its stream.
type throttle struct {
	stream *stream
	job    string
	held   *Delivery // the latest progress, not emitted; nil when there is none
}

// onExpire ends an interval: what was held back goes out, and begins the next one.
func (s *Service) onExpire(st *stream, t *throttle) {
	switch d := t.held; {
	case st.throttles[t.job] != t: // the job has ended meanwhile
	case d == nil:
		delete(st.throttles, t.job)
		if len(st.throttles) == 0 {
			st.throttles = nil
		}
	default:
		t.held = nil
		s.throttles.add(t, time.Now().Add(s.cfg.Coalesce))
		s.send(st, d)
	}
}

// throttles knows when intervals end. They all have the same length, so they end in the order in which they began.
type throttles struct {
	mu    sync.Mutex
	queue queue[expiry] // in the order of at
	wake  chan struct{} // told when the queue is no longer empty
}

type expiry struct {
	throttle *throttle
	at       time.Time
}

func (ts *throttles) add(t *throttle, at time.Time) {
	ts.mu.Lock()
	empty := ts.queue.empty()
	ts.queue.push(expiry{t, at})
	ts.mu.Unlock()
	if empty {
		select {
		case ts.wake <- struct{}{}:
		default:
		}
	}
}

// next takes a throttle whose interval is over at that time, or tells how long the next one lasts; 0 when there is none.
func (ts *throttles) next(now time.Time) (t *throttle, wait time.Duration) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if ts.queue.empty() {
		return nil, 0
	}
	if wait = ts.queue.front().at.Sub(now); wait > 0 {
		return nil, wait
	}
	return ts.queue.pop().throttle, 0
}

// expire ends the intervals that are over at that time, and tells how long the next one lasts; 0 when there is none.
func (s *Service) expire(now time.Time) time.Duration {
	for {
		t, wait := s.throttles.next(now)
		if t == nil {
			return wait
		}
		s.put(t.stream, task{expired: t})
	}
}

// throttleSteps is how often within an interval the scheduler looks at most, or a busy node would be woken for every event; an
// interval may last so much longer.
const throttleSteps = 20

// runThrottles ends intervals, and all of them when ctx ends.
func (s *Service) runThrottles(ctx context.Context) {
	for ctx.Err() == nil {
		select {
		case <-s.throttles.wake:
		case <-ctx.Done():
		}
		for wait := s.expire(time.Now()); wait > 0 && pause(ctx, max(wait, s.cfg.Coalesce/throttleSteps)); {
			wait = s.expire(time.Now())
		}
	}
	s.expire(time.Now().Add(s.cfg.Coalesce))
}
