package delivery

import (
	"container/heap"
	"hash/maphash"
	"sync"
	"time"

	"jobwire/internal/events"
)

// A lane puts the emissions of one user in the order of their ids.
//
// Calls that publish for the same user run at the same time and come back
// from the store in any order. Each call takes a ticket before it goes to the
// store. When it comes back with ids, its items wait until every call has
// come back that took its ticket before that moment. A call that starts later
// can only get higher ids, so what has waited so long, lowest id first, is in
// order. This needs nothing from the store but rising ids.
//
// One goroutine at a time drains a lane, and it holds no lock while it emits.
// A lane exists while something is under way, or while a job's last progress
// is younger than the coalescing interval; then it is gone from memory.
type lane struct {
	shard *laneShard
	user  string

	// All below is guarded by shard.mu.
	next      uint64   // the next ticket
	open      []uint64 // tickets of calls that are at the store, rising
	ready     itemHeap
	draining  bool
	watermark events.ID // the highest id emitted
	jobs      paceSet
	due       []*pace // jobs whose interval has ended with progress pending
}

const laneShards = 64

type lanes struct {
	seed   maphash.Seed
	shards [laneShards]laneShard
}

type laneShard struct {
	mu    sync.Mutex
	lanes map[string]*lane
}

func (ls *lanes) init() {
	ls.seed = maphash.MakeSeed()
	for i := range ls.shards {
		ls.shards[i].lanes = make(map[string]*lane)
	}
}

func (ls *lanes) lock(user string) *lane {
	sh := &ls.shards[maphash.String(ls.seed, user)%laneShards]
	sh.mu.Lock()
	l := sh.lanes[user]
	if l == nil {
		l = &lane{shard: sh, user: user}
		sh.lanes[user] = l
	}
	return l
}

// enter takes a ticket.
func (ls *lanes) enter(user string) (*lane, uint64) {
	l := ls.lock(user)
	defer l.shard.mu.Unlock()
	t := l.next
	l.next++
	l.open = append(l.open, t)
	return l, t
}

// leave gives the ticket back together with what the call brought. When it
// returns true the caller must drain the lane.
func (l *lane) leave(ticket uint64, items []*item) (drain bool) {
	l.shard.mu.Lock()
	defer l.shard.mu.Unlock()
	for i, t := range l.open {
		if t == ticket {
			l.open = append(l.open[:i], l.open[i+1:]...)
			break
		}
	}
	for _, it := range items {
		it.after = l.next
		heap.Push(&l.ready, it)
	}
	return l.claim()
}

// put adds items without a ticket: for what the store has shown already.
func (ls *lanes) put(user string, it *item) (l *lane, drain bool) {
	l = ls.lock(user)
	defer l.shard.mu.Unlock()
	it.after = l.next
	heap.Push(&l.ready, it)
	return l, l.claim()
}

// claim makes the caller the drainer when there is something to drain and
// nobody at it; otherwise it forgets a lane that has nothing left.
func (l *lane) claim() bool {
	if l.draining {
		return false
	}
	if l.released() || len(l.due) > 0 {
		l.draining = true
		return true
	}
	l.retire()
	return false
}

// takeDue takes the pace with the oldest pending progress, so that as few as
// possible are overtaken.
func (l *lane) takeDue() *pace {
	first := 0
	for i, p := range l.due {
		q := l.due[first]
		if q.pending == nil || (p.pending != nil && p.pending.id.Compare(q.pending.id) < 0) {
			first = i
		}
	}
	p := l.due[first]
	l.due = append(l.due[:first], l.due[first+1:]...)
	return p
}

func (l *lane) released() bool {
	return len(l.ready) > 0 && (len(l.open) == 0 || l.open[0] >= l.ready[0].after)
}

func (l *lane) retire() {
	if !l.draining && len(l.open) == 0 && len(l.ready) == 0 && l.jobs.empty() && len(l.due) == 0 {
		delete(l.shard.lanes, l.user)
	}
}

type itemKind uint8

const (
	itemEvent   itemKind = iota // a stored event of a worker, or job_stalled
	itemRefresh                 // pending progress got a new id
	itemEcho                    // a repeat whose first call is still under way
	itemLive                    // a replay has come to its end
)

// item is one thing to do at its place in the order of a user.
type item struct {
	kind  itemKind
	id    events.ID
	after uint64 // released when all tickets below it are given back

	entry  *Entry
	flush  events.ID // see Decision.FlushID
	answer *Answer   // filled in before call is told; nil when nobody asks
	call   *call
	waiter *waiter
	live   func() // of itemLive
}

// call counts the items of a publish that are not yet done.
type call struct{ left sync.WaitGroup }

type itemHeap []*item

func (h itemHeap) Len() int { return len(h) }
func (h itemHeap) Less(i, j int) bool {
	if c := h[i].id.Compare(h[j].id); c != 0 {
		return c < 0
	}
	return h[i].kind < h[j].kind // echoes and replays come after the event they refer to
}
func (h itemHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *itemHeap) Push(x any)   { *h = append(*h, x.(*item)) }
func (h *itemHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return last
}

// action is what a drainer does with no lock held: up to two emissions and
// the completion of an item.
type action struct {
	early   *item     // pending progress that goes out first
	earlyID events.ID // under this id
	emit    bool      // it itself is emitted
	status  Status    // of it when it is not emitted
	it      *item
	refresh *pace // its pending progress needs a new id
	at      events.ID
}

// next takes the next action from a lane that the caller drains.
func (s *Service) next(l *lane) (a action, ok bool) {
	l.shard.mu.Lock()
	defer l.shard.mu.Unlock()
	var now time.Time
	if len(l.due) > 0 || l.released() {
		now = s.cfg.Now()
	}
	for len(l.due) > 0 {
		if a, ok := s.fire(l, l.takeDue(), now); ok {
			return a, true
		}
	}
	l.due = nil
	if !l.released() {
		l.draining = false
		l.retire()
		return action{}, false
	}
	it := heap.Pop(&l.ready).(*item)
	switch it.kind {
	case itemEcho:
		return action{it: it}, true
	case itemLive:
		return s.nextLive(l, it, now), true
	case itemRefresh:
		return s.nextRefreshed(l, it, now), true
	}
	return s.nextEvent(l, it, now), true
}

// raise moves the watermark. Ids come in rising order; a lower one here would
// be a broken store, and is counted so that it does not stay unseen.
func (s *Service) raise(l *lane, id events.ID) {
	if id.Compare(l.watermark) <= 0 {
		s.stats.disorder.Add(1)
		return
	}
	l.watermark = id
}

// drainShare is how many actions a caller without own items does in a lane.
const drainShare = 16

// drain works until nothing is released, or until the caller's share is done:
// that many items of own, or actions when own is nil. It then hands the rest
// over, so that a busy user cannot keep anybody for ever. A share of 0 has no
// end. The caller has entered, see enter, unless its share is 0.
func (s *Service) drain(l *lane, own *call, share int) {
	for {
		a, ok := s.next(l)
		if !ok {
			return
		}
		s.perform(l.user, a)
		if own != nil && (a.it == nil || a.it.call != own) {
			continue
		}
		if share--; share == 0 {
			l.shard.mu.Lock()
			l.draining = false
			more := l.claim()
			l.shard.mu.Unlock()
			if more {
				s.calls.Go(func() { s.drain(l, nil, 0) })
			}
			return
		}
	}
}

func (s *Service) perform(user string, a action) {
	if a.early != nil {
		s.send(user, a.early.entry, a.earlyID, false)
		s.stats.emitted.Add(1)
	}
	if a.refresh != nil {
		s.requestRefresh(user, a.refresh.job, a.at)
	}
	it := a.it
	if it == nil {
		return
	}
	res := Result{ID: it.id, Status: a.status}
	switch {
	case it.kind == itemLive:
		it.live()
	case it.kind == itemEcho:
		res = s.receipts.outcome(user, it.entry.Event.IdempotencyKey, it.id)
	case a.emit:
		if it.waiter != nil {
			s.receipts.expect(it.waiter, it.id)
		}
		res.Sockets = s.send(user, it.entry, it.id, it.waiter != nil)
		res.Status = StatusStored
		if res.Sockets > 0 {
			res.Status = StatusSent
		}
		s.stats.emitted.Add(1)
	}
	if it.answer != nil {
		it.answer.Result = res
	}
	if it.kind == itemEvent && it.entry.Event.IdempotencyKey != "" {
		s.receipts.settle(user, it.entry.Event.IdempotencyKey, res.outcome())
	}
	if it.call != nil {
		it.call.left.Done()
	}
}

// send emits an event and asks for a receipt when the replay, or a worker,
// needs one.
func (s *Service) send(user string, e *Entry, id events.ID, awaited bool) (sockets int) {
	confirm := awaited || events.ClassOf(e.Event.Name) == events.Durable
	packet := s.packets.Get().(*[]byte)
	defer s.packets.Put(packet)
	*packet = events.AppendEncoded((*packet)[:0], e.Event.Name, e.Event.Data, id)
	return s.emitter.Emit(user, *packet, id, confirm)
}

// later is now plus the coalescing interval.
func (s *Service) later(now time.Time) time.Time { return now.Add(s.cfg.Coalesce) }
