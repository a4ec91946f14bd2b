// Package timers tells any number of things that their time has come, with one goroutine and one timer for all of them.
package timers

import (
	"container/heap"
	"sync"
	"time"
)

// Waiter is a thing that waits. It keeps its Timer, and waits in one List only.
type Waiter interface {
	Timer() *Timer
	// Expired is called by the list's goroutine, under no lock, when the time has come. The Waiter is in no list then.
	Expired()
}

// Timer is a Waiter's place in its list. It is guarded by the list's lock.
type Timer struct {
	place int32 // in the heap, from 1; 0 when it is not there
}

// List is what waits. Its goroutine lives while there is something.
type List[T Waiter] struct {
	now func() int64 // ns, from any beginning

	mu      sync.Mutex // guards what follows; a leaf
	waiting entries[T]
	running bool
	stopped bool
	wake    chan struct{} // the first entry is another one, or the list has been stopped
	done    sync.WaitGroup
}

// New returns an empty list whose times are those of the clock now, in ns. The clock may jump: it is asked every minute.
func New[T Waiter](now func() int64) *List[T] {
	return &List[T]{now: now, wake: make(chan struct{}, 1)}
}

// Set lets x wait until at, instead of what it has waited for.
func (l *List[T]) Set(x T, at int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := x.Timer()
	if t.place > 0 {
		l.waiting[t.place-1].at = at
		heap.Fix(&l.waiting, int(t.place-1))
	} else {
		heap.Push(&l.waiting, entry[T]{at, x})
	}
	switch {
	case l.stopped:
	case !l.running:
		l.running = true
		l.done.Go(l.run)
	case t.place == 1:
		l.nudge()
	}
}

// Cancel takes x out of the list, if it is there.
func (l *List[T]) Cancel(x T) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if place := x.Timer().place; place > 0 {
		heap.Remove(&l.waiting, int(place-1))
		if len(l.waiting) == 0 {
			l.nudge()
		}
	}
}

// Len is how many wait.
func (l *List[T]) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.waiting)
}

// Stop ends the goroutine, and waits for it. Nothing expires any more.
func (l *List[T]) Stop() {
	l.mu.Lock()
	l.stopped = true
	l.nudge()
	l.mu.Unlock()
	l.done.Wait()
}

func (l *List[T]) nudge() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func (l *List[T]) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var due []T
	for {
		var wait time.Duration
		if due, wait = l.take(due[:0]); wait < 0 {
			return
		}
		for i, x := range due {
			x.Expired()
			clear(due[i : i+1])
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-l.wake:
		}
	}
}

// take takes out what is due, and says how long to wait before the next look; less than 0 ends the goroutine.
func (l *List[T]) take(due []T) ([]T, time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	for !l.stopped && len(l.waiting) > 0 && l.waiting[0].at <= now {
		due = append(due, heap.Pop(&l.waiting).(entry[T]).x)
	}
	switch {
	case len(due) > 0:
		return due, 0 // what expires may set another time
	case l.stopped, len(l.waiting) == 0:
		l.running = false
		return nil, -1
	}
	return due, min(time.Duration(l.waiting[0].at-now), time.Minute)
}

// entries implements heap.Interface; the earliest is first.
type entries[T Waiter] []entry[T]

type entry[T Waiter] struct {
	at int64
	x  T
}

func (e entries[T]) Len() int           { return len(e) }
func (e entries[T]) Less(i, j int) bool { return e[i].at < e[j].at }
func (e entries[T]) Swap(i, j int) {
	e[i], e[j] = e[j], e[i]
	e[i].x.Timer().place, e[j].x.Timer().place = int32(i+1), int32(j+1)
}

func (e *entries[T]) Push(x any) {
	added := x.(entry[T])
	*e = append(*e, added)
	added.x.Timer().place = int32(len(*e))
}

func (e *entries[T]) Pop() any {
	last := len(*e) - 1
	taken := (*e)[last]
	(*e)[last] = entry[T]{}
	*e = (*e)[:last]
	taken.x.Timer().place = 0
	return taken
}
