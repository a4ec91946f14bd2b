package delivery

import (
	"context"
	"time"

	"jobwire/events"
)

// visit is the part of a publish that concerns one user.
type visit struct {
	lane   *lane
	ticket uint64
	items  []*item
}

// publish is the way of every stored event: tickets, one call to the store,
// then each item at its place in its user's lane. It returns when all are
// emitted, held back or refused. out has one place an entry.
func (s *Service) publish(ctx context.Context, entries []Entry, out []Answer, w *waiter) error {
	if !s.enter() {
		return ErrClosed
	}
	defer s.calls.Done()
	return s.publishEntered(ctx, entries, out, w)
}

func (s *Service) publishEntered(ctx context.Context, entries []Entry, out []Answer, w *waiter) error {
	visits, index := s.visit(entries)
	decisions, err := s.store.Publish(ctx, entries)
	if err != nil {
		for i := range visits {
			s.depart(&visits[i], nil)
		}
		if ctx.Err() != nil {
			return ctx.Err() // the store stopped before it decided
		}
		s.stats.storeFailures.Add(1)
		return unavailable(err)
	}
	c := &call{done: make(chan struct{})}
	n := 0
	for i := range entries {
		e, d := &entries[i], &decisions[i]
		s.dropped(e.Event.UserID, d.Dropped)
		it := s.judge(e, d, &out[i], w)
		if it == nil {
			continue
		}
		it.answer, it.call = &out[i], c
		v := &visits[index[i]]
		v.items = append(v.items, it)
		n++
	}
	c.left.Store(int32(n))
	for i := range visits {
		s.depart(&visits[i], c)
	}
	if n > 0 {
		<-c.done
	}
	return nil
}

// visit takes one ticket for every user among the entries; index tells which
// visit an entry belongs to.
func (s *Service) visit(entries []Entry) (visits []visit, index []int) {
	index = make([]int, len(entries))
	if len(entries) == 1 {
		l, t := s.lanes.enter(entries[0].Event.UserID)
		return []visit{{lane: l, ticket: t}}, index
	}
	seen := make(map[string]int, len(entries))
	for i := range entries {
		user := entries[i].Event.UserID
		at, ok := seen[user]
		if !ok {
			at = len(visits)
			seen[user] = at
			l, t := s.lanes.enter(user)
			visits = append(visits, visit{lane: l, ticket: t})
		}
		index[i] = at
	}
	return visits, index
}

func (s *Service) depart(v *visit, c *call) {
	if v.lane.leave(v.ticket, v.items) {
		s.drain(v.lane, c, len(v.items))
	}
}

// judge turns a decision into an answer, or into an item when the answer
// depends on the emission.
func (s *Service) judge(e *Entry, d *Decision, a *Answer, w *waiter) *item {
	switch d.Verdict {
	case VerdictKeyReused:
		a.Err = ErrKeyReused
		s.stats.refused.Add(1)
		return nil
	case VerdictIgnored:
		a.Result = Result{Status: StatusIgnored, Reason: d.Reason}
		if e.Kind == KindEvent {
			s.stats.ignored.Add(1)
		}
		return nil
	case VerdictRepeated:
		s.stats.repeated.Add(1)
		if w != nil && !d.ID.IsZero() {
			s.receipts.expectSince(w, d.ID, d.Confirmed)
		}
		if d.Outcome != nil {
			a.Result = d.Outcome.result(true)
			return nil
		}
		return &item{kind: itemEcho, id: d.ID, entry: e}
	}
	it := &item{kind: itemEvent, id: d.ID, flush: d.FlushID, entry: e, waiter: w}
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
	return it
}

// refreshTimeout bounds the background calls to a store that hangs.
const refreshTimeout = 10 * time.Second
