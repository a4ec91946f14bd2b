package delivery

import (
	"context"
	"time"

	"jobwire/internal/events"
)

// publishing is one call with its entries on their way.
type publishing struct {
	call    call
	entries []Entry
	answers []Answer // one for each entry
	items   []item   // likewise; unused where nothing is left to do
	visits  []visit
	index   []int // which visit an entry belongs to; nil when there is one only
}

// visit is the part of a publish that concerns one user.
type visit struct {
	lane   *lane
	ticket uint64
	items  []*item
}

// single is a publishing of one entry, in one piece of memory.
type single struct {
	publishing
	entry  [1]Entry
	answer [1]Answer
	item   [1]item
	visit  [1]visit
	ready  [1]*item
}

func newSingle(e Entry) *single {
	p := &single{entry: [1]Entry{e}}
	p.entries, p.answers, p.items = p.entry[:], p.answer[:], p.item[:]
	p.visits = p.visit[:]
	p.visits[0].items = p.ready[:0]
	return p
}

func newPublishing(entries []Entry) *publishing {
	p := &publishing{entries: entries, answers: make([]Answer, len(entries)), items: make([]item, len(entries))}
	p.index = make([]int, len(entries))
	seen := make(map[string]int, len(entries))
	for i := range entries {
		user := entries[i].Event.UserID
		at, ok := seen[user]
		if !ok {
			at = len(p.visits)
			seen[user] = at
			p.visits = append(p.visits, visit{})
		}
		p.index[i] = at
	}
	return p
}

// of is the visit that an entry belongs to.
func (p *publishing) of(entry int) *visit {
	if p.index == nil {
		return &p.visits[0]
	}
	return &p.visits[p.index[entry]]
}

// publish is the way of every stored event: tickets, one call to the store,
// then each item at its place in its user's lane. It returns when all are
// emitted, held back or refused, and then their answers are there.
func (s *Service) publish(ctx context.Context, p *publishing, w *waiter) error {
	if !s.enter() {
		return ErrClosed
	}
	defer s.calls.Done()
	if err := s.begin(ctx, p, w); err != nil {
		return err
	}
	p.call.left.Wait()
	return nil
}

// begin is publish by a caller that has entered, without the wait for what
// others emit first: the answers that need an emission may come later.
func (s *Service) begin(ctx context.Context, p *publishing, w *waiter) error {
	for i := range p.entries {
		if v := p.of(i); v.lane == nil {
			v.lane, v.ticket = s.lanes.enter(p.entries[i].Event.UserID)
		}
	}
	decisions, err := s.store.Publish(ctx, p.entries)
	if err != nil {
		for i := range p.visits {
			s.depart(&p.visits[i], nil)
		}
		if ctx.Err() != nil {
			return ctx.Err() // the store stopped before it decided
		}
		s.stats.storeFailures.Add(1)
		return unavailable(err)
	}
	n := 0
	for i := range p.entries {
		e, d, it := &p.entries[i], &decisions[i], &p.items[i]
		if d.Dropped.Events > 0 {
			s.dropped(e.Event.UserID, d.Dropped)
			s.receipts.lose(e.Event.UserID, d.Trimmed)
		}
		if !s.judge(e, d, &p.answers[i], w, it) {
			continue
		}
		it.answer, it.call = &p.answers[i], &p.call
		v := p.of(i)
		v.items = append(v.items, it)
		n++
	}
	p.call.left.Add(n)
	for i := range p.visits {
		s.depart(&p.visits[i], &p.call)
	}
	return nil
}

func (s *Service) depart(v *visit, c *call) {
	if !v.lane.leave(v.ticket, v.items) {
		return
	}
	if len(v.items) == 0 {
		s.drain(v.lane, nil, drainShare)
		return
	}
	s.drain(v.lane, c, len(v.items))
}

// judge turns a decision into an answer; or, when the answer depends on the
// emission, into an item, and returns true.
func (s *Service) judge(e *Entry, d *Decision, a *Answer, w *waiter, it *item) bool {
	switch d.Verdict {
	case VerdictKeyReused:
		a.Err = ErrKeyReused
		s.stats.refused.Add(1)
		return false
	case VerdictIgnored:
		a.Result = Result{Status: StatusIgnored, Reason: d.Reason}
		switch e.Kind {
		case KindEvent:
			s.stats.ignored.Add(1)
		case KindRefresh:
			s.lanes.unrefreshed(e, true)
		}
		return false
	case VerdictRepeated:
		s.stats.repeated.Add(1)
		if w != nil && !d.ID.IsZero() {
			s.receipts.expectSince(w, d.ID, d.Confirmed)
		}
		if d.Outcome != nil {
			a.Result = d.Outcome.result(true)
			return false
		}
		*it = item{kind: itemEcho, id: d.ID, entry: e}
		return true
	}
	*it = item{kind: itemEvent, id: d.ID, flush: d.FlushID, entry: e, waiter: w}
	switch e.Kind {
	case KindRefresh:
		it.kind = itemRefresh
	case KindStall:
		e.Event.Name, e.Event.Data = events.JobStalled, d.Data
		s.stats.stalled.Add(1)
	default:
		s.stats.published.Add(1)
		if e.Event.StaleAfter > 0 {
			s.keeper.arm(s.cfg.Now().Add(e.Event.StaleAfter))
		}
	}
	return true
}

// refreshTimeout bounds the background calls to a store that hangs.
const refreshTimeout = 10 * time.Second
