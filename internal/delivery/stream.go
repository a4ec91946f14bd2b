package delivery

import (
	"hash/maphash"
	"sync"

	"jobwire/internal/events"
)

// A stream is the one way by which anything reaches the sockets of a user: what the feed delivers, progress that was held
// back, sockets that join, replays that end, answers that have a place. Each is a task; tasks run one after the other, in the
// order in which they were put, by whoever has put the first one. No lock is held while one runs.
//
// A stream exists while its user has a socket here, or a task is left. What the feed delivers to others needs none.
type stream struct {
	user  string
	shard *streamShard

	// Guarded by shard.mu.
	sockets int // that were attached and have not left
	follows int // calls of Store.Follow to take back, by the sockets that leave last
	tasks   queue[task]
	running bool
	gone    bool // it is not in the shard any more

	// Whoever runs the stream owns what follows.
	place     events.ID            // of the newest delivery that was emitted, or held back
	shown     events.ID            // of the newest one about a job that was emitted
	throttles map[string]*throttle // by job
	waiting   []waiting            // for a place
}

// task is one thing to do; one of its fields is set.
type task struct {
	delivery *Delivery
	expired  *throttle
	call     func(*stream)
}

// waiting is a call that waits until everything up to a place was emitted.
type waiting struct {
	place events.ID
	call  func()
}

const streamShards = 64

type streams struct {
	seed   maphash.Seed
	shards [streamShards]streamShard
}

type streamShard struct {
	mu     sync.Mutex // a leaf: nothing is called under it
	byUser map[string]*stream
}

func (ss *streams) init() {
	ss.seed = maphash.MakeSeed()
	for i := range ss.shards {
		ss.shards[i].byUser = make(map[string]*stream)
	}
}

func (ss *streams) shard(user string) *streamShard {
	return &ss.shards[maphash.String(ss.seed, user)%streamShards]
}

// attach counts a socket of a user, and makes the stream for the first.
func (ss *streams) attach(user string) *stream {
	sh := ss.shard(user)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	st := sh.byUser[user]
	if st == nil {
		st = &stream{user: user, shard: sh}
		sh.byUser[user] = st
	}
	st.sockets++
	return st
}

// of returns the stream of a user, nil when there is none.
func (ss *streams) of(user string) *stream {
	sh := ss.shard(user)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.byUser[user]
}

// put lines up a task. True asks the caller to run the stream; a stream that is gone takes none.
func (st *stream) put(t task) (run bool) {
	st.shard.mu.Lock()
	defer st.shard.mu.Unlock()
	return st.add(t)
}

// add is put with the shard's lock held.
func (st *stream) add(t task) (run bool) {
	if st.gone {
		return false
	}
	st.tasks.push(t)
	run = !st.running
	st.running = true
	return run
}

// next takes the next task. Without one the caller no longer runs the stream.
func (st *stream) next() (t task, ok bool) {
	st.shard.mu.Lock()
	defer st.shard.mu.Unlock()
	if st.tasks.empty() {
		st.running = false
		st.retire()
		return task{}, false
	}
	return st.tasks.pop(), true
}

// retire forgets a stream that is not needed. The shard's lock is held.
func (st *stream) retire() {
	if st.sockets == 0 && !st.running {
		st.gone = true
		delete(st.shard.byUser, st.user)
	}
}

// feed is the Service as its store sees it.
type feed Service

var _ Feed = (*feed)(nil)

// Deliver lines up an event for the user's sockets, if there are any here.
func (f *feed) Deliver(d *Delivery) (run bool) {
	sh := f.streams.shard(d.UserID)
	sh.mu.Lock()
	st := sh.byUser[d.UserID]
	if st == nil {
		sh.mu.Unlock()
		d.tell(0, false)
		return false
	}
	defer sh.mu.Unlock()
	return st.add(task{delivery: d})
}

// Run emits what is lined up.
func (f *feed) Run(userID string) {
	if st := f.streams.of(userID); st != nil {
		(*Service)(f).run(st)
	}
}

func (f *feed) Confirmed(c Cursor)                   { f.receipts.release(c.UserID, c.Confirmed) }
func (f *feed) Disconnect(userID, reason string) int { return f.emitter.Disconnect(userID, reason) }
func (f *feed) Lost(userID string)                   { f.emitter.Reconnect(userID) }
func (f *feed) Sockets(userID string) int            { return f.emitter.Sockets(userID) }
func (d *Delivery) tell(sockets int, held bool) {
	if d.Emission != nil {
		d.Emission.Tell(sockets, held)
	}
}

// runShare is how many tasks one caller runs. Then another goroutine goes on, so that a busy user keeps no caller for ever.
const runShare = 32

// run runs a stream until no task is left, or the caller's share is done.
func (s *Service) run(st *stream) {
	for n := 1; ; n++ {
		t, ok := st.next()
		switch {
		case !ok:
			return
		case t.delivery != nil:
			s.emit(st, t.delivery)
		case t.expired != nil:
			s.onExpire(st, t.expired)
		default:
			t.call(st)
		}
		if n == runShare && s.enter() {
			go func() {
				defer s.calls.Done()
				s.run(st)
			}()
			return
		}
	}
}

// do runs call in the user's stream. It may have returned before.
func (s *Service) do(st *stream, call func(*stream)) {
	if st.put(task{call: call}) {
		s.run(st)
	}
}

// emit is what happens to a delivery: progress of a job is throttled, everything else goes out at once, after the progress
// that is still held back of its job.
func (s *Service) emit(st *stream, d *Delivery) {
	if d.Place.Compare(st.place) <= 0 {
		s.stats.old.Add(1) // what is shown already; a store that works does not deliver it
		d.tell(0, false)
		return
	}
	st.place = d.Place
	if d.JobID != "" && s.cfg.Coalesce > 0 {
		t := st.throttles[d.JobID]
		switch {
		case d.Kind == events.Progress && t != nil:
			t.held = d
			s.stats.coalesced.Add(1)
			d.tell(0, true)
			s.release(st)
			return
		case d.Kind == events.Progress:
			s.throttle(st, d.JobID)
		case t != nil:
			delete(st.throttles, d.JobID)
			if t.held != nil {
				s.send(st, t.held)
			}
		}
	}
	d.tell(s.send(st, d), false)
	s.release(st)
}

// release calls those who wait for the place that was reached.
func (s *Service) release(st *stream) {
	for len(st.waiting) > 0 && st.waiting[0].place.Compare(st.place) <= 0 {
		call := st.waiting[0].call
		st.waiting[0] = waiting{}
		if st.waiting = st.waiting[1:]; len(st.waiting) == 0 {
			st.waiting = nil
		}
		call()
	}
}

// at runs call in the user's stream once everything up to a place was emitted. Calls with a lower place go first.
func (s *Service) at(st *stream, place events.ID, call func()) {
	s.do(st, func(st *stream) {
		if place.Compare(st.place) <= 0 {
			call()
			return
		}
		i := len(st.waiting)
		for i > 0 && st.waiting[i-1].place.Compare(place) > 0 {
			i--
		}
		st.waiting = append(st.waiting, waiting{})
		copy(st.waiting[i+1:], st.waiting[i:])
		st.waiting[i] = waiting{place, call}
	})
}

// send emits an event to the user's sockets. A message carries its id and asks for a receipt.
func (s *Service) send(st *stream, d *Delivery) (sockets int) {
	if d.JobID != "" && d.Place.Compare(st.shown) > 0 {
		st.shown = d.Place
	}
	var id events.ID
	if d.Kind.Logged() {
		id = d.Place
	}
	packet := s.packets.Get().(*[]byte)
	*packet = events.AppendEncoded((*packet)[:0], d.Name, d.Data, id)
	sockets = s.emitter.Emit(d.UserID, *packet, d.Place, d.Kind.Logged())
	s.packets.Put(packet)
	s.stats.emitted.Add(1)
	return sockets
}
