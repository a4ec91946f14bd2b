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

// throttle begins a job's interval.
func (s *Service) throttle(st *stream, job string) {
	t := &throttle{stream: st, job: job}
	if st.throttles == nil {
		st.throttles = make(map[string]*throttle)
	}
	st.throttles[job] = t
	s.throttles.add(t, s.cfg.Now().Add(s.cfg.Coalesce))
}

// onExpire ends an interval: what was held back goes out, and begins the next one.
func (s *Service) onExpire(st *stream, t *throttle) {
	switch {
	case st.throttles[t.job] != t: // the job has ended meanwhile
	case t.held == nil:
		delete(st.throttles, t.job)
		if len(st.throttles) == 0 {
			st.throttles = nil
		}
	default:
		d := t.held
		t.held = nil
		s.throttles.add(t, s.cfg.Now().Add(s.cfg.Coalesce))
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

func (ts *throttles) init() { ts.wake = make(chan struct{}, 1) }

func (ts *throttles) add(t *throttle, at time.Time) {
	ts.mu.Lock()
	empty := ts.queue.empty()
	ts.queue.push(expiry{t, at})
	ts.mu.Unlock()
	if empty {
		notify(ts.wake)
	}
}

// expired takes the throttles whose interval is over, all of them with the zero time, and tells how long the next one lasts;
// ok is false when there is none.
func (ts *throttles) expired(now time.Time, expired []*throttle) (_ []*throttle, wait time.Duration, ok bool) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	for !ts.queue.empty() {
		if wait = ts.queue.front().at.Sub(now); wait > 0 && !now.IsZero() {
			return expired, wait, true
		}
		expired = append(expired, ts.queue.pop().throttle)
	}
	return expired, 0, false
}

// throttleSteps is how often within an interval the scheduler looks at most; an interval may last so much longer.
const throttleSteps = 20

func (s *Service) runThrottles(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var expired []*throttle
	for {
		var wait time.Duration
		var ok bool
		expired, wait, ok = s.throttles.expired(s.cfg.Now(), expired[:0])
		s.expire(expired)
		if !ok {
			wait = time.Hour
		}
		timer.Reset(max(wait, s.cfg.Coalesce/throttleSteps)) // or a busy node would be woken for every event
		select {
		case <-timer.C:
		case <-s.throttles.wake:
		case <-ctx.Done():
			expired, _, _ = s.throttles.expired(time.Time{}, expired[:0])
			s.expire(expired)
			return
		}
	}
}

func (s *Service) expire(expired []*throttle) {
	for i, t := range expired {
		if t.stream.put(task{expired: t}) {
			s.run(t.stream)
		}
		expired[i] = nil
	}
}

func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
