// Package storetest is the suite that every delivery.Store passes. A store's own tests call [Run] with a way to open it.
//
// In flows an open function; out flow the verdicts of the testing package. Only tests import it.
package storetest

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"jobwire/internal/delivery"
	"jobwire/internal/events"
)

// Harness is one data set.
type Harness struct {
	// Store is a store over it.
	Store delivery.Store
	// Another returns one more store over the same data, such as another node's, or the same one when there can be no other.
	Another func() delivery.Store
	// Reopen closes all of them cleanly and returns a store over the same data; nil for a store that keeps nothing.
	Reopen func() delivery.Store
}

// Open opens an empty data set with limits and a clock, and closes it when the test ends.
type Open func(t *testing.T, limits delivery.Limits, now func() time.Time) Harness

// Run runs the suite.
func Run(t *testing.T, open Open) {
	for _, group := range []struct {
		name  string
		rules []behaviour
	}{
		{"places", placeRules}, {"jobs", jobRules}, {"keys", keyRules}, {"replay", replayRules}, {"lists", listRules},
		{"budgets", budgetRules}, {"retention", retentionRules}, {"watches", watchRules}, {"feeds", feedRules},
	} {
		t.Run(group.name, func(t *testing.T) {
			for _, b := range group.rules {
				t.Run(b.name, func(t *testing.T) { b.test(newBench(t, open, b.limits)) })
			}
		})
	}
	t.Run("attempts", func(t *testing.T) { testAttempts(t, open) })
	t.Run("model", func(t *testing.T) { testModel(t, open) })
}

type behaviour struct {
	name   string
	limits delivery.Limits
	test   func(b *bench)
}

// bench is one data set with a clock that only the test moves, and a feed that remembers what it is told.
type bench struct {
	*testing.T
	harness Harness
	store   delivery.Store
	feed    *feed

	mu  sync.Mutex
	now time.Time
}

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func newBench(t *testing.T, open Open, limits delivery.Limits) *bench {
	b := &bench{T: t, now: start}
	b.harness = open(t, limits, b.clock)
	b.use(b.harness.Store)
	return b
}

// use makes s the store of the test.
func (b *bench) use(s delivery.Store) {
	b.store, b.feed = s, newFeed()
	s.Subscribe(b.feed)
}

func (b *bench) clock() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.now
}

func (b *bench) advance(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.now = b.now.Add(d)
}

// restart reopens the data, where that means something: the rest of a test holds with it and without.
func (b *bench) restart() {
	if b.harness.Reopen != nil {
		b.use(b.harness.Reopen())
	}
}

type option func(*delivery.Entry)

func attempt(n uint32) option {
	return func(e *delivery.Entry) { e.Attempt, e.HasAttempt = n, true }
}

func staleAfter(d time.Duration) option { return func(e *delivery.Entry) { e.StaleAfter = d } }

func key(k string, body byte) option {
	return func(e *delivery.Entry) { e.IdempotencyKey, e.Fingerprint = k, [16]byte{body} }
}

func data(d string) option { return func(e *delivery.Entry) { e.Data = json.RawMessage(d) } }

func named(name string) option { return func(e *delivery.Entry) { e.Name = name } }

func entry(kind events.Kind, job string, opts ...option) delivery.Entry {
	name := [...]string{"note", events.JobProgress, events.JobCompleted, events.JobFailed}[kind]
	e := delivery.Entry{Event: events.Event{Name: name, Kind: kind, JobID: job, Data: json.RawMessage(`{}`)}}
	for _, o := range opts {
		o(&e)
	}
	return e
}

func (b *bench) publish(user string, entries ...delivery.Entry) []delivery.Decision {
	b.Helper()
	for i := range entries {
		entries[i].UserID = user
	}
	ds, err := b.store.Publish(context.Background(), user, entries)
	if err != nil {
		b.Fatalf("publish: %v", err)
	}
	if len(ds) != len(entries) {
		b.Fatalf("%d decisions about %d entries", len(ds), len(entries))
	}
	return ds
}

// accept publishes one event and expects it to be accepted.
func (b *bench) accept(user string, e delivery.Entry) delivery.Decision {
	b.Helper()
	d := b.publish(user, e)[0]
	if d.Verdict != delivery.Accepted || d.Place.IsZero() {
		b.Fatalf("%s of job %q was not accepted: %+v", e.Name, e.JobID, d)
	}
	return d
}

func (b *bench) note(user string, opts ...option) events.ID {
	b.Helper()
	return b.accept(user, entry(events.Message, "", opts...)).Place
}

func (b *bench) progress(user, job string, opts ...option) events.ID {
	b.Helper()
	return b.accept(user, entry(events.Progress, job, opts...)).Place
}

func (b *bench) complete(job string, opts ...option) events.ID {
	b.Helper()
	return b.accept("ann", entry(events.Completed, job, opts...)).Place
}

// ignores publishes one event and expects it to be ignored.
func (b *bench) ignores(e delivery.Entry, reason string) {
	b.Helper()
	d := b.publish("ann", e)[0]
	if d.Verdict != delivery.Ignored || d.Reason != reason || !d.Place.IsZero() {
		b.Fatalf("%+v, want it ignored as %s", d, reason)
	}
}

func (b *bench) confirm(user string, id events.ID) {
	b.Helper()
	if err := b.store.Confirm(context.Background(), []delivery.Cursor{{UserID: user, Confirmed: id}}); err != nil {
		b.Fatalf("confirm: %v", err)
	}
}

// follow returns the user's place.
func (b *bench) follow(user string) events.ID {
	b.Helper()
	place, err := b.store.Follow(context.Background(), user)
	if err != nil {
		b.Fatalf("follow: %v", err)
	}
	b.Cleanup(func() { b.store.Unfollow(user) })
	return place
}

// replay reads all pages of a query.
func (b *bench) replay(q delivery.Query) (recs []delivery.Record, first delivery.Page) {
	b.Helper()
	if q.Limit == 0 {
		q.Limit, q.Bytes = 100, 1<<20
	}
	for n := 0; ; n++ {
		page, err := b.store.Read(context.Background(), q)
		if err != nil {
			b.Fatalf("read: %v", err)
		}
		if len(page.Records) > q.Limit {
			b.Fatalf("a page of %d records, want at most %d", len(page.Records), q.Limit)
		}
		size := 0
		for _, r := range page.Records {
			size += len(r.Data)
		}
		if len(page.Records) > 1 && size > q.Bytes {
			b.Fatalf("a page of %d bytes, want at most %d", size, q.Bytes)
		}
		if n == 0 {
			first = page
		} else if page.Place != first.Place {
			b.Fatalf("a later page is as of %s, the first of %s", page.Place, first.Place)
		}
		recs = append(recs, page.Records...)
		if page.Next == nil {
			break
		}
		q.Next = page.Next
		if n > 10_000 {
			b.Fatal("the pages do not end")
		}
	}
	for i, r := range recs {
		if i > 0 && recs[i-1].Place.Compare(r.Place) >= 0 {
			b.Fatalf("record %s comes before %s", recs[i-1].Place, r.Place)
		}
		if r.Place.Compare(first.Place) > 0 {
			b.Fatalf("record %s of a replay as of %s", r.Place, first.Place)
		}
	}
	return recs, first
}

// sees expects exactly these places for a client that connects now, with that offset or, at the zero id, without one.
func (b *bench) sees(user string, offset events.ID, want ...events.ID) delivery.Page {
	b.Helper()
	recs, first := b.replay(delivery.Query{UserID: user, Since: b.follow(user), Offset: offset, HasOffset: !offset.IsZero()})
	if got := places(recs); !slices.Equal(got, want) {
		b.Fatalf("a client at %s sees %v, want %v", offset, got, want)
	}
	return first
}

func places(recs []delivery.Record) (ids []events.ID) {
	for _, r := range recs {
		ids = append(ids, r.Place)
	}
	return ids
}

// jobs reads all pages of the jobs of ann.
func (b *bench) jobs() (jobs []delivery.Job) {
	b.Helper()
	q := delivery.JobsQuery{UserID: "ann", Limit: delivery.MaxJobsLimit}
	for {
		page, err := b.store.Jobs(context.Background(), q)
		if err != nil {
			b.Fatalf("jobs: %v", err)
		}
		jobs = append(jobs, page.Jobs...)
		if page.Next.IsZero() {
			return jobs
		}
		q.Before = page.Next
	}
}

func (b *bench) job(id string) delivery.Job {
	b.Helper()
	for _, j := range b.jobs() {
		if j.JobID == id {
			return j
		}
	}
	b.Fatalf("%s has no job %q", "ann", id)
	return delivery.Job{}
}

// sweep sweeps until it comes to an end.
func (b *bench) sweep() map[string]delivery.Dropped {
	b.Helper()
	all := make(map[string]delivery.Dropped)
	for range 10_000 {
		swept, err := b.store.Sweep(context.Background())
		if err != nil {
			b.Fatalf("sweep: %v", err)
		}
		for user, d := range swept.Dropped {
			all[user] = sum(all[user], d)
		}
		if !swept.More {
			return all
		}
	}
	b.Fatal("the sweep does not end")
	return nil
}

func sum(a, b delivery.Dropped) delivery.Dropped {
	if b.UpTo.IsZero() {
		b.UpTo = a.UpTo
	}
	return delivery.Dropped{
		Messages: a.Messages + b.Messages, Unconfirmed: a.Unconfirmed + b.Unconfirmed, Jobs: a.Jobs + b.Jobs,
		Running: a.Running + b.Running, UpTo: b.UpTo,
	}
}

// stall lets stall whatever is overdue.
func (b *bench) stall() (n int) {
	b.Helper()
	for range 1000 {
		stalled, err := b.store.Stall(context.Background(), 3)
		if err != nil {
			b.Fatalf("stall: %v", err)
		}
		n += stalled
		if stalled < 3 {
			return n
		}
	}
	b.Fatal("the deadlines do not end")
	return 0
}

func same[T any](b *bench, what string, got, want T) {
	b.Helper()
	if g, w := fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", want); g != w {
		b.Fatalf("%s: got %s, want %s", what, g, w)
	}
}

// feed remembers what a store tells it, and checks that each user's places rise and link to each other.
type feed struct {
	mu        sync.Mutex
	told      map[string][]delivery.Delivery
	confirmed map[string]events.ID
	gone      map[string]string // reasons of disconnects
	sockets   int               // of each user
	faults    []string
	ran       map[string]int // how many deliveries Run has emitted
	waiting   map[string][]*delivery.Emission
}

func newFeed() *feed {
	return &feed{
		told: make(map[string][]delivery.Delivery), confirmed: make(map[string]events.ID), gone: make(map[string]string),
		ran: make(map[string]int), waiting: make(map[string][]*delivery.Emission), sockets: 1,
	}
}

// Deliver implements delivery.Feed.
func (f *feed) Deliver(d *delivery.Delivery) (run bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if told := f.told[d.UserID]; len(told) > 0 {
		last := told[len(told)-1].Place
		if d.Place.Compare(last) <= 0 {
			f.faults = append(f.faults, fmt.Sprintf("%s: %s after %s", d.UserID, d.Place, last))
		}
		if d.Prev != last {
			f.faults = append(f.faults, fmt.Sprintf("%s: %s says that %s is before it, and it was %s", d.UserID, d.Place, d.Prev, last))
		}
	}
	f.told[d.UserID] = append(f.told[d.UserID], *d)
	f.waiting[d.UserID] = append(f.waiting[d.UserID], d.Emission)
	return true
}

// Run implements delivery.Feed.
func (f *feed) Run(userID string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range f.waiting[userID] {
		if e != nil {
			e.Tell(f.sockets, false)
		}
		f.ran[userID]++
	}
	delete(f.waiting, userID)
}

// Confirmed implements delivery.Feed.
func (f *feed) Confirmed(c delivery.Cursor) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c.Confirmed.Compare(f.confirmed[c.UserID]) > 0 {
		f.confirmed[c.UserID] = c.Confirmed
	}
}

// Disconnect implements delivery.Feed.
func (f *feed) Disconnect(userID, reason string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gone[userID] = reason
	return f.sockets
}

// Sockets implements delivery.Feed.
func (f *feed) Sockets(string) int { return f.sockets }

// Lost is not expected: no disk fails here.
func (f *feed) Lost(user string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults = append(f.faults, "events of "+user+" are lost")
}

// heard returns the places that the feed was told of a user, once all of them have been emitted.
func (f *feed) heard(t *testing.T, user string) (ids []events.ID) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, fault := range f.faults {
		t.Error(fault)
	}
	if n := len(f.told[user]); f.ran[user] != n {
		t.Errorf("%d of %d deliveries to %s have been emitted", f.ran[user], n, user)
	}
	for _, d := range f.told[user] {
		ids = append(ids, d.Place)
	}
	return ids
}
