package delivery

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"time"

	"jobwire/internal/events"
)

// Status says what became of an event.
type Status string

// What a worker is told about its event.
const (
	StatusSent      Status = "sent"      // at least one socket got it
	StatusStored    Status = "stored"    // no socket of the user is connected
	StatusCoalesced Status = "coalesced" // progress: a later one of the job, or this one a little later, is emitted
	StatusIgnored   Status = "ignored"   // it changes nothing, see Reason
)

// Result is the answer to a published event.
type Result struct {
	ID       events.ID // its place; zero when ignored
	Status   Status
	Reason   string // of StatusIgnored
	Sockets  int    // to how many sockets of the user it was emitted
	Repeated bool   // the idempotency key came before: ID and Reason are those of the first call
}

// Answer is one result of a batch.
type Answer struct {
	Result
	Err error // nil, or why this event was refused
}

// Publish stores one event and emits it to the user's sockets. The error, if any, has a code for the worker ([events.Error])
// unless ctx was done before the event was stored.
func (s *Service) Publish(ctx context.Context, ev events.Event) (Result, error) {
	var answers [1]Answer
	if err := s.publish(ctx, ev.UserID, []Entry{entryOf(ev)}, answers[:]); err != nil {
		return Result{}, err
	}
	return answers[0].Result, answers[0].Err
}

// publish is the way of every event: one call to the store, which hands what it accepts to the feed, and comes back when this
// process has emitted it.
func (s *Service) publish(ctx context.Context, userID string, entries []Entry, answers []Answer) error {
	if !s.enter() {
		return ErrClosed
	}
	defer s.calls.Done()
	decisions, err := s.store.Publish(ctx, userID, entries)
	if err != nil {
		return s.failed(ctx, err)
	}
	for i := range answers { // as many as decisions
		d := &decisions[i]
		s.stats.Decided[d.Verdict].Add(1)
		s.dropped(userID, d.Dropped)
		answers[i] = d.answer()
	}
	return nil
}

// feed is the Service as its store sees it.
type feed Service

var _ Feed = (*feed)(nil)

// Deliver lines up an event for the user's sockets, if there are any here.
func (f *feed) Deliver(d *Delivery) (run bool) {
	f.streams.mu.Lock()
	defer f.streams.mu.Unlock()
	if st := f.streams.byUser[d.UserID]; st != nil {
		return st.add(task{delivery: d})
	}
	d.Emission.Tell(0, false)
	return false
}

// Run emits what is lined up.
func (f *feed) Run(userID string) {
	if st := f.streams.of(userID); st != nil {
		(*Service)(f).run(st)
	}
}

func (f *feed) Confirmed(c Cursor)                   { f.receipts.tell(c.UserID, c.Confirmed, events.ID{}) }
func (f *feed) Disconnect(userID, reason string) int { return f.emitter.Disconnect(userID, reason) }
func (f *feed) Lost(userID string)                   { f.emitter.Reconnect(userID) }
func (f *feed) Sockets(userID string) int            { return f.emitter.Sockets(userID) }

// runShare is how many tasks one caller runs. Then another goroutine goes on, so that a busy user keeps no caller for ever.
const runShare = 32

// run runs a stream until no task is left, or somebody else goes on.
func (s *Service) run(st *stream) {
	for n := 1; ; n++ {
		t, ok := s.streams.next(st)
		switch {
		case !ok:
			return
		case t.delivery != nil:
			s.emit(st, t.delivery)
		case t.expired != nil:
			s.onExpire(st, t.expired)
		case t.call():
			return
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

// emit is what happens to a delivery: progress of a job is throttled, everything else goes out at once, after the progress
// that is still held back of its job.
func (s *Service) emit(st *stream, d *Delivery) {
	if d.Place.Compare(st.place) <= 0 {
		s.stats.Disorder.Add(1) // what is shown already; a store that works does not deliver it
		d.Emission.Tell(0, false)
		return
	}
	st.place = d.Place
	t := st.throttles[d.JobID]
	if t != nil && d.Kind == events.Progress {
		t.held = d
		s.stats.Coalesced.Add(1)
		d.Emission.Tell(0, true)
	} else {
		switch {
		case t != nil:
			delete(st.throttles, d.JobID)
			if t.held != nil {
				s.send(st, t.held)
			}
		case d.Kind == events.Progress && s.cfg.Coalesce > 0:
			s.throttle(st, d.JobID)
		}
		d.Emission.Tell(s.send(st, d), false)
	}
	st.reached()
}

// throttle begins the interval of a job whose progress is being emitted.
func (s *Service) throttle(st *stream, job string) {
	t := &throttle{stream: st, job: job}
	if st.throttles == nil {
		st.throttles = make(map[string]*throttle)
	}
	st.throttles[job] = t
	s.throttles.add(t, time.Now().Add(s.cfg.Coalesce))
}

// send emits an event to the user's sockets. A message carries its id and asks for a receipt.
func (s *Service) send(st *stream, d *Delivery) (sockets int) {
	var id events.ID
	if d.Kind.Logged() {
		id = d.Place
	}
	packet := s.packets.Get().(*[]byte)
	*packet = events.AppendEncoded((*packet)[:0], d.Name, d.Data, id)
	sockets = s.emitter.Emit(st.user, *packet, d.Place, d.Kind.Logged())
	s.packets.Put(packet)
	s.stats.Emitted.Add(1)
	return sockets
}

// answer is what a worker is told about a decision.
func (d *Decision) answer() Answer {
	r := Result{ID: d.Place, Status: StatusSent, Sockets: d.Sockets, Repeated: d.Verdict == Repeated}
	switch {
	case d.Verdict == KeyReused:
		return Answer{Err: ErrKeyReused}
	case d.Reason != "":
		r.Status, r.Reason, r.Sockets = StatusIgnored, d.Reason, 0
	case d.Held:
		r.Status = StatusCoalesced
	case d.Sockets == 0:
		r.Status = StatusStored
	}
	return Answer{Result: r}
}

// entryOf is the event with a fingerprint, if it has a key that asks for it: equal for what says the same, however its data is
// spelled. Stores keep it.
func entryOf(ev events.Event) Entry {
	e := Entry{Event: ev}
	if ev.IdempotencyKey == "" {
		return e
	}
	h := sha256.New()
	part := func(b []byte) {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(b))))
		h.Write(b)
	}
	part([]byte(ev.Name))
	part([]byte(ev.JobID))
	part(events.AppendCanonical(nil, ev.Data))
	rest := []byte{byte(ev.Kind), 0}
	if ev.HasAttempt {
		rest[1] = 1
	}
	rest = binary.BigEndian.AppendUint32(rest, ev.Attempt)
	part(binary.BigEndian.AppendUint64(rest, uint64(ev.StaleAfter)))
	copy(e.Fingerprint[:], h.Sum(nil))
	return e
}
