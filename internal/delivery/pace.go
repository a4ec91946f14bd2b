package delivery

import (
	"container/heap"
	"context"
	"hash/maphash"
	"iter"
	"slices"
	"sync"
	"time"

	"jobwire/internal/events"
)

// pace keeps one job's progress to one emission an interval. It exists from
// an emission until an interval passes with nothing to send. Guarded by the
// lock of its lane's shard, but for at, which paces guards.
type pace struct {
	lane    *lane
	job     string
	pending *item // the latest accepted progress, not emitted; nil when there is none
	// overdue means that the interval is over and pending cannot go out
	// under its own id, because a higher one has. The next progress, or a
	// refreshed id, goes out at once.
	overdue bool
	asked   events.ID // of the pending progress for which a new id is under way; zero when none is
	misses  int       // refreshes that found pending no longer the latest

	at time.Time // when to look again; zero when nobody needs to
}

// paceSet is the paces of one lane by job. There are mostly one or two, and a
// map for those would cost more than all else that coalescing does.
type paceSet struct {
	few  []hashedPace
	many map[string]*pace // instead of few, once there were more than fewPaces
}

// hashedPace saves a look at a pace of another job: that memory is cold.
type hashedPace struct {
	hash uint64 // of the job
	*pace
}

const fewPaces = 16

var paceSeed = maphash.MakeSeed()

func (ps *paceSet) empty() bool { return len(ps.few) == 0 && len(ps.many) == 0 }

func (ps *paceSet) get(job string) *pace {
	if len(ps.few) == 0 {
		return ps.many[job]
	}
	hash := maphash.String(paceSeed, job)
	for _, p := range ps.few {
		if p.hash == hash && p.job == job {
			return p.pace
		}
	}
	return nil
}

func (ps *paceSet) has(p *pace) bool {
	return slices.ContainsFunc(ps.few, p.is) || ps.many[p.job] == p
}

func (p *pace) is(q hashedPace) bool { return q.pace == p }

// add adds a pace whose job has none.
func (ps *paceSet) add(p *pace) {
	switch {
	case ps.many != nil:
		ps.many[p.job] = p
	case len(ps.few) < fewPaces:
		ps.few = append(ps.few, hashedPace{maphash.String(paceSeed, p.job), p})
	default:
		ps.many = map[string]*pace{p.job: p}
		for _, q := range ps.few {
			ps.many[q.job] = q.pace
		}
		ps.few = nil
	}
}

// remove removes a pace that is there.
func (ps *paceSet) remove(p *pace) {
	if i := slices.IndexFunc(ps.few, p.is); i >= 0 {
		ps.few = slices.Delete(ps.few, i, i+1)
		return
	}
	delete(ps.many, p.job)
}

func (ps *paceSet) all() iter.Seq[*pace] {
	return func(yield func(*pace) bool) {
		for _, p := range ps.few {
			if !yield(p.pace) {
				return
			}
		}
		for _, p := range ps.many {
			if !yield(p) {
				return
			}
		}
	}
}

// fire handles the end of a job's interval.
func (s *Service) fire(l *lane, p *pace, now time.Time) (action, bool) {
	if !l.jobs.has(p) || p.pending == nil {
		return action{}, false
	}
	s.paces.add(p, s.later(now))
	if p.pending.id.Compare(l.watermark) > 0 {
		a := action{early: p.pending, earlyID: p.pending.id}
		s.raise(l, p.pending.id)
		p.sent()
		return a, true
	}
	p.overdue = true
	if p.asked == p.pending.id {
		return action{}, false // the answer may be slow, the disk's or another call's
	}
	if p.misses > 1 && len(l.open) == 0 {
		// Twice the store said that there is a later event of the job, and no
		// call is under way that could bring it: another node has emitted it.
		p.sent()
		return action{}, false
	}
	p.asked = p.pending.id
	return action{refresh: p, at: p.asked}, true
}

// sent notes that there is nothing left to send.
func (p *pace) sent() { p.pending, p.overdue, p.misses = nil, false, 0 }

// unrefreshed notes that a refresh brought no new id; missed, because the
// store knows a later progress. The next end of an interval asks again.
func (ls *lanes) unrefreshed(e *Entry, missed bool) {
	l := ls.lock(e.Event.UserID)
	defer l.shard.mu.Unlock()
	if p := l.jobs.get(e.Event.JobID); p != nil && p.asked == e.At {
		p.asked = events.ID{}
		if missed && p.pending != nil && p.pending.id == e.At {
			p.misses++
		}
	}
	l.retire()
}

func (s *Service) nextEvent(l *lane, it *item, now time.Time) action {
	ev := &it.entry.Event
	switch {
	case ev.Name == events.JobProgress && s.cfg.Coalesce > 0:
		p := l.jobs.get(ev.JobID)
		if p != nil && !p.overdue {
			p.pending, p.misses = it, 0
			s.stats.coalesced.Add(1)
			return action{it: it, status: StatusCoalesced}
		}
		if p != nil {
			p.sent()
			s.paces.add(p, s.later(now))
		} else {
			s.startPace(l, ev.JobID, now)
		}
	case events.IsTerminal(ev.Name):
		a := action{it: it, emit: true}
		if p := l.jobs.get(ev.JobID); p != nil {
			l.jobs.remove(p)
			s.paces.remove(p)
			if p.pending != nil {
				a.early, a.earlyID = p.pending, p.pending.id
				if a.earlyID.Compare(l.watermark) <= 0 {
					a.earlyID = it.flush
				}
				if a.earlyID.Compare(l.watermark) <= 0 {
					a.early = nil // the store has forgotten the progress, and so do we
				} else {
					s.raise(l, a.earlyID)
				}
			}
		}
		s.raise(l, it.id)
		return a
	}
	s.raise(l, it.id)
	return action{it: it, emit: true}
}

// nextRefreshed emits pending progress under the id it has now.
func (s *Service) nextRefreshed(l *lane, it *item, now time.Time) action {
	p := l.jobs.get(it.entry.Event.JobID)
	if p != nil && p.asked == it.entry.At {
		p.asked = events.ID{}
	}
	if p == nil || p.pending == nil || p.pending.id != it.entry.At {
		return action{it: it}
	}
	a := action{early: p.pending, earlyID: it.id, it: it}
	p.sent()
	s.raise(l, it.id)
	s.paces.add(p, s.later(now))
	return a
}

// nextLive ends a replay. Progress that the replay has shown and that is
// still pending goes to the other sockets now: emitted later it would be a
// repeat to the new one.
func (s *Service) nextLive(l *lane, it *item, now time.Time) action {
	var oldest *pace
	for p := range l.jobs.all() {
		if p.pending != nil && p.pending.id.Compare(l.watermark) > 0 && p.pending.id.Compare(it.id) <= 0 &&
			(oldest == nil || p.pending.id.Compare(oldest.pending.id) < 0) {
			oldest = p
		}
	}
	if oldest == nil {
		return action{it: it}
	}
	a := action{early: oldest.pending, earlyID: oldest.pending.id}
	s.raise(l, a.earlyID)
	oldest.sent()
	s.paces.add(oldest, s.later(now))
	heap.Push(&l.ready, it) // there may be another one
	return a
}

func (s *Service) startPace(l *lane, job string, now time.Time) {
	p := &pace{lane: l, job: job}
	l.jobs.add(p)
	s.paces.add(p, s.later(now))
}

// paces is the one scheduler of all intervals. They all have the same length,
// so they end in the order in which they began, and a queue will do.
type paces struct {
	mu    sync.Mutex
	queue []due         // from first on in the order of at; those of paces that have moved since are passed over
	first int           // what is before it is over
	wake  chan struct{} // told when the queue is no longer empty
}

type due struct {
	pace *pace
	at   time.Time
}

func newPaces() *paces { return &paces{wake: make(chan struct{}, 1)} }

// add schedules a pace, or moves it. Callers may hold a lane's lock.
func (ps *paces) add(p *pace, at time.Time) {
	ps.mu.Lock()
	p.at = at
	empty := ps.first == len(ps.queue)
	if len(ps.queue) == cap(ps.queue) && ps.first > len(ps.queue)/2 {
		n := copy(ps.queue, ps.queue[ps.first:])
		clear(ps.queue[n:])
		ps.queue, ps.first = ps.queue[:n], 0
	}
	ps.queue = append(ps.queue, due{p, at})
	ps.mu.Unlock()
	if empty {
		select {
		case ps.wake <- struct{}{}:
		default:
		}
	}
}

func (ps *paces) remove(p *pace) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	p.at = time.Time{}
}

// ripe takes all paces whose time has come, and tells how long to sleep until
// the next; false when there is nothing to wait for.
func (ps *paces) ripe(now time.Time, ripe []*pace) (_ []*pace, sleep time.Duration, ok bool) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for ; ps.first < len(ps.queue); ps.first++ {
		d := &ps.queue[ps.first]
		if sleep = d.at.Sub(now); sleep > 0 {
			return ripe, sleep, true
		}
		if d.pace.at.Equal(d.at) {
			d.pace.at = time.Time{}
			ripe = append(ripe, d.pace)
		}
		*d = due{}
	}
	ps.queue, ps.first = nil, 0
	return ripe, 0, false
}

func (ps *paces) takeAll() (all []*pace) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for _, d := range ps.queue[ps.first:] {
		if d.pace.at.Equal(d.at) {
			d.pace.at = time.Time{}
			all = append(all, d.pace)
		}
	}
	ps.queue, ps.first = nil, 0
	return all
}

// paceSteps is how often within an interval the scheduler looks at most; an
// interval may last so much longer.
const paceSteps = 20

func (s *Service) runPaces() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var ripe []*pace
	for {
		var sleep time.Duration
		var ok bool
		ripe, sleep, ok = s.paces.ripe(s.cfg.Now(), ripe[:0])
		for _, p := range ripe {
			s.ripen(p)
		}
		clear(ripe)
		if !ok {
			sleep = time.Hour
		}
		// A busy node would be woken for every single event.
		timer.Reset(max(sleep, s.cfg.Coalesce/paceSteps))
		select {
		case <-timer.C:
		case <-s.paces.wake:
		case <-s.quit:
			s.flushPaces()
			return
		}
	}
}

// ripen hands a pace whose time has come to its lane, or forgets it.
func (s *Service) ripen(p *pace) {
	l := p.lane
	l.shard.mu.Lock()
	if !l.jobs.has(p) {
		l.shard.mu.Unlock()
		return
	}
	if p.pending == nil {
		l.jobs.remove(p)
		l.retire()
		l.shard.mu.Unlock()
		return
	}
	l.due = append(l.due, p)
	drain := l.claim()
	l.shard.mu.Unlock()
	if !drain {
		return
	}
	// One user's busy lane must not keep the paces of all others.
	share := drainShare
	if s.enter() {
		defer s.calls.Done()
	} else {
		share = 0 // closing: nothing new comes, and nobody could take over
	}
	s.drain(l, nil, share)
}

// flushPaces emits everything pending at once, overtaken progress last and
// under new ids. It runs as the last step of Close, when no call is in
// progress, so that nothing else can get ids or emit in between.
func (s *Service) flushPaces() {
	var inOrder []*item
	var overtaken []Entry
	type heldKey struct {
		user string
		id   events.ID
	}
	held := make(map[heldKey]*item)
	for _, p := range s.paces.takeAll() {
		l := p.lane
		l.shard.mu.Lock()
		if l.jobs.has(p) {
			l.jobs.remove(p)
			switch {
			case p.pending == nil:
			case p.pending.id.Compare(l.watermark) > 0:
				inOrder = append(inOrder, p.pending)
			default:
				overtaken = append(overtaken, refreshOf(l.user, p.job, p.pending.id))
				held[heldKey{l.user, p.pending.id}] = p.pending
			}
		}
		l.retire()
		l.shard.mu.Unlock()
	}
	slices.SortFunc(inOrder, func(a, b *item) int { return a.id.Compare(b.id) })
	for _, it := range inOrder {
		s.send(it.entry.Event.UserID, it.entry, it.id, false)
		s.stats.emitted.Add(1)
	}
	if len(overtaken) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), refreshTimeout)
	defer cancel()
	decisions, err := s.store.Publish(ctx, overtaken)
	if err != nil {
		s.cfg.Logger.Warn("the last progress of some jobs is left to their replay", "jobs", len(overtaken), "error", err)
		return
	}
	for i, d := range decisions {
		if d.Verdict == VerdictStored {
			e := &overtaken[i]
			s.send(e.Event.UserID, held[heldKey{e.Event.UserID, e.At}].entry, d.ID, false)
			s.stats.emitted.Add(1)
		}
	}
}
