package storetest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"jobwire/internal/delivery"
	"jobwire/internal/events"
)

var replayRules = []behaviour{
	{name: "messages are seen until they are confirmed", test: func(b *bench) {
		one, two, three := b.note("ann"), b.note("ann"), b.note("ann")
		b.sees("ann", events.ID{}, one, two, three)
		b.confirm("ann", two)
		b.sees("ann", events.ID{}, three)
		b.confirm("ann", one) // cursors do not go back
		b.restart()
		b.sees("ann", events.ID{}, three)
	}},
	{name: "a cursor cannot go beyond the last place", test: func(b *bench) {
		one := b.note("ann")
		b.confirm("ann", events.ID{Ms: 1 << 60})
		confirmed, _, err := b.store.Cursor(context.Background(), "ann")
		same(b, "cursor", confirmed, one)
		same(b, "error", err, nil)
		b.restart()
		two := b.note("ann")
		b.sees("ann", events.ID{}, two)
	}},
	{name: "everything after the offset, confirmed or not, and nothing before it", test: func(b *bench) {
		one, two, three := b.note("ann"), b.note("ann"), b.note("ann")
		page := b.sees("ann", one, two, three)
		same(b, "recovered", page.Recovered, true)
		same(b, "place", page.Place, three)
		b.confirm("ann", three)
		b.restart()
		b.sees("ann", one, two, three)
		b.sees("ann", three)
	}},
	{name: "what came since the socket took its place is seen, confirmed or not", test: func(b *bench) {
		b.note("ann")
		since := b.note("ann")
		three, four := b.note("ann"), b.note("ann")
		b.confirm("ann", four)
		recs, first := b.replay(delivery.Query{UserID: "ann", Since: since})
		same(b, "places", places(recs), []events.ID{three, four})
		same(b, "place", first.Place, four)
		recs, _ = b.replay(delivery.Query{UserID: "ann", Since: since, Offset: events.ID{Ms: 1}, HasOffset: true})
		same(b, "places", places(recs), []events.ID{three, four})
	}},
	{name: "what the caller knows of the cursor counts", test: func(b *bench) {
		one, two, three := b.note("ann"), b.note("ann"), b.note("ann")
		recs, _ := b.replay(delivery.Query{UserID: "ann", Since: three, Confirmed: one})
		same(b, "places", places(recs), []events.ID{two, three})
	}},
	{name: "an offset counts only if the log has that message", limits: delivery.Limits{Messages: 3}, test: func(b *bench) {
		var ids []events.ID
		for range 5 {
			ids = append(ids, b.note("ann"))
			b.advance(time.Second)
		}
		at := b.progress("ann", "1")
		b.confirm("ann", ids[2])
		b.restart()
		for _, c := range []struct {
			offset    events.ID
			recovered bool
			want      []events.ID
		}{
			{ids[0], false, []events.ID{ids[3], ids[4], at}},
			{ids[1], false, []events.ID{ids[3], ids[4], at}},
			{ids[2], true, []events.ID{ids[3], ids[4], at}},
			{ids[4], true, []events.ID{at}},
			{at, false, []events.ID{ids[3], ids[4], at}}, // the place of progress is no id
			{events.ID{Ms: ids[3].Ms, Seq: ids[3].Seq + 1}, false, []events.ID{ids[3], ids[4], at}},
			{events.ID{Ms: 1 << 63}, false, []events.ID{ids[3], ids[4], at}},
		} {
			if page := b.sees("ann", c.offset, c.want...); page.Recovered != c.recovered {
				b.Fatalf("offset %s: recovered %v", c.offset, page.Recovered)
			}
		}
	}},
	{name: "an offset of another user does not count", test: func(b *bench) {
		other := b.note("bob")
		b.advance(time.Second)
		id := b.note("ann")
		same(b, "recovered", b.sees("ann", other, id).Recovered, false)
	}},
	{name: "the latest progress of every unfinished job, always", test: func(b *bench) {
		running := b.progress("ann", "1")
		b.progress("ann", "2")
		done := b.complete("2")
		b.confirm("ann", done)
		b.restart()
		b.sees("ann", events.ID{}, running)
		b.sees("ann", done, running)
		failed := b.accept("ann", entry(events.Failed, "1", attempt(1))).Place
		b.confirm("ann", failed)
		b.sees("ann", events.ID{})
		again := b.progress("ann", "1", attempt(2))
		b.sees("ann", events.ID{}, again)
	}},
	{name: "a stalled job's state follows its progress when its message is not replayed", test: func(b *bench) {
		at := b.progress("ann", "1", staleAfter(time.Minute))
		other := b.progress("ann", "2")
		b.advance(time.Hour)
		same(b, "stalled", b.stall(), 1)
		stalled := b.follow("ann")
		recs, _ := b.replay(delivery.Query{UserID: "ann", Since: stalled})
		same(b, "places", places(recs), []events.ID{at, other, stalled})
		same(b, "a message", recs[2].Message, true)
		b.confirm("ann", stalled)
		b.restart()
		recs, _ = b.replay(delivery.Query{UserID: "ann", Since: stalled})
		same(b, "places", places(recs), []events.ID{at, other, stalled})
		same(b, "state", recs[2], delivery.Record{
			Place: stalled, Name: events.JobStalled, Data: []byte(`{"jobId":"1","lastEventAt":"2026-01-02T03:04:05.000Z"}`),
		})
		recs, _ = b.replay(delivery.Query{UserID: "ann", Since: events.ID{}})
		same(b, "since before it: a message", recs[2].Message, true)
		again := b.progress("ann", "1")
		b.sees("ann", stalled, other, again)
	}},
	{name: "pages are bounded by number and by bytes", test: func(b *bench) {
		var want []events.ID
		padding := strings.Repeat("x", 100)
		for i := range 30 {
			want = append(want, b.note("ann", data(fmt.Sprintf(`{"n":%d,"x":%q}`, i, padding))))
			want = append(want, b.progress("ann", fmt.Sprint(i), data(fmt.Sprintf(`{"p":%d,"x":%q}`, i, padding))))
		}
		for _, q := range []delivery.Query{
			{Limit: 7, Bytes: 1 << 20}, {Limit: 1, Bytes: 1 << 20}, {Limit: 100, Bytes: 500}, {Limit: 100, Bytes: 1}, {Limit: 60, Bytes: 1 << 20},
		} {
			q.UserID = "ann"
			recs, _ := b.replay(q)
			if got := places(recs); !slices.Equal(got, want) {
				b.Fatalf("limit %d, bytes %d: %v", q.Limit, q.Bytes, got)
			}
		}
	}},
	{name: "a replay shows what was when it began", test: func(b *bench) {
		one, two := b.note("ann"), b.note("ann")
		moves := b.progress("ann", "moves")
		stays := b.progress("ann", "stays")
		q := delivery.Query{UserID: "ann", Limit: 1, Bytes: 1 << 20}
		page, err := b.store.Read(context.Background(), q)
		if err != nil || len(page.Records) != 1 || page.Records[0].Place != one || page.Next == nil {
			b.Fatalf("%+v, %v", page, err)
		}
		b.progress("ann", "moves")
		three := b.note("ann")
		b.confirm("ann", three)
		q.Next = page.Next
		recs, first := b.replay(q)
		same(b, "goes on with", places(recs), []events.ID{two, stays})
		same(b, "place", first.Place, stays)
		_ = moves // its newer progress comes live
	}},
}

var listRules = []behaviour{
	{name: "jobs are listed by their latest change", test: func(b *bench) {
		for _, job := range []string{"1", "2", "3", "4"} {
			b.progress("ann", job)
		}
		b.complete("2")
		b.progress("ann", "1")
		b.note("ann")
		b.restart()
		var got []string
		for _, j := range b.jobs() {
			got = append(got, j.JobID)
		}
		same(b, "jobs", got, []string{"1", "2", "4", "3"})
		page, err := b.store.Jobs(context.Background(), delivery.JobsQuery{UserID: "ann", Limit: 2})
		same(b, "error", err, nil)
		same(b, "place", page.Place, b.follow("ann"))
		same(b, "jobs", len(page.Jobs), 2)
		rest, err := b.store.Jobs(context.Background(), delivery.JobsQuery{UserID: "ann", Limit: 2, Before: page.Next})
		same(b, "error", err, nil)
		same(b, "jobs", []string{rest.Jobs[0].JobID, rest.Jobs[1].JobID}, []string{"4", "3"})
		same(b, "next", rest.Next, events.ID{})
	}},
	{name: "a page ends at its bytes, and one job always fits", test: func(b *bench) {
		big := data(`"` + strings.Repeat("x", delivery.MaxJobsBytes*2/5) + `"`)
		huge := data(`"` + strings.Repeat("x", delivery.MaxJobsBytes+1) + `"`)
		b.progress("ann", "1", big)
		b.progress("ann", "2", big)
		b.complete("3", big)
		b.complete("4", huge)
		var got []int
		for q := (delivery.JobsQuery{UserID: "ann", Limit: 50}); ; {
			page, err := b.store.Jobs(context.Background(), q)
			same(b, "error", err, nil)
			got = append(got, len(page.Jobs))
			if q.Before = page.Next; q.Before.IsZero() {
				break
			}
		}
		same(b, "pages", got, []int{1, 2, 1})
	}},
	{name: "who has no jobs has an empty page", test: func(b *bench) {
		page, err := b.store.Jobs(context.Background(), delivery.JobsQuery{UserID: "ann", Limit: 50})
		same(b, "page", page, delivery.JobsPage{})
		same(b, "error", err, nil)
	}},
}
