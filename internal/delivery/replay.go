package delivery

import (
	"context"
	"time"

	"jobwire/internal/events"
)

// Sink is one newly connected socket that is already in its user's room and
// held: what the room gets is kept back until Live.
type Sink interface {
	UserID() string
	// Offset is what the client sent as its recovery offset.
	Offset() (offset string, has bool)
	// Emit queues one packet for this socket alone; false when it is closed.
	Emit(packet []byte, id events.ID, confirm bool) bool
	// Live drops what was kept back with an id up to after, sends the rest in
	// order, and ends the hold.
	Live(after events.ID)
	// Buffered is the number of bytes that wait to be written.
	Buffered() int
}

// Replay is what a socket must see before it goes live.
type Replay struct {
	// Recovered is false when the client's offset is not (any more) in the
	// log: it gets what is retained, and may have missed something.
	Recovered bool

	service *Service
	sink    Sink
	page    Page
}

// Open reads the first page of the socket's replay. It must be called right
// after the hold, and Run soon after it. An error means that the store does
// not answer: the caller closes the socket, so that the client comes back,
// since a socket that goes live without its replay would never get it.
func (s *Service) Open(ctx context.Context, sink Sink) (*Replay, error) {
	if !s.enter() {
		return nil, ErrClosed
	}
	defer s.calls.Done()
	user := sink.UserID()
	q := Query{UserID: user, Limit: replayEvents, Bytes: s.cfg.ReplayWindow}
	known := true
	if text, has := sink.Offset(); has {
		id, err := events.ParseID(text)
		known = err == nil
		q.Offset, q.HasOffset = id, true // when malformed, everything is after the zero id
	}
	q.Confirmed = s.receipts.pin(user)
	defer s.receipts.unpin(user)
	page, err := s.read(ctx, q)
	if err != nil {
		return nil, err
	}
	s.stats.replays.Add(1)
	recovered := known && page.Recovered
	if !recovered {
		s.stats.unrecovered.Add(1)
	}
	return &Replay{Recovered: recovered, service: s, sink: sink, page: page}, nil
}

// Attach is Open and Run in one.
func (s *Service) Attach(ctx context.Context, sink Sink) (recovered bool, err error) {
	r, err := s.Open(ctx, sink)
	if err != nil {
		return false, err
	}
	return r.Recovered, r.Run(ctx)
}

// replayEvents is the number of events a page of a replay.
const replayEvents = 128

// Run sends the replay, never more than ReplayWindow ahead of what the socket
// has written, and lets the socket go live. It returns ErrSinkClosed or
// ErrReplayStalled when the socket does not take it, the store's error when
// the next page cannot be read, ctx's error when it ends; in all these cases
// the socket is not live and the caller closes it.
func (r *Replay) Run(ctx context.Context) error {
	s := r.service
	if !s.enter() {
		return ErrClosed
	}
	defer s.calls.Done()
	for {
		for _, rec := range r.page.Records {
			if err := r.drained(ctx); err != nil {
				return err
			}
			if !r.sink.Emit(events.Encode(rec.Name, rec.Data, rec.ID), rec.ID, rec.Durable) {
				return ErrSinkClosed
			}
			s.stats.replayed.Add(1)
		}
		if r.page.Next == nil {
			break
		}
		page, err := s.read(ctx, *r.page.Next)
		if err != nil {
			return err
		}
		r.page = page
	}
	return r.live(ctx)
}

// live ends the hold at the right place among the user's emissions: after
// everything that the replay has seen in the log and that is still on its way
// to the room, so that it is dropped there and not sent twice.
func (r *Replay) live(ctx context.Context) error {
	s, last := r.service, r.page.Last
	c := new(call)
	c.left.Add(1)
	it := &item{kind: itemLive, id: last, call: c, live: func() { r.sink.Live(last) }}
	if l, drain := s.lanes.put(r.sink.UserID(), it); drain {
		s.drain(l, c, 1)
	}
	c.left.Wait() // the store answers every call, so every ticket comes back
	return ctx.Err()
}

func (s *Service) read(ctx context.Context, q Query) (Page, error) {
	select {
	case s.readers <- struct{}{}:
	case <-ctx.Done():
		return Page{}, ctx.Err()
	}
	defer func() { <-s.readers }()
	page, err := s.store.Read(ctx, q)
	if err != nil {
		if ctx.Err() != nil {
			return Page{}, ctx.Err()
		}
		s.stats.storeFailures.Add(1)
		return Page{}, unavailable(err)
	}
	return page, nil
}

// drained waits until the socket's queue has room. The engine does not tell
// when it has written, so this looks again after a short while, less and less
// often while nothing moves.
func (r *Replay) drained(ctx context.Context) error {
	s := r.service
	level := r.sink.Buffered()
	if level < s.cfg.ReplayWindow {
		return nil
	}
	const shortest, longest = 2 * time.Millisecond, 100 * time.Millisecond
	pause := shortest
	timer := time.NewTimer(pause)
	defer timer.Stop()
	moved := s.cfg.Now()
	for {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return ctx.Err()
		case <-s.closing:
			return ErrClosed
		}
		now := r.sink.Buffered()
		if now < s.cfg.ReplayWindow {
			return nil
		}
		if now < level {
			moved, pause = s.cfg.Now(), shortest
		} else if s.cfg.Now().Sub(moved) > s.cfg.ReplayStall {
			return ErrReplayStalled
		}
		level = now
		pause = min(pause*2, longest)
		timer.Reset(pause)
	}
}

// Jobs lists the user's jobs, the latest change first.
func (s *Service) Jobs(ctx context.Context, userID string) ([]Job, error) {
	if !s.enter() {
		return nil, ErrClosed
	}
	defer s.calls.Done()
	jobs, err := s.store.Jobs(ctx, userID)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		s.stats.storeFailures.Add(1)
		return nil, unavailable(err)
	}
	return jobs, nil
}
