package storetest

import (
	"context"
	"errors"
	"time"

	"jobwire/internal/delivery"
	"jobwire/internal/events"
)

var placeRules = []behaviour{
	{name: "places carry the time of the clock", test: func(b *bench) {
		same(b, "place", b.note("ann").Ms, uint64(start.UnixMilli()))
		b.advance(time.Hour)
		same(b, "place", b.progress("ann", "1").Ms, uint64(start.Add(time.Hour).UnixMilli()))
	}},
	{name: "places rise within a millisecond, for messages and progress alike", test: func(b *bench) {
		one, two, three := b.note("ann"), b.progress("ann", "1"), b.note("ann")
		if two.Compare(one) <= 0 || three.Compare(two) <= 0 {
			b.Fatalf("%s, %s, %s", one, two, three)
		}
	}},
	{name: "places rise when the clock steps back", test: func(b *bench) {
		first := b.note("ann")
		b.advance(-time.Hour)
		second := b.note("ann")
		b.restart()
		b.advance(-time.Hour)
		third := b.note("ann")
		if second.Compare(first) <= 0 || third.Compare(second) <= 0 {
			b.Fatalf("%s, %s, %s", first, second, third)
		}
		b.sees("ann", events.ID{}, first, second, third)
	}},
	{name: "places of progress rise over a restart with the clock back", test: func(b *bench) {
		first := b.progress("ann", "1")
		b.restart()
		b.advance(-time.Hour)
		if second := b.note("ann"); second.Compare(first) <= 0 {
			b.Fatalf("%s after %s", second, first)
		}
	}},
	{name: "places rise over a user who was forgotten", limits: delivery.Limits{Retention: time.Minute}, test: func(b *bench) {
		first := b.note("ann")
		b.advance(2 * time.Minute)
		b.restart()
		b.sweep()
		b.restart()
		b.advance(-time.Hour)
		if second := b.note("ann"); second.Compare(first) <= 0 {
			b.Fatalf("%s after %s", second, first)
		}
	}},
	{name: "a context that is done stores nothing", test: func(b *bench) {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if _, err := b.store.Publish(ctx, "ann", []delivery.Entry{entry(events.Message, "")}); !errors.Is(err, context.Canceled) {
			b.Fatalf("error %v", err)
		}
		b.sees("ann", events.ID{})
	}},
	{name: "entries are decided in their order", test: func(b *bench) {
		ds := b.publish("ann",
			entry(events.Progress, "1"),
			entry(events.Completed, "1"),
			entry(events.Progress, "1"),
			entry(events.Message, "", key("k", 1)),
			entry(events.Message, "", key("k", 1)),
			entry(events.Message, "", key("k", 2)),
		)
		same(b, "late progress", ds[2].Verdict, delivery.Ignored)
		same(b, "second use of a key", ds[4].Verdict, delivery.Repeated)
		same(b, "its place", ds[4].Place, ds[3].Place)
		same(b, "third use of a key", ds[5].Verdict, delivery.KeyReused)
		b.sees("ann", events.ID{}, ds[1].Place, ds[3].Place)
	}},
	{name: "nothing is decided about no entries", test: func(b *bench) { b.publish("ann") }},
	{name: "data comes back byte for byte", test: func(b *bench) {
		const odd = "{ \"b\":1e400 ,\"a\" : 12345678901234567890, \"\\u00e9\":\"\U0001f600\"}"
		id := b.note("ann", data(odd), named("a.b:c-d"))
		at := b.progress("ann", "1", data(odd), named("render_step"))
		b.restart()
		recs, _ := b.replay(delivery.Query{UserID: "ann"})
		same(b, "records", recs, []delivery.Record{
			{Place: id, Name: "a.b:c-d", Data: []byte(odd), Message: true}, {Place: at, Name: "render_step", Data: []byte(odd)},
		})
	}},
	{name: "users whose names contain each other stay apart", test: func(b *bench) {
		for _, user := range []string{"a", "ab", "a b", "é", "a:l", "al", "Ã©"} {
			id := b.note(user)
			at := b.progress(user, user)
			b.sees(user, events.ID{}, id, at)
		}
	}},
	{name: "a call for nobody creates nobody", test: func(b *bench) {
		b.confirm("ann", events.ID{Ms: 5})
		confirmed, dropped, err := b.store.Cursor(context.Background(), "ann")
		same(b, "cursor", []any{confirmed, dropped, err}, []any{events.ID{}, events.ID{}, nil})
		same(b, "place", b.follow("ann"), events.ID{})
		same(b, "recovered", b.sees("ann", events.ID{Ms: 1}).Recovered, false)
		same(b, "recovered", b.sees("ann", events.ID{}).Recovered, true)
	}},
}

var jobRules = []behaviour{
	{name: "only the latest progress of a job is kept", test: func(b *bench) {
		b.progress("ann", "1", data(`{"p":1}`))
		second := b.progress("ann", "2")
		third := b.progress("ann", "1", data(`{"p":3}`))
		b.sees("ann", events.ID{}, second, third)
		b.restart()
		b.sees("ann", events.ID{}, second, third)
		same(b, "progress", string(b.job("1").Progress), `{"p":3}`)
	}},
	{name: "a record has what led to the state", test: func(b *bench) {
		b.progress("ann", "1", attempt(2), data(`{"p":1}`))
		b.advance(time.Second)
		end := b.accept("ann", entry(events.Failed, "1", data(`{"e":1}`), named("render_failed"))).Place
		b.restart()
		same(b, "end", *b.job("1").End, delivery.JobEnd{Event: "render_failed", Data: []byte(`{"e":1}`), ID: end.String()})
		j := b.job("1")
		j.End = nil
		same(b, "job", j, delivery.Job{
			JobID: "1", State: delivery.JobFailed, Attempt: 2, Progress: []byte(`{"p":1}`), StartedAt: start,
			UpdatedAt: start.Add(time.Second), Place: end,
		})
	}},
	{name: "progress of a finished job is ignored", test: func(b *bench) {
		for _, kind := range []events.Kind{events.Completed, events.Failed} {
			job := [...]string{events.Completed: "c", events.Failed: "f"}[kind]
			b.progress("ann", job)
			b.accept("ann", entry(kind, job))
			b.restart()
			b.ignores(entry(events.Progress, job), delivery.ReasonJobFinished)
		}
	}},
	{name: "a job that ends without progress is finished too", test: func(b *bench) {
		b.accept("ann", entry(events.Failed, "1"))
		b.ignores(entry(events.Progress, "1"), delivery.ReasonJobFinished)
		same(b, "progress", b.job("1").Progress == nil, true)
	}},
	{name: "jobs of the same name of two users are two jobs", test: func(b *bench) {
		b.complete("1")
		b.progress("bob", "1")
	}},
	{name: "a higher attempt takes nothing over", test: func(b *bench) {
		b.progress("ann", "1", attempt(1), staleAfter(time.Minute))
		b.complete("1", attempt(1))
		b.advance(time.Second)
		at := b.progress("ann", "1", attempt(2), data(`{"p":2}`))
		b.restart()
		same(b, "job", b.job("1"), delivery.Job{
			JobID: "1", State: delivery.JobRunning, Attempt: 2, Progress: []byte(`{"p":2}`),
			StartedAt: start.Add(time.Second), UpdatedAt: start.Add(time.Second), Place: at,
		})
		b.complete("1", attempt(3))
		same(b, "progress", b.job("1").Progress == nil, true)
		b.advance(time.Hour)
		same(b, "stalled", b.stall(), 0)
	}},
	{name: "a later end of an attempt replaces the earlier one in the record, and the log keeps both", test: func(b *bench) {
		first := b.accept("ann", entry(events.Failed, "1", data(`{"e":1}`))).Place
		second := b.complete("1", data(`{"r":1}`))
		j := b.job("1")
		same(b, "state", j.State, delivery.JobCompleted)
		same(b, "end", *j.End, delivery.JobEnd{Event: events.JobCompleted, Data: []byte(`{"r":1}`), ID: second.String()})
		b.sees("ann", events.ID{}, first, second)
	}},
	{name: "an earlier attempt touches no watch", test: func(b *bench) {
		b.progress("ann", "1", attempt(2), staleAfter(time.Minute))
		b.ignores(entry(events.Progress, "1", attempt(1)), delivery.ReasonAttemptSuperseded)
		b.ignores(entry(events.Failed, "1", attempt(1)), delivery.ReasonAttemptSuperseded)
		b.advance(time.Hour)
		same(b, "stalled", b.stall(), 1)
	}},
}

var keyRules = []behaviour{
	{name: "a repeat is told the place of the first, and the sockets of now", test: func(b *bench) {
		id := b.note("ann", key("k", 1))
		b.feed.sockets = 7
		b.restart()
		d := b.publish("ann", entry(events.Message, "", key("k", 1)))[0]
		same(b, "verdict", d.Verdict, delivery.Repeated)
		same(b, "place", d.Place, id)
		same(b, "sockets", d.Sockets, b.feed.sockets)
		b.sees("ann", events.ID{}, id)
		b.feed.mu.Lock()
		defer b.feed.mu.Unlock()
		same(b, "deliveries", len(b.feed.told["ann"]) <= 1, true)
	}},
	{name: "a repeat of an ignored event is told why", test: func(b *bench) {
		b.complete("1")
		e := entry(events.Progress, "1", key("k", 1))
		b.ignores(e, delivery.ReasonJobFinished)
		last := b.follow("ann")
		b.restart()
		d := b.publish("ann", e)[0]
		same(b, "verdict", d.Verdict, delivery.Repeated)
		same(b, "reason", d.Reason, delivery.ReasonJobFinished)
		same(b, "place", d.Place, events.ID{})
		same(b, "the sequence", b.follow("ann"), last)
	}},
	{name: "a key with another body is refused", test: func(b *bench) {
		id := b.note("ann", key("k", 1))
		same(b, "verdict", b.publish("ann", entry(events.Message, "", key("k", 2)))[0].Verdict, delivery.KeyReused)
		b.sees("ann", events.ID{}, id)
	}},
	{name: "keys belong to a user", test: func(b *bench) {
		b.note("ann", key("k", 1))
		b.note("bob", key("k", 2))
	}},
	{name: "a key is forgotten after the retention", limits: delivery.Limits{Retention: time.Minute}, test: func(b *bench) {
		b.note("ann", key("k", 1))
		b.note("ann", key("l", 1))
		b.advance(59 * time.Second)
		same(b, "inside", b.publish("ann", entry(events.Message, "", key("k", 1)))[0].Verdict, delivery.Repeated)
		b.advance(2 * time.Second)
		b.note("ann", key("k", 2))
		b.restart()
		same(b, "anew", b.publish("ann", entry(events.Message, "", key("k", 2)))[0].Verdict, delivery.Repeated)
		b.note("ann", key("l", 2))
	}},
	{name: "a key outlives its progress", test: func(b *bench) {
		b.progress("ann", "1", key("k", 1))
		last := b.progress("ann", "1", key("l", 1))
		same(b, "verdict", b.publish("ann", entry(events.Progress, "1", key("k", 1)))[0].Verdict, delivery.Repeated)
		b.restart()
		same(b, "verdict", b.publish("ann", entry(events.Progress, "1", key("k", 1)))[0].Verdict, delivery.Repeated)
		b.sees("ann", events.ID{}, last)
	}},
	{name: "the oldest keys make room", limits: delivery.Limits{Keys: 3}, test: func(b *bench) {
		for _, k := range []string{"1", "2", "3", "4"} {
			b.note("ann", key(k, 1))
		}
		same(b, "kept", b.publish("ann", entry(events.Message, "", key("2", 1)))[0].Verdict, delivery.Repeated)
		b.note("ann", key("1", 1))
		b.restart()
		b.note("ann", key("2", 1))
		same(b, "kept", b.publish("ann", entry(events.Message, "", key("4", 1)))[0].Verdict, delivery.Repeated)
	}},
}
