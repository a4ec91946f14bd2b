package storetest

import (
	"context"
	"errors"
	"time"

	"jobwire/internal/delivery"
	"jobwire/internal/events"
)

var idRules = []behaviour{
	{name: "ids carry the time of the clock", test: func(b *bench) {
		same(b, "id", b.note("ann").Ms, uint64(start.UnixMilli()))
	}},
	{name: "ids rise within a millisecond", test: func(b *bench) {
		first, second := b.note("ann"), b.note("ann")
		if second.Compare(first) <= 0 {
			b.Fatalf("%s after %s", second, first)
		}
	}},
	{name: "ids rise when the clock steps back", test: func(b *bench) {
		first := b.note("ann")
		b.advance(-time.Hour)
		second := b.note("ann")
		b.restarted()
		b.advance(-time.Hour)
		third := b.note("ann")
		if second.Compare(first) <= 0 || third.Compare(second) <= 0 {
			b.Fatalf("%s, %s, %s", first, second, third)
		}
		b.sees("ann", events.ID{}, first, second, third)
	}},
	{name: "ids of progress rise over a restart with the clock back", test: func(b *bench) {
		first := b.post("ann", events.JobProgress, "1")
		b.restart()
		b.advance(-time.Hour)
		if second := b.note("ann"); second.Compare(first) <= 0 {
			b.Fatalf("%s after %s", second, first)
		}
	}},
	{name: "ids rise over a user who was forgotten", limits: delivery.Limits{Retention: time.Minute, KeyWindow: time.Minute}, test: func(b *bench) {
		first := b.note("ann")
		b.advance(2 * time.Minute)
		b.restarted() // the sweep may look only at what is on the disk
		b.sweep()
		b.restarted()
		b.advance(-time.Hour)
		if second := b.note("ann"); second.Compare(first) <= 0 {
			b.Fatalf("%s after %s", second, first)
		}
	}},
	{name: "a context that is done stores nothing", test: func(b *bench) {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_, err := b.store.Publish(ctx, []delivery.Entry{entry("ann", "note", "")})
		if !errors.Is(err, context.Canceled) {
			b.Fatalf("error %v", err)
		}
		b.sees("ann", events.ID{})
	}},
	{name: "a batch is decided in its order", test: func(b *bench) {
		ds := b.publish(
			entry("ann", events.JobProgress, "1"),
			entry("bob", "note", ""),
			entry("ann", events.JobCompleted, "1"),
			entry("ann", events.JobProgress, "1"),
			entry("ann", "note", "", key("k", 1)),
			entry("ann", "note", "", key("k", 1)),
		)
		same(b, "late progress", ds[3].Verdict, delivery.VerdictIgnored)
		same(b, "second use of a key", ds[5].Verdict, delivery.VerdictRepeated)
		b.sees("ann", events.ID{}, ds[2].ID, ds[4].ID)
		b.sees("bob", events.ID{}, ds[1].ID)
	}},
	{name: "data comes back byte for byte", test: func(b *bench) {
		const odd = "{ \"b\":1e400 ,\"a\" : 12345678901234567890, \"\\u00e9\":\"\U0001f600\"}"
		id := b.note("ann", data(odd))
		b.restarted()
		recs, _ := b.replay(delivery.Query{UserID: "ann"})
		same(b, "records", len(recs), 1)
		same(b, "record", recs[0], delivery.Record{ID: id, Name: "note", Data: []byte(odd), Durable: true})
	}},
	{name: "users whose names contain each other stay apart", test: func(b *bench) {
		for _, user := range []string{"a", "ab", "a b", "é", "a:l", "al", "Ã©"} {
			id := b.note(user)
			b.sees(user, events.ID{}, id)
		}
	}},
}

var jobRules = []behaviour{
	{name: "only the latest progress of a job is kept", test: func(b *bench) {
		b.post("ann", events.JobProgress, "1")
		second := b.post("ann", events.JobProgress, "2")
		third := b.post("ann", events.JobProgress, "1")
		b.sees("ann", events.ID{}, second, third)
		b.restarted()
		b.sees("ann", events.ID{}, second, third)
	}},
	{name: "progress of a finished job is ignored", test: func(b *bench) {
		for _, end := range []string{events.JobCompleted, events.JobFailed} {
			b.post("ann", events.JobProgress, end)
			b.post("ann", end, end)
			b.restarted()
			d := b.publish(entry("ann", events.JobProgress, end))[0]
			same(b, "verdict", d.Verdict, delivery.VerdictIgnored)
			same(b, "reason", d.Reason, delivery.ReasonJobFinished)
		}
	}},
	{name: "a job that ends without progress is finished too", test: func(b *bench) {
		b.post("ann", events.JobFailed, "1")
		same(b, "verdict", b.publish(entry("ann", events.JobProgress, "1"))[0].Verdict, delivery.VerdictIgnored)
	}},
	{name: "jobs of the same name of two users are two jobs", test: func(b *bench) {
		b.post("ann", events.JobCompleted, "1")
		b.post("bob", events.JobProgress, "1")
	}},
	{name: "late progress of an earlier attempt does not take its job back", test: func(b *bench) {
		b.post("ann", events.JobProgress, "1", attempt(2))
		b.post("ann", events.JobProgress, "1", attempt(1))
		same(b, "attempt", b.jobs("ann")[0].Attempt, 2)
		b.post("ann", events.JobCompleted, "1")
		late := b.publish(entry("ann", events.JobProgress, "1", attempt(2)))[0]
		same(b, "verdict", late.Verdict, delivery.VerdictIgnored)
	}},
	{name: "a higher attempt begins a finished job anew", test: func(b *bench) {
		for _, c := range []struct {
			progress, end, next uint32
			ignored             bool
		}{
			{0, 0, 1, false}, {1, 1, 1, true}, {1, 1, 2, false}, {3, 3, 2, true},
			{2, 0, 2, true}, {2, 0, 3, false}, {2, 1, 2, false}, {1, 1, 0, true},
		} {
			job := time.Duration(c.progress*100 + c.end*10 + c.next).String()
			b.post("ann", events.JobProgress, job, attempt(c.progress))
			b.post("ann", events.JobFailed, job, attempt(c.end))
			d := b.publish(entry("ann", events.JobProgress, job, attempt(c.next)))[0]
			if (d.Verdict == delivery.VerdictIgnored) != c.ignored {
				b.Fatalf("%+v: %+v", c, d)
			}
		}
	}},
	{name: "a later terminal replaces an earlier one", test: func(b *bench) {
		first := b.post("ann", events.JobFailed, "1")
		second := b.post("ann", events.JobCompleted, "1")
		same(b, "state", b.jobs("ann")[0].State, delivery.JobCompleted)
		b.sees("ann", events.ID{}, first, second)
	}},
	{name: "a terminal after progress brings an id to flush under", test: func(b *bench) {
		b.post("ann", events.JobProgress, "1")
		other := b.note("ann")
		d := b.publish(entry("ann", events.JobCompleted, "1"))[0]
		if d.FlushID.Compare(other) <= 0 || d.FlushID.Compare(d.ID) >= 0 {
			b.Fatalf("flush %s is not between %s and %s", d.FlushID, other, d.ID)
		}
	}},
	{name: "refreshed progress moves to the end of the log", test: func(b *bench) {
		old := b.post("ann", events.JobProgress, "1", data(`{"p":1}`))
		other := b.note("ann")
		e := entry("ann", "", "1")
		e.Kind, e.At = delivery.KindRefresh, old
		d := b.publish(e)[0]
		same(b, "verdict", d.Verdict, delivery.VerdictStored)
		b.sees("ann", events.ID{}, other, d.ID)
		b.sees("ann", other, other, d.ID) // other is not confirmed
		same(b, "job", b.jobs("ann")[0].LastEventID, d.ID.String())
		same(b, "again", b.publish(e)[0].Verdict, delivery.VerdictIgnored)
		e.At = d.ID
		b.post("ann", events.JobCompleted, "1")
		same(b, "finished", b.publish(e)[0].Verdict, delivery.VerdictIgnored)
	}},
	{name: "jobs are listed with their latest state", test: func(b *bench) {
		b.post("ann", events.JobProgress, "1", attempt(2), data(`{"p":10}`))
		b.advance(time.Second)
		two := b.post("ann", events.JobProgress, "2", data(`{"p":20}`))
		b.advance(time.Second)
		one := b.post("ann", events.JobFailed, "1", data(`{"e":1}`))
		b.restarted()
		same(b, "jobs", b.jobs("ann"), []delivery.Job{
			{JobID: "1", State: delivery.JobFailed, Attempt: 2, Progress: []byte(`{"p":10}`), LastEventID: one.String(), UpdatedAt: start.Add(2 * time.Second)},
			{JobID: "2", State: delivery.JobRunning, Progress: []byte(`{"p":20}`), LastEventID: two.String(), UpdatedAt: start.Add(time.Second)},
		})
		same(b, "jobs of another user", len(b.jobs("bob")), 0)
	}},
}

var keyRules = []behaviour{
	{name: "a repeat stores nothing and answers with the first id", test: func(b *bench) {
		for i, restart := range []bool{false, true} {
			user := []string{"ann", "bob"}[i]
			id := b.note(user, key("k", 1))
			if restart {
				b.restarted()
			}
			d := b.publish(entry(user, "note", "", key("k", 1)))[0]
			same(b, "verdict", d.Verdict, delivery.VerdictRepeated)
			same(b, "id", d.ID, id)
			b.sees(user, events.ID{}, id)
		}
	}},
	{name: "a settled answer is repeated whole, the first one wins", test: func(b *bench) {
		id := b.note("ann", key("k", 1))
		first := delivery.Outcome{ID: id, Status: delivery.StatusSent, Sockets: 3}
		for _, o := range []delivery.Outcome{first, {ID: id, Status: delivery.StatusStored}} {
			err := b.store.Settle(context.Background(), []delivery.Settlement{{UserID: "ann", Key: "k", Outcome: o}})
			if err != nil {
				b.Fatal(err)
			}
		}
		b.restarted()
		d := b.publish(entry("ann", "note", "", key("k", 1)))[0]
		if d.Outcome == nil || *d.Outcome != first {
			b.Fatalf("outcome %+v", d.Outcome)
		}
	}},
	{name: "an ignored event is repeated as ignored", test: func(b *bench) {
		b.post("ann", events.JobCompleted, "1")
		same(b, "first", b.publish(entry("ann", events.JobProgress, "1", key("k", 1)))[0].Verdict, delivery.VerdictIgnored)
		d := b.publish(entry("ann", events.JobProgress, "1", key("k", 1)))[0]
		if d.Verdict != delivery.VerdictRepeated || d.Outcome == nil ||
			d.Outcome.Status != delivery.StatusIgnored || d.Outcome.Reason != delivery.ReasonJobFinished {
			b.Fatalf("%+v, outcome %+v", d, d.Outcome)
		}
	}},
	{name: "a key with another body is refused", test: func(b *bench) {
		id := b.note("ann", key("k", 1))
		same(b, "verdict", b.publish(entry("ann", "note", "", key("k", 2)))[0].Verdict, delivery.VerdictKeyReused)
		b.sees("ann", events.ID{}, id)
	}},
	{name: "keys belong to a user", test: func(b *bench) {
		b.note("ann", key("k", 1))
		b.note("bob", key("k", 2))
	}},
	{name: "a key is forgotten after its window", limits: delivery.Limits{KeyWindow: time.Minute}, test: func(b *bench) {
		b.note("ann", key("k", 1))
		b.advance(59 * time.Second)
		same(b, "inside", b.publish(entry("ann", "note", "", key("k", 1)))[0].Verdict, delivery.VerdictRepeated)
		b.advance(2 * time.Second)
		b.note("ann", key("k", 2))
		same(b, "new window", b.publish(entry("ann", "note", "", key("k", 2)))[0].Verdict, delivery.VerdictRepeated)
	}},
	{name: "a key outlives its progress", test: func(b *bench) {
		b.post("ann", events.JobProgress, "1", key("k", 1))
		last := b.post("ann", events.JobProgress, "1", key("l", 1))
		same(b, "verdict", b.publish(entry("ann", events.JobProgress, "1", key("k", 1)))[0].Verdict, delivery.VerdictRepeated)
		b.sees("ann", events.ID{}, last)
	}},
	{name: "the oldest keys make room", limits: delivery.Limits{Keys: 3}, test: func(b *bench) {
		for _, k := range []string{"1", "2", "3", "4"} {
			b.note("ann", key(k, 1))
		}
		same(b, "kept", b.publish(entry("ann", "note", "", key("2", 1)))[0].Verdict, delivery.VerdictRepeated)
		b.note("ann", key("1", 1))
	}},
}
