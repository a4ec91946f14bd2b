package storetest

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"jobwire/internal/delivery"
	"jobwire/internal/events"
)

var readRules = []behaviour{
	{name: "nobody has anything at first", test: func(b *bench) {
		page := b.sees("ann", events.ID{})
		same(b, "recovered", page.Recovered, true)
		same(b, "last", page.Last, events.ID{})
	}},
	{name: "durable events are seen until they are confirmed", test: func(b *bench) {
		one, two, three := b.note("ann"), b.note("ann"), b.note("ann")
		b.sees("ann", events.ID{}, one, two, three)
		b.confirm("ann", two)
		b.sees("ann", events.ID{}, three)
		b.confirm("ann", one) // cursors do not go back
		b.restarted()
		b.sees("ann", events.ID{}, three)
	}},
	{name: "a cursor cannot go beyond the last event", test: func(b *bench) {
		b.note("ann")
		b.confirm("ann", events.ID{Ms: 1 << 60})
		two := b.note("ann")
		b.sees("ann", events.ID{}, two)
	}},
	{name: "a cursor for a user who has nothing is nothing", test: func(b *bench) {
		b.confirm("ann", events.ID{Ms: 5})
		id := b.note("ann")
		b.sees("ann", events.ID{}, id)
	}},
	{name: "everything after the offset, confirmed or not", test: func(b *bench) {
		one, two, three := b.note("ann"), b.note("ann"), b.note("ann")
		b.confirm("ann", three)
		page := b.sees("ann", one, two, three)
		same(b, "recovered", page.Recovered, true)
		same(b, "last", page.Last, three)
		b.sees("ann", three)
	}},
	{name: "unconfirmed events before the offset are repeated", test: func(b *bench) {
		one, two, three := b.note("ann"), b.note("ann"), b.note("ann")
		b.confirm("ann", one)
		b.sees("ann", two, two, three)
	}},
	{name: "what the caller knows of the cursor counts", test: func(b *bench) {
		one, two := b.note("ann"), b.note("ann")
		recs, _ := b.replay(delivery.Query{UserID: "ann", Confirmed: one})
		if got := idsOf(recs); !slices.Equal(got, []events.ID{two}) {
			b.Fatalf("sees %v", got)
		}
	}},
	{name: "the latest progress of unfinished jobs, for a client without offset", test: func(b *bench) {
		running := b.post("ann", events.JobProgress, "1")
		b.post("ann", events.JobProgress, "2")
		done := b.post("ann", events.JobCompleted, "2")
		b.confirm("ann", done)
		b.sees("ann", events.ID{}, running)
		b.sees("ann", done)
		b.sees("ann", running, done)
	}},
	{name: "progress after the offset, unless its job is finished", test: func(b *bench) {
		one := b.note("ann")
		b.confirm("ann", one)
		b.post("ann", events.JobProgress, "1")
		running := b.post("ann", events.JobProgress, "2")
		b.sees("ann", running)
		done := b.post("ann", events.JobFailed, "1")
		b.sees("ann", one, running, done)
	}},
	{name: "progress of a later attempt is seen", test: func(b *bench) {
		b.post("ann", events.JobProgress, "1")
		b.confirm("ann", b.post("ann", events.JobFailed, "1", attempt(1)))
		again := b.post("ann", events.JobProgress, "1", attempt(2))
		b.sees("ann", events.ID{}, again)
	}},
	{name: "an offset that the log does not know brings all that is retained", limits: delivery.Limits{Events: 3}, test: func(b *bench) {
		var ids []events.ID
		for range 5 {
			ids = append(ids, b.note("ann"))
			b.advance(time.Second)
		}
		b.confirm("ann", ids[4])
		for _, c := range []struct {
			offset    events.ID
			recovered bool
			want      []events.ID
		}{
			{ids[0], false, ids[2:]},
			{ids[1], true, ids[2:]}, // the last one that was removed: nothing after it is missing
			{ids[2], true, ids[3:]},
			{ids[4], true, nil},
			{events.ID{Ms: ids[4].Ms, Seq: ids[4].Seq + 1}, false, ids[2:]},
			{events.ID{Ms: 1 << 63}, false, ids[2:]},
			{events.ID{Ms: ids[2].Ms + 1}, true, ids[3:]}, // an id that was coalesced away
		} {
			page := b.sees("ann", c.offset, c.want...)
			if page.Recovered != c.recovered {
				b.Fatalf("offset %s: recovered %v", c.offset, page.Recovered)
			}
		}
	}},
	{name: "an offset of a user who is unknown is unknown", test: func(b *bench) {
		same(b, "recovered", b.sees("ann", events.ID{Ms: 1}).Recovered, false)
	}},
	{name: "pages are bounded by number and by bytes", test: func(b *bench) {
		var want []events.ID
		for i := range 30 {
			want = append(want, b.note("ann", data(fmt.Sprintf(`{"n":%d,"x":%q}`, i, strings.Repeat("x", 100)))))
		}
		for _, q := range []delivery.Query{
			{Limit: 7, Bytes: 1 << 20}, {Limit: 1, Bytes: 1 << 20}, {Limit: 100, Bytes: 500}, {Limit: 100, Bytes: 1}, {Limit: 30, Bytes: 1 << 20},
		} {
			q.UserID = "ann"
			recs, first := b.replay(q)
			if got := idsOf(recs); !slices.Equal(got, want) {
				b.Fatalf("limit %d, bytes %d: %v", q.Limit, q.Bytes, got)
			}
			if size := len(first.Records) * 110; q.Bytes >= 500 && size > q.Bytes {
				b.Fatalf("a page of %d bytes", size)
			}
		}
	}},
	{name: "a replay goes on where it was while the cursor and the log move", test: func(b *bench) {
		one, two := b.note("ann"), b.note("ann")
		q := delivery.Query{UserID: "ann", Limit: 1, Bytes: 1 << 20}
		page, err := b.store.Read(b.Context(), q)
		if err != nil || len(page.Records) != 1 || page.Records[0].ID != one || page.Next == nil {
			b.Fatalf("%+v, %v", page, err)
		}
		three := b.note("ann")
		b.confirm("ann", three)
		recs, _ := b.replay(*page.Next)
		if got := idsOf(recs); !slices.Equal(got, []events.ID{two, three}) {
			b.Fatalf("goes on with %v", got)
		}
	}},
}

var retentionRules = []behaviour{
	{name: "the oldest events make room by number", limits: delivery.Limits{Events: 3}, test: func(b *bench) {
		one, two := b.note("ann"), b.note("ann")
		three := b.note("ann")
		b.confirm("ann", one)
		d := b.publish(entry("ann", "note", ""))[0]
		same(b, "dropped", d.Dropped, delivery.Dropped{Events: 1})
		e := b.publish(entry("ann", "note", ""))[0]
		same(b, "dropped", e.Dropped, delivery.Dropped{Events: 1, Unconfirmed: 1})
		_ = two
		b.sees("ann", events.ID{}, three, d.ID, e.ID)
	}},
	{name: "the oldest events make room by bytes, the latest always stays", limits: delivery.Limits{Bytes: 1000}, test: func(b *bench) {
		big := data(`"` + strings.Repeat("x", 400) + `"`)
		b.note("ann", big)
		two, three := b.note("ann", big), b.note("ann", big)
		b.sees("ann", events.ID{}, two, three)
		huge := b.note("ann", data(`"`+strings.Repeat("x", 5000)+`"`))
		b.restarted()
		b.sees("ann", events.ID{}, huge)
	}},
	{name: "progress makes room too, and its own old ones do not count", limits: delivery.Limits{Events: 2}, test: func(b *bench) {
		one := b.note("ann")
		for range 10 {
			b.post("ann", events.JobProgress, "1")
		}
		last := b.post("ann", events.JobProgress, "1")
		b.sees("ann", events.ID{}, one, last)
		two := b.note("ann")
		b.sees("ann", events.ID{}, last, two)
		three := b.note("ann")
		b.sees("ann", events.ID{}, two, three)
		same(b, "jobs", len(b.jobs("ann")), 0)
	}},
	{name: "a job is remembered as long as its last event", limits: delivery.Limits{Events: 2}, test: func(b *bench) {
		b.post("ann", events.JobProgress, "1")
		b.post("ann", events.JobCompleted, "1")
		b.note("ann") // the progress goes
		jobs := b.jobs("ann")
		same(b, "jobs", len(jobs), 1)
		same(b, "progress", string(jobs[0].Progress), "")
		b.note("ann") // the terminal goes
		same(b, "jobs", len(b.jobs("ann")), 0)
	}},
	{name: "the sweep removes what is too old", limits: delivery.Limits{Retention: time.Minute, KeyWindow: 2 * time.Minute}, test: func(b *bench) {
		b.note("ann", key("k", 1))
		b.post("ann", events.JobProgress, "1", staleAfter(time.Hour))
		b.note("bob")
		b.confirm("bob", b.note("bob"))
		b.advance(45 * time.Second)
		late := b.note("ann")
		b.advance(30 * time.Second)
		b.restarted()
		same(b, "dropped", b.sweep(), delivery.Dropped{Events: 4, Unconfirmed: 1})
		b.sees("ann", events.ID{}, late)
		b.sees("bob", events.ID{})
		same(b, "jobs", len(b.jobs("ann")), 0)
		same(b, "key", b.publish(entry("ann", "note", "", key("k", 1)))[0].Verdict, delivery.VerdictRepeated)
		b.advance(time.Hour)
		b.restarted()
		b.sweep()
		due, next, err := b.store.Due(b.Context(), 10)
		if len(due) > 0 || !next.IsZero() || err != nil {
			b.Fatalf("deadlines of removed jobs: %v, %v, %v", due, next, err)
		}
	}},
	{name: "an offset from before a user was forgotten stays unknown", limits: delivery.Limits{Retention: time.Minute, KeyWindow: time.Minute}, test: func(b *bench) {
		seen := b.note("ann")
		b.note("ann") // nobody ever sees it
		b.advance(time.Hour)
		b.sweep()
		same(b, "nothing left", b.sees("ann", seen).Recovered, false)
		id := b.note("ann")
		same(b, "a new event", b.sees("ann", seen, id).Recovered, false)
		b.restarted()
		same(b, "after a restart", b.sees("ann", seen, id).Recovered, false)
		same(b, "the new event's own id", b.sees("ann", id, id).Recovered, true) // unconfirmed, so it is repeated
	}},
	{name: "an offset of another store is unknown", test: func(b *bench) {
		old := events.ID{Ms: uint64(start.Add(-time.Hour).UnixMilli())}
		id := b.note("ann")
		same(b, "recovered", b.sees("ann", old, id).Recovered, false)
	}},
	{name: "what had to make room is told with its highest id", limits: delivery.Limits{Events: 2}, test: func(b *bench) {
		one, two := b.note("ann"), b.note("ann")
		same(b, "trimmed", b.publish(entry("ann", "note", ""))[0].Trimmed, one)
		same(b, "trimmed", b.publish(entry("ann", "note", ""))[0].Trimmed, two)
	}},
	{name: "a post removes what is too old of its user", limits: delivery.Limits{Retention: time.Minute}, test: func(b *bench) {
		b.note("ann")
		b.advance(2 * time.Minute)
		id := b.note("ann")
		b.sees("ann", events.ID{}, id)
	}},
	{name: "the sweep comes through many users in bounded steps", limits: delivery.Limits{Retention: time.Minute}, test: func(b *bench) {
		var entries []delivery.Entry
		for i := range 1000 {
			entries = append(entries, entry(fmt.Sprint("user", i), "note", ""))
		}
		b.publish(entries...)
		many := make([]delivery.Entry, 500)
		for i := range many {
			many[i] = entry("ann", "note", "")
		}
		b.publish(many...)
		b.advance(time.Hour)
		b.restarted()
		same(b, "dropped", b.sweep(), delivery.Dropped{Events: 1500, Unconfirmed: 1500})
	}},
}

var stallRules = []behaviour{
	{name: "a job without events stalls once", test: func(b *bench) {
		progress := b.post("ann", events.JobProgress, "1", staleAfter(time.Minute))
		b.advance(59 * time.Second)
		due, next := b.due()
		same(b, "early", len(due), 0)
		same(b, "next", next, start.Add(time.Minute))
		b.restarted()
		b.advance(time.Second)
		due, _ = b.due()
		same(b, "due", len(due), 1)
		d := b.stall(due[0])
		same(b, "verdict", d.Verdict, delivery.VerdictStored)
		same(b, "data", string(d.Data), `{"jobId":"1","lastEventAt":"2026-01-02T03:04:05.000Z"}`)
		same(b, "state", b.jobs("ann")[0].State, delivery.JobStalled)
		b.sees("ann", events.ID{}, progress, d.ID)
		same(b, "again", b.stall(due[0]).Verdict, delivery.VerdictIgnored)
		due, next = b.due()
		same(b, "due", len(due), 0)
		same(b, "next", next.IsZero(), true)
	}},
	{name: "a later event moves or clears the deadline", test: func(b *bench) {
		b.post("ann", events.JobProgress, "moves", staleAfter(time.Minute))
		b.post("ann", events.JobProgress, "clears", staleAfter(time.Minute))
		b.post("ann", events.JobProgress, "ends", staleAfter(time.Minute))
		b.post("ann", events.JobProgress, "hurries", staleAfter(time.Hour))
		b.advance(30 * time.Second)
		b.post("ann", events.JobProgress, "moves", staleAfter(time.Minute))
		b.post("ann", events.JobProgress, "clears")
		b.post("ann", events.JobCompleted, "ends")
		b.post("ann", events.JobProgress, "hurries", staleAfter(10*time.Second))
		b.advance(40 * time.Second)
		same(b, "stalled", b.stallAll(), []string{"hurries"})
		_, next := b.due()
		same(b, "next", next, start.Add(90*time.Second))
		b.advance(20 * time.Second)
		same(b, "stalled", b.stallAll(), []string{"moves"})
		b.advance(24 * time.Hour)
		same(b, "stalled", len(b.stallAll()), 0)
	}},
	{name: "a later event clears the stall", test: func(b *bench) {
		b.post("ann", events.JobProgress, "1", staleAfter(time.Minute))
		b.advance(time.Hour)
		b.stallAll()
		again := b.post("ann", events.JobProgress, "1", staleAfter(time.Minute))
		same(b, "state", b.jobs("ann")[0].State, delivery.JobRunning)
		same(b, "last event", b.jobs("ann")[0].LastEventID, again.String())
		b.advance(time.Hour)
		same(b, "stalled", b.stallAll(), []string{"1"})
	}},
}

func (b *bench) due() ([]delivery.DueJob, time.Time) {
	b.Helper()
	jobs, next, err := b.store.Due(b.Context(), 100)
	if err != nil {
		b.Fatal(err)
	}
	return jobs, next.UTC()
}

func (b *bench) stall(j delivery.DueJob) delivery.Decision {
	b.Helper()
	return b.publish(delivery.Entry{Kind: delivery.KindStall, At: j.At, Event: events.Event{UserID: j.UserID, JobID: j.JobID}})[0]
}

// stallAll lets everything stall whose deadline has passed.
func (b *bench) stallAll() (stalled []string) {
	b.Helper()
	for range 100 {
		due, _ := b.due()
		if len(due) == 0 {
			slices.Sort(stalled)
			return stalled
		}
		for _, j := range due {
			if b.stall(j).Verdict == delivery.VerdictStored {
				stalled = append(stalled, j.JobID)
			}
		}
	}
	b.Fatal("the deadlines do not end")
	return nil
}
