package realtime

import (
	"container/heap"
	"context"
	"math"
	"sync"
	"time"
)

// deadlines watches, for every session, the one moment at which something must have happened: the
// CONNECT before the handshake timeout, the close after a refusal, a fresh token before the old one
// expires. One goroutine and one timer serve them all; a session costs a place in the heap.
type deadlines struct {
	mu   sync.Mutex
	heap deadlineHeap
	wake chan struct{} // the earliest deadline has changed
}

// deadline is a session's entry.
type deadline struct {
	at    int64 // Unix time in ns
	place int   // in the heap, from 1; 0 when it is not there
}

func newDeadlines() *deadlines {
	return &deadlines{wake: make(chan struct{}, 1)}
}

// set moves the deadline of a session. A zero time removes it.
func (d *deadlines) set(s *Session, at time.Time) {
	d.mu.Lock()
	e := &s.deadline
	switch {
	case at.IsZero() && e.place > 0:
		heap.Remove(&d.heap, e.place-1)
	case at.IsZero():
	case e.place > 0:
		e.at = unixNano(at)
		heap.Fix(&d.heap, e.place-1)
	default:
		e.at = unixNano(at)
		heap.Push(&d.heap, s)
	}
	earliest := e.place == 1
	d.mu.Unlock()
	if earliest {
		select {
		case d.wake <- struct{}{}:
		default:
		}
	}
}

// latest is the last moment that Unix nanoseconds can tell, in the year 2262. Tokens may live
// longer.
var latest = time.Unix(0, math.MaxInt64)

func unixNano(at time.Time) int64 {
	if at.After(latest) {
		return math.MaxInt64
	}
	return at.UnixNano()
}

// run ends with ctx.
func (d *deadlines) run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		now := time.Now()
		passed, next := d.pop(now)
		for _, s := range passed {
			s.deadlinePassed(now)
		}
		timer.Reset(next)
		select {
		case <-timer.C:
		case <-d.wake:
		case <-ctx.Done():
			return
		}
	}
}

// pop removes the sessions whose deadline has passed, and says how long to wait for the next one.
// The wait is bounded: a token's expiry is wall time, which may jump.
func (d *deadlines) pop(now time.Time) (passed []*Session, next time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for len(d.heap) > 0 {
		wait := time.Duration(d.heap[0].deadline.at - now.UnixNano())
		if wait > 0 {
			return passed, min(wait, time.Minute)
		}
		passed = append(passed, heap.Pop(&d.heap).(*Session))
	}
	return passed, time.Minute
}

// deadlineHeap implements heap.Interface; the earliest deadline is first.
type deadlineHeap []*Session

func (h deadlineHeap) Len() int           { return len(h) }
func (h deadlineHeap) Less(i, j int) bool { return h[i].deadline.at < h[j].deadline.at }
func (h deadlineHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].deadline.place, h[j].deadline.place = i+1, j+1
}
func (h *deadlineHeap) Push(x any) {
	s := x.(*Session)
	*h = append(*h, s)
	s.deadline.place = len(*h)
}
func (h *deadlineHeap) Pop() any {
	last := len(*h) - 1
	s := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	s.deadline.place = 0
	return s
}
