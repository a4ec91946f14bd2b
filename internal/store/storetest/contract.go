// Package contract is the suite that every delivery.Store passes. A store's
// own tests call Run with a way to open it.
//
// In flows an open function; out flow the verdicts of the testing package.
// Only tests import it.
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

// Open opens an empty store with limits and a clock, and closes it when the
// test ends. Reopen closes the store cleanly and opens it on the same data;
// it is nil for a store that keeps nothing.
type Open func(t *testing.T, limits delivery.Limits, now func() time.Time) (store delivery.Store, reopen func() delivery.Store)

// Run runs the suite.
func Run(t *testing.T, open Open) {
	for _, group := range [][]behaviour{idRules, jobRules, keyRules, readRules, retentionRules, stallRules, crowdRules} {
		for _, b := range group {
			t.Run(b.name, func(t *testing.T) {
				b.test(newBench(t, open, b.limits))
			})
		}
	}
}

type behaviour struct {
	name   string
	limits delivery.Limits
	test   func(b *bench)
}

// bench is one store with a clock that only the test moves.
type bench struct {
	*testing.T
	store  delivery.Store
	reopen func() delivery.Store

	mu  sync.Mutex
	now time.Time
}

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func newBench(t *testing.T, open Open, limits delivery.Limits) *bench {
	b := &bench{T: t, now: start}
	b.store, b.reopen = open(t, limits, b.clock)
	return b
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

// restart reopens the store, where that means something.
func (b *bench) restart() {
	b.Helper()
	if b.reopen == nil {
		b.Skip("this store keeps nothing over a restart")
	}
	b.store = b.reopen()
}

// restarted runs the rest of a test twice where the store can be reopened:
// its caller continues after a restart if there is such a thing.
func (b *bench) restarted() {
	if b.reopen != nil {
		b.store = b.reopen()
	}
}

type option func(*delivery.Entry)

func attempt(n uint32) option { return func(e *delivery.Entry) { e.Event.Attempt = n } }

func staleAfter(d time.Duration) option {
	return func(e *delivery.Entry) { e.Event.StaleAfter = d }
}

func key(k string, body byte) option {
	return func(e *delivery.Entry) {
		e.Event.IdempotencyKey = k
		e.Fingerprint = [16]byte{body}
	}
}

func data(d string) option {
	return func(e *delivery.Entry) { e.Event.Data = json.RawMessage(d) }
}

func entry(user, name, job string, opts ...option) delivery.Entry {
	e := delivery.Entry{Event: events.Event{UserID: user, Name: name, JobID: job, Data: json.RawMessage(`{}`)}}
	for _, o := range opts {
		o(&e)
	}
	return e
}

func (b *bench) publish(entries ...delivery.Entry) []delivery.Decision {
	b.Helper()
	ds, err := b.store.Publish(context.Background(), entries)
	if err != nil {
		b.Fatalf("publish: %v", err)
	}
	if len(ds) != len(entries) {
		b.Fatalf("%d decisions about %d entries", len(ds), len(entries))
	}
	return ds
}

// post publishes one event and expects it to be stored.
func (b *bench) post(user, name, job string, opts ...option) events.ID {
	b.Helper()
	d := b.publish(entry(user, name, job, opts...))[0]
	if d.Verdict != delivery.VerdictStored || d.ID.IsZero() {
		b.Fatalf("%s of job %q was not stored: %+v", name, job, d)
	}
	return d.ID
}

func (b *bench) note(user string, opts ...option) events.ID {
	b.Helper()
	return b.post(user, "note", "", opts...)
}

func (b *bench) confirm(user string, id events.ID) {
	b.Helper()
	err := b.store.Settle(context.Background(), []delivery.Settlement{{UserID: user, Confirmed: id}})
	if err != nil {
		b.Fatalf("settle: %v", err)
	}
}

// replay reads all pages of a query.
func (b *bench) replay(q delivery.Query) (recs []delivery.Record, first delivery.Page) {
	b.Helper()
	if q.Limit == 0 {
		q.Limit, q.Bytes = 100, 1<<20
	}
	for n, at := 0, &q; at != nil; n++ {
		page, err := b.store.Read(context.Background(), *at)
		if err != nil {
			b.Fatalf("read: %v", err)
		}
		if len(page.Records) > q.Limit {
			b.Fatalf("a page of %d records, want at most %d", len(page.Records), q.Limit)
		}
		if n == 0 {
			first = page
		}
		recs = append(recs, page.Records...)
		at = page.Next
		if n > 10_000 {
			b.Fatal("the pages do not end")
		}
	}
	for i := 1; i < len(recs); i++ {
		if recs[i-1].ID.Compare(recs[i].ID) >= 0 {
			b.Fatalf("record %s comes before %s", recs[i-1].ID, recs[i].ID)
		}
	}
	return recs, first
}

// sees expects exactly these events for a client with that offset; the zero
// id stands for a client without one.
func (b *bench) sees(user string, offset events.ID, want ...events.ID) delivery.Page {
	b.Helper()
	recs, first := b.replay(delivery.Query{UserID: user, Offset: offset, HasOffset: !offset.IsZero()})
	if got := idsOf(recs); !slices.Equal(got, want) {
		b.Fatalf("a client at %s sees %v, want %v", offset, got, want)
	}
	return first
}

func idsOf(recs []delivery.Record) (ids []events.ID) {
	for _, r := range recs {
		ids = append(ids, r.ID)
	}
	return ids
}

func (b *bench) jobs(user string) []delivery.Job {
	b.Helper()
	jobs, err := b.store.Jobs(context.Background(), user)
	if err != nil {
		b.Fatalf("jobs: %v", err)
	}
	return jobs
}

// sweep sweeps until it comes to an end.
func (b *bench) sweep() (d delivery.Dropped) {
	b.Helper()
	for range 10_000 {
		swept, err := b.store.Sweep(context.Background())
		if err != nil {
			b.Fatalf("sweep: %v", err)
		}
		d.Events += swept.Dropped.Events
		d.Unconfirmed += swept.Dropped.Unconfirmed
		if !swept.More {
			return d
		}
	}
	b.Fatal("the sweep does not end")
	return d
}

func same[T any](b *bench, what string, got, want T) {
	b.Helper()
	if g, w := fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", want); g != w {
		b.Fatalf("%s: got %s, want %s", what, g, w)
	}
}
