package storetest

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"jobwire/internal/delivery"
	"jobwire/internal/events"
)

var budgetRules = []behaviour{
	{name: "the oldest messages make room by number", limits: delivery.Limits{Messages: 3}, test: func(b *bench) {
		one, two, three := b.note("ann"), b.note("ann"), b.note("ann")
		b.confirm("ann", one)
		d := b.accept("ann", entry(events.Message, ""))
		same(b, "dropped", d.Dropped, delivery.Dropped{Messages: 1, UpTo: one})
		e := b.accept("ann", entry(events.Message, ""))
		same(b, "dropped", e.Dropped, delivery.Dropped{Messages: 1, Unconfirmed: 1, UpTo: two})
		_, dropped, _ := b.store.Cursor(context.Background(), "ann")
		same(b, "dropped", dropped, two)
		b.restart()
		b.sees("ann", events.ID{}, three, d.Place, e.Place)
	}},
	{name: "the oldest messages make room by bytes, the latest always stays", limits: delivery.Limits{MessagesBytes: 1000}, test: func(b *bench) {
		big := data(`"` + strings.Repeat("x", 400) + `"`)
		b.note("ann", big)
		two, three := b.note("ann", big), b.note("ann", big)
		b.sees("ann", events.ID{}, two, three)
		huge := b.note("ann", data(`"`+strings.Repeat("x", 5000)+`"`))
		b.restart()
		b.sees("ann", events.ID{}, huge)
	}},
	{name: "many messages at once make room for each other", limits: delivery.Limits{Messages: 3}, test: func(b *bench) {
		b.note("ann")
		entries := make([]delivery.Entry, 200)
		for i := range entries {
			entries[i] = entry(events.Message, "")
		}
		ds := b.publish("ann", entries...)
		b.sees("ann", events.ID{}, ds[197].Place, ds[198].Place, ds[199].Place)
		same(b, "dropped", ds[199].Dropped, delivery.Dropped{Messages: 1, Unconfirmed: 1, UpTo: ds[196].Place})
	}},
	{name: "a log at its limit goes on and on", limits: delivery.Limits{Messages: 100}, test: func(b *bench) {
		var ids []events.ID
		for range 500 {
			ids = append(ids, b.note("ann"))
		}
		b.restart()
		b.sees("ann", events.ID{}, ids[400:]...)
		ids = append(ids, b.note("ann"))
		recs, _ := b.replay(delivery.Query{UserID: "ann"})
		same(b, "places", places(recs), ids[401:])
	}},
	{name: "a lowered limit is reached step by step", limits: delivery.Limits{MessagesBytes: 100_000}, test: func(b *bench) {
		for range 200 {
			b.note("ann", data(`"`+strings.Repeat("x", 400)+`"`))
		}
		huge := data(`"` + strings.Repeat("x", 80_000) + `"`)
		for range 6 {
			b.note("ann", huge)
		}
		recs, _ := b.replay(delivery.Query{UserID: "ann", Limit: 1000, Bytes: 1 << 20})
		same(b, "records", len(recs), 1)
	}},
	{name: "messages never push out jobs", limits: delivery.Limits{Messages: 2}, test: func(b *bench) {
		end := b.complete("1", data(`{"r":1}`))
		for range 10 {
			b.note("ann")
		}
		b.restart()
		same(b, "end", b.job("1").End.ID, end.String())
		same(b, "result", string(b.job("1").End.Data), `{"r":1}`)
	}},
	{name: "the oldest finished jobs make room, then the oldest others", limits: delivery.Limits{Jobs: 3}, test: func(b *bench) {
		b.progress("ann", "runs")
		b.complete("done1")
		b.complete("done2")
		d := b.accept("ann", entry(events.Progress, "new1"))
		same(b, "dropped", d.Dropped, delivery.Dropped{Jobs: 1})
		d = b.accept("ann", entry(events.Progress, "new2"))
		same(b, "dropped", d.Dropped, delivery.Dropped{Jobs: 1})
		d = b.accept("ann", entry(events.Progress, "new3"))
		same(b, "dropped", d.Dropped, delivery.Dropped{Jobs: 1, Running: 1})
		b.restart()
		var got []string
		for _, j := range b.jobs() {
			got = append(got, j.JobID)
		}
		same(b, "jobs", got, []string{"new3", "new2", "new1"})
	}},
	{name: "jobs make room by bytes", limits: delivery.Limits{JobsBytes: 1000}, test: func(b *bench) {
		big := data(`"` + strings.Repeat("x", 400) + `"`)
		b.progress("ann", "1", big)
		b.progress("ann", "2", big)
		d := b.accept("ann", entry(events.Completed, "3", big))
		same(b, "dropped", d.Dropped, delivery.Dropped{Jobs: 1, Running: 1})
		b.accept("ann", entry(events.Progress, "2", big)) // replaced, not added
		b.restart()
		same(b, "jobs", len(b.jobs()), 2)
	}},
}

var retentionRules = []behaviour{
	{name: "what is too old is gone, swept or not", limits: delivery.Limits{Retention: time.Minute}, test: func(b *bench) {
		old := b.note("ann", key("k", 1))
		b.progress("ann", "1", staleAfter(time.Hour))
		b.complete("2")
		b.advance(45 * time.Second)
		late := b.note("ann")
		running := b.progress("ann", "3")
		b.restart()
		b.advance(30 * time.Second)
		same(b, "recovered", b.sees("ann", old, late, running).Recovered, false)
		same(b, "jobs", len(b.jobs()), 1)
		b.progress("ann", "2") // begins anew
		b.note("ann", key("k", 2))
	}},
	{name: "what is dropped during a replay is told", limits: delivery.Limits{Messages: 5}, test: func(b *bench) {
		for _, c := range []struct {
			offset    bool
			meanwhile int // so many messages come between two pages, and push out as many
			want      []bool
		}{
			{true, 0, []bool{true, true}},
			{true, 3, []bool{true, true}}, // the offset itself, and what the first page had
			{true, 4, []bool{true, false}},
			{false, 4, []bool{true, true}},
		} {
			seen := b.note("ann")
			for range 4 {
				b.note("ann")
			}
			q := delivery.Query{UserID: "ann", Since: b.follow("ann"), Offset: seen, HasOffset: c.offset, Limit: 2, Bytes: 1 << 20}
			var recovered []bool
			for range 2 {
				page, err := b.store.Read(context.Background(), q)
				if err != nil {
					b.Fatalf("read: %v", err)
				}
				if len(recovered) == 0 {
					for range c.meanwhile {
						b.note("ann")
					}
				}
				recovered = append(recovered, page.Recovered)
				q.Next = page.Next
			}
			same(b, fmt.Sprintf("recovered %+v", c), recovered, c.want)
		}
	}},
	{name: "the sweep removes what is too old, and counts it", limits: delivery.Limits{Retention: time.Minute}, test: func(b *bench) {
		b.note("ann", key("k", 1))
		up := b.complete("1")
		b.progress("ann", "2", staleAfter(time.Hour))
		b.note("bob")
		bobs := b.note("bob")
		b.confirm("bob", bobs)
		b.advance(45 * time.Second)
		late := b.note("ann")
		b.restart()
		same(b, "too early", len(b.sweep()), 0)
		b.advance(30 * time.Second)
		swept := b.sweep()
		same(b, "ann", swept["ann"], delivery.Dropped{Messages: 2, Unconfirmed: 2, Jobs: 2, Running: 1, UpTo: up})
		same(b, "bob", swept["bob"], delivery.Dropped{Messages: 2, UpTo: bobs})
		b.sees("ann", events.ID{}, late)
		b.sees("bob", events.ID{})
		same(b, "bob's place", b.follow("bob"), events.ID{})
		b.advance(time.Hour)
		b.restart()
		same(b, "ann", b.sweep()["ann"], delivery.Dropped{Messages: 1, Unconfirmed: 1, UpTo: late})
		same(b, "stalled", b.stall(), 0)
		same(b, "nothing more", len(b.sweep()), 0)
	}},
	{name: "an unfinished job lives on with its events", limits: delivery.Limits{Retention: time.Minute}, test: func(b *bench) {
		b.note("ann")
		for range 5 {
			b.progress("ann", "1")
			b.advance(40 * time.Second)
			b.sweep()
		}
		b.restart()
		same(b, "jobs", len(b.jobs()), 1)
		b.advance(time.Minute)
		same(b, "swept", b.sweep()["ann"], delivery.Dropped{Jobs: 1, Running: 1})
	}},
	{name: "an offset from before a user was forgotten does not count", limits: delivery.Limits{Retention: time.Minute}, test: func(b *bench) {
		seen := b.note("ann")
		b.note("ann") // nobody ever sees it
		b.advance(time.Hour)
		b.sweep()
		same(b, "nothing left", b.sees("ann", seen).Recovered, false)
		id := b.note("ann")
		same(b, "a new message", b.sees("ann", seen, id).Recovered, false)
		b.restart()
		same(b, "after a restart", b.sees("ann", seen, id).Recovered, false)
		same(b, "the new message's own id", b.sees("ann", id).Recovered, true)
	}},
	{name: "the sweep comes through many users in bounded steps, and twice at once", limits: delivery.Limits{Retention: time.Minute}, test: func(b *bench) {
		const users, many = 600, 500
		var wg sync.WaitGroup
		for part := range 8 {
			wg.Go(func() {
				for i := part; i < users; i += 8 {
					b.publish(fmt.Sprint("user", i), entry(events.Message, ""), entry(events.Progress, "1"))
				}
			})
		}
		wg.Wait()
		entries := make([]delivery.Entry, many)
		for i := range entries {
			entries[i] = entry(events.Message, "")
		}
		b.publish("ann", entries...)
		b.advance(time.Hour)
		b.restart()
		one, err := b.store.Sweep(context.Background())
		if err != nil || !one.More || len(one.Dropped) > users/2 {
			b.Fatalf("a first step took %d users, more %v, error %v", len(one.Dropped), one.More, err)
		}
		var all delivery.Dropped
		add := func(dropped map[string]delivery.Dropped) {
			b.mu.Lock()
			defer b.mu.Unlock()
			for _, d := range dropped {
				d.UpTo = events.ID{}
				all = sum(all, d)
			}
		}
		add(one.Dropped)
		for range 3 {
			wg.Go(func() { add(b.sweep()) })
		}
		wg.Wait()
		add(b.sweep())
		all.UpTo = events.ID{}
		same(b, "dropped", all, delivery.Dropped{
			Messages: users + many, Unconfirmed: users + many, Jobs: users, Running: users,
		})
	}},
}

var watchRules = []behaviour{
	{name: "a job without events stalls once", test: func(b *bench) {
		at := b.progress("ann", "1", staleAfter(time.Minute))
		b.advance(59 * time.Second)
		same(b, "early", b.stall(), 0)
		b.restart()
		b.advance(time.Second)
		before := b.follow("ann")
		same(b, "stalled", b.stall(), 1)
		place := b.follow("ann")
		b.feed.mu.Lock()
		told := b.feed.told["ann"]
		b.feed.mu.Unlock()
		d := told[len(told)-1]
		d.Emission = nil
		same(b, "delivery", d, delivery.Delivery{
			UserID: "ann", Place: place, Prev: before, Name: events.JobStalled, Kind: events.Message, JobID: "1",
			Data: []byte(`{"jobId":"1","lastEventAt":"2026-01-02T03:04:05.000Z"}`),
		})
		b.restart()
		j := b.job("1")
		same(b, "state", j.State, delivery.JobStalled)
		same(b, "place", j.Place, place)
		b.sees("ann", events.ID{}, at, place)
		b.advance(time.Hour)
		same(b, "again", b.stall(), 0)
	}},
	{name: "a later event moves or clears the deadline", test: func(b *bench) {
		b.progress("ann", "moves", staleAfter(time.Minute))
		b.progress("ann", "clears", staleAfter(time.Minute))
		b.progress("ann", "ends", staleAfter(time.Minute))
		b.progress("ann", "hurries", staleAfter(time.Hour))
		b.advance(30 * time.Second)
		b.progress("ann", "moves", staleAfter(time.Minute))
		b.progress("ann", "clears")
		b.complete("ends")
		b.progress("ann", "hurries", staleAfter(10*time.Second))
		b.restart()
		b.advance(40 * time.Second)
		same(b, "stalled", b.stall(), 1)
		same(b, "hurries", b.job("hurries").State, delivery.JobStalled)
		b.advance(20 * time.Second)
		same(b, "stalled", b.stall(), 1)
		same(b, "moves", b.job("moves").State, delivery.JobStalled)
		b.advance(20 * time.Hour)
		same(b, "stalled", b.stall(), 0)
	}},
	{name: "progress reopens a stalled job, and an end ends it", test: func(b *bench) {
		b.progress("ann", "1", staleAfter(time.Minute))
		b.progress("ann", "2", staleAfter(time.Minute))
		b.advance(time.Hour)
		same(b, "stalled", b.stall(), 2)
		b.progress("ann", "1", staleAfter(time.Minute))
		b.complete("2")
		b.restart()
		same(b, "state", b.job("1").State, delivery.JobRunning)
		same(b, "state", b.job("2").State, delivery.JobCompleted)
		b.advance(time.Hour)
		same(b, "stalled", b.stall(), 1)
	}},
	{name: "asked from everywhere at once, each job stalls once", test: func(b *bench) {
		const users, jobs = 20, 10
		for u := range users {
			var entries []delivery.Entry
			for j := range jobs {
				entries = append(entries, entry(events.Progress, fmt.Sprint(j), staleAfter(time.Duration(j+1)*time.Second)))
			}
			b.publish(fmt.Sprint("user", u), entries...)
		}
		b.advance(time.Minute)
		total := make([]int, 6)
		var wg sync.WaitGroup
		for i := range total {
			store := b.store
			if i%2 == 1 && b.harness.Another != nil {
				store = b.harness.Another()
			}
			wg.Go(func() {
				for range 1000 {
					n, err := store.Stall(context.Background(), 7)
					if err != nil {
						b.Error(err)
					}
					if total[i] += n; n == 0 {
						return
					}
				}
			})
		}
		wg.Wait()
		n := b.stall()
		for _, t := range total {
			n += t
		}
		same(b, "stalled", n, users*jobs)
		for u := range users {
			same(b, "messages", len(b.feed.heard(b.T, fmt.Sprint("user", u))), 2*jobs)
		}
	}},
	{name: "no more than asked for", test: func(b *bench) {
		for i := range 10 {
			b.progress("ann", fmt.Sprint(i), staleAfter(time.Minute))
		}
		b.advance(time.Hour)
		for _, want := range []int{4, 4, 2, 0} {
			n, err := b.store.Stall(context.Background(), 4)
			same(b, "stalled", n, want)
			same(b, "error", err, nil)
		}
	}},
}
