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
		notify(ts.wake)
	}
}

// expired takes the throttles whose interval is over at that time, and tells how long the next one lasts.
func (ts *throttles) expired(now time.Time, expired []*throttle) (_ []*throttle, wait time.Duration) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	for !ts.queue.empty() {
		if wait = ts.queue.front().at.Sub(now); wait > 0 {
			return expired, wait
		}
		expired = append(expired, ts.queue.pop().throttle)
	}
	return expired, time.Hour
}

// throttleSteps is how often within an interval the scheduler looks at most; an interval may last so much longer.
const throttleSteps = 20

// runThrottles ends intervals, and all of them when ctx ends.
func (s *Service) runThrottles(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var expired []*throttle
	for closing := false; ; {
		now := time.Now()
		if closing {
			now = now.Add(s.cfg.Coalesce)
		}
		var wait time.Duration
		expired, wait = s.throttles.expired(now, expired[:0])
		for i, t := range expired {
			s.put(t.stream, task{expired: t})
			expired[i] = nil
		}
		if closing {
			return
		}
		timer.Reset(max(wait, s.cfg.Coalesce/throttleSteps)) // or a busy node would be woken for every event
		select {
		case <-timer.C:
		case <-s.throttles.wake:
		case <-ctx.Done():
			closing = true
		}
	}
}

func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
