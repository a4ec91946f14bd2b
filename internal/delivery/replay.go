package delivery

import (
	"context"
	"errors"
	"time"

	"jobwire/internal/events"
)

// Sink is one connected socket.
type Sink interface {
	UserID() string
	// Offset is what the client sent as its recovery offset. A client that was connected before and sends none has an empty one:
	// it has seen no message so far, but jobs perhaps, of which it may have missed the end.
	Offset() (offset string, has bool)
	// Join puts the socket into its user's room. What is emitted there is held back for it until Live.
	Join()
	// Emit queues one packet for this socket alone, past what is held back; false when it is closed. A message has an id, and
	// asks for a receipt; the id is zero otherwise.
	Emit(packet []byte, id events.ID) bool
	// Live sends what was held back, and ends the hold. What has a place up to upTo is left out, now and later.
	Live(upTo events.ID)
	// Buffered is the number of bytes that wait to be written.
	Buffered() int
}

var (
	// ErrSinkClosed ends a replay whose socket is gone.
	ErrSinkClosed = errors.New("the socket closed during its replay")
	// ErrReplayStalled ends a replay whose client takes nothing any more.
	ErrReplayStalled = errors.New("the client read nothing during its replay")
	// ErrReplayOvertaken ends a replay of which retention took messages before they were sent. Its client was told that it
	// misses nothing; when it comes back, its offset does not count any more, and it is told so.
	ErrReplayOvertaken = errors.New("retention dropped messages during their replay")
)

// Replay is what a socket must see before it goes live.
type Replay struct {
	// Recovered is false when the client had an offset that does not count: it may have missed something.
	Recovered bool

	service *Service
	stream  *stream
	sink    Sink
	query   Query
	page    Page
}

// Open counts a socket, lets it join its user's room at a place of the feed, and reads the first page of its replay. Every
// call needs one Leave after it, also when it fails. An error means that the store does not answer: the caller closes the
// socket, so that the client comes back, since a socket that goes live without its replay would never get it.
//
// Everything up to the place at which it joins has been emitted before, and everything after it reaches the room with the
// socket in it. So the replay must show what is after it whoever has confirmed it, and only of what is before it may leave
// out what was confirmed.
func (s *Service) Open(ctx context.Context, sink Sink) (*Replay, error) {
	st := s.streams.attach(sink.UserID())
	if !s.enter() {
		return nil, ErrClosed
	}
	defer s.calls.Done()
	user := sink.UserID()
	delivered, err := s.store.Follow(ctx, user)
	if err != nil {
		return nil, s.failed(ctx, err)
	}
	s.streams.mu.Lock()
	st.follows++
	s.streams.mu.Unlock()

	joined := make(chan events.ID, 1)
	s.put(st, task{call: func() (taken bool) {
		if st.place.Compare(delivered) < 0 {
			st.place = delivered
		}
		sink.Join()
		joined <- st.place
		return false
	}})
	r := &Replay{service: s, stream: st, sink: sink, Recovered: true}
	r.query = Query{UserID: user, Limit: replayEvents, Bytes: s.cfg.ReplayWindow}
	select {
	case r.query.Since = <-joined:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if text, has := sink.Offset(); has {
		r.query.Offset, err = events.ParseID(text)
		r.query.HasOffset = err == nil
		r.Recovered = err == nil
	}
	r.query.Confirmed = s.receipts.known(user)
	if err := r.read(ctx); err != nil {
		return nil, err
	}
	r.Recovered = r.Recovered && r.page.Recovered
	s.stats.Replays.Add(1)
	switch {
	case !r.Recovered:
		s.stats.Unrecovered.Add(1)
	case r.query.HasOffset:
		s.raise(user, r.query.Offset) // what a client saw before it came is confirmed, too
	}
	return r, nil
}

// Leave uncounts a socket, once for every Open.
func (s *Service) Leave(userID string) {
	s.streams.mu.Lock()
	st := s.streams.byUser[userID]
	st.sockets--
	unfollows := max(0, st.follows-st.sockets) // more than one, when sockets have left while others were still on their way
	st.follows -= unfollows
	s.streams.retire(st)
	s.streams.mu.Unlock()
	for range unfollows {
		s.store.Unfollow(userID)
	}
}

// replayEvents is the number of events a page of a replay.
const replayEvents = 128

// Run sends the replay, never more than ReplayWindow ahead of what the socket has written, and lets the socket go live. It
// returns ErrSinkClosed or ErrReplayStalled when the socket does not take it, ErrReplayOvertaken, the store's error when the
// next page cannot be read, ctx's error when it ends; in all these cases the socket is not live and the caller closes it.
func (r *Replay) Run(ctx context.Context) error {
	s := r.service
	if !s.enter() {
		return ErrClosed
	}
	defer s.calls.Done()
	until := r.page.Place
	for {
		for i := range r.page.Records {
			rec := &r.page.Records[i]
			if err := r.writable(ctx); err != nil {
				return err
			}
			var id events.ID
			if rec.Message {
				id = rec.Place
			}
			if !r.sink.Emit(events.Encode(rec.Name, rec.Data, id), id) {
				return ErrSinkClosed
			}
			s.stats.Replayed.Add(1)
		}
		if r.query.Next = r.page.Next; r.query.Next == nil {
			break
		}
		if err := r.read(ctx); err != nil {
			return err
		}
		if r.Recovered && !r.page.Recovered {
			return ErrReplayOvertaken
		}
	}
	r.page = Page{}
	live := make(chan struct{})
	s.put(r.stream, task{call: func() (taken bool) {
		r.sink.Live(until)
		close(live)
		return false
	}})
	select {
	case <-live:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// read reads the next page.
func (r *Replay) read(ctx context.Context) (err error) {
	s := r.service
	if err := s.beginRead(ctx); err != nil {
		return err
	}
	defer s.endRead()
	if r.page, err = s.store.Read(ctx, r.query); err != nil {
		return s.failed(ctx, err)
	}
	return nil
}

// writable waits until the socket's queue has room. The engine does not tell when it has written, so this looks again after
// a short while, less and less often while nothing moves.
func (r *Replay) writable(ctx context.Context) error {
	const shortest, longest = 2 * time.Millisecond, 100 * time.Millisecond
	s, wait, moved := r.service, shortest, time.Now()
	for level := r.sink.Buffered(); level >= s.cfg.ReplayWindow; {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return ctx.Err()
		case <-s.closing:
			return ErrClosed
		}
		now := r.sink.Buffered()
		switch {
		case now < level:
			wait, moved = shortest, time.Now()
		case time.Since(moved) > s.cfg.ReplayStall:
			return ErrReplayStalled
		default:
			wait = min(2*wait, longest)
		}
		level = now
	}
	return nil
}
