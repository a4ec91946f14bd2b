package delivery

import (
	"sync"

	"jobwire/internal/events"
)

// A stream is the one way by which anything reaches the sockets of a user: what the feed delivers, progress that was held
// back, sockets that join, replays that end, answers that have a place. Each is a task; tasks run one after the other, in the
// order in which they were put, by whoever has put the first one. No lock is held while one runs.
//
// A stream exists while its user has a socket here, or a task is left. What the feed delivers to others needs none.
type stream struct {
	user string

	// Guarded by streams.mu.
	sockets int // that were attached and have not left
	follows int // calls of Store.Follow to take back, by the sockets that leave last
	tasks   queue[task]
	running bool

	// Whoever runs the stream owns what follows.
	place     events.ID            // of the newest delivery that was emitted, or held back
	throttles map[string]*throttle // by job
	answers   queue[waiting]       // to questions, in the order of places
}

// task is one thing to do; one of its fields is set. A call returns true when it has another goroutine run the stream on.
type task struct {
	delivery *Delivery
	expired  *throttle
	call     func() (taken bool)
}

// waiting is a call that waits until everything up to a place was emitted.
type waiting struct {
	place events.ID
	call  func()
}

type streams struct {
	mu     sync.Mutex // a leaf, and held for moments: nothing that waits or locks is called under it
	byUser map[string]*stream
}

// attach counts a socket of a user, and makes the stream for the first.
func (ss *streams) attach(user string) *stream {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	st := ss.byUser[user]
	if st == nil {
		st = &stream{user: user}
		ss.byUser[user] = st
	}
	st.sockets++
	return st
}

// of returns the stream of a user, nil when there is none.
func (ss *streams) of(user string) *stream {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	return ss.byUser[user]
}

// put lines up a task, and runs the stream if nobody does: the task may have been run before. A stream that is gone takes none.
func (s *Service) put(st *stream, t task) {
	s.streams.mu.Lock()
	run := s.streams.byUser[st.user] == st && st.add(t)
	s.streams.mu.Unlock()
	if run {
		s.run(st)
	}
}

// add lines up a task. True asks the caller to run the stream. The lock is held.
func (st *stream) add(t task) (run bool) {
	st.tasks.push(t)
	run = !st.running
	st.running = true
	return run
}

// next takes the next task. Without one the caller no longer runs the stream.
func (ss *streams) next(st *stream) (t task, ok bool) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	if st.tasks.empty() {
		st.running = false
		ss.retire(st)
		return task{}, false
	}
	return st.tasks.pop(), true
}

// retire forgets a stream that is not needed. The lock is held.
func (ss *streams) retire(st *stream) {
	if st.sockets == 0 && !st.running {
		delete(ss.byUser, st.user)
	}
}

// reached gives the answers that wait for the place that was reached.
func (st *stream) reached() {
	for !st.answers.empty() && st.answers.front().place.Compare(st.place) <= 0 {
		st.answers.pop().call()
	}
}

// queue is first in, first out. Its room is used again, also when it never runs empty. The zero value is empty.
type queue[T any] struct {
	items []T // from first on
	first int
}

func (q *queue[T]) empty() bool { return q.first == len(q.items) }

// front is the next item. There must be one.
func (q *queue[T]) front() *T { return &q.items[q.first] }

func (q *queue[T]) push(item T) {
	if len(q.items) == cap(q.items) && q.first > len(q.items)/2 {
		n := copy(q.items, q.items[q.first:])
		clear(q.items[n:])
		q.items, q.first = q.items[:n], 0
	}
	q.items = append(q.items, item)
}

// pop takes the next item. There must be one.
func (q *queue[T]) pop() (item T) {
	item, *q.front() = *q.front(), item
	if q.first++; q.empty() {
		q.items, q.first = q.items[:0], 0
		if cap(q.items) > 16 { // idle queues are many
			q.items = nil
		}
	}
	return item
}
