package storetest

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"jobwire/internal/delivery"
	"jobwire/internal/events"
)

var crowdRules = []behaviour{
	{name: "many publish at once and nothing is lost or twice", limits: delivery.Limits{Events: 10_000}, test: func(b *bench) {
		const workers, each, users = 16, 40, 3
		ids := make([][]events.ID, workers) // of user w%users
		var wg sync.WaitGroup
		for w := range workers {
			wg.Go(func() {
				user := fmt.Sprint("user", w%users)
				for i := range each {
					es := []delivery.Entry{entry(user, "note", "")}
					if i%5 == 0 {
						es = append(es, entry(user, events.JobProgress, fmt.Sprint(w)), entry(user, "note", ""))
					}
					ds, err := b.store.Publish(context.Background(), es)
					if err != nil {
						b.Error(err)
						return
					}
					for j, d := range ds {
						if es[j].Event.Name == "note" {
							ids[w] = append(ids[w], d.ID)
						}
					}
				}
			})
		}
		// Readers and receipts in the middle of it must not disturb.
		stop := make(chan struct{})
		var readers sync.WaitGroup
		readers.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				user := fmt.Sprint("user", n%users)
				if _, err := b.store.Read(context.Background(), delivery.Query{UserID: user, Limit: 50, Bytes: 1 << 20}); err != nil {
					b.Error(err)
				}
				if _, err := b.store.Jobs(context.Background(), user); err != nil {
					b.Error(err)
				}
				if _, err := b.store.Sweep(context.Background()); err != nil {
					b.Error(err)
				}
			}
		})
		wg.Wait()
		close(stop)
		readers.Wait()
		b.restarted()
		for u := range users {
			var want []events.ID
			for w := u; w < workers; w += users {
				if !slices.IsSortedFunc(ids[w], events.ID.Compare) {
					b.Fatalf("worker %d got ids that do not rise", w)
				}
				want = append(want, ids[w]...)
			}
			slices.SortFunc(want, events.ID.Compare)
			if compact := slices.Compact(slices.Clone(want)); len(compact) != len(want) {
				b.Fatal("an id was given out twice")
			}
			recs, _ := b.replay(delivery.Query{UserID: fmt.Sprint("user", u)})
			recs = slices.DeleteFunc(recs, func(r delivery.Record) bool { return !r.Durable })
			if !slices.Equal(idsOf(recs), want) {
				b.Fatalf("user %d: %d records, %d were answered", u, len(recs), len(want))
			}
		}
	}},
	{name: "one key used by many at once is stored once", test: func(b *bench) {
		var mu sync.Mutex
		stored, got := 0, map[events.ID]bool{}
		var wg sync.WaitGroup
		for range 32 {
			wg.Go(func() {
				ds, err := b.store.Publish(context.Background(), []delivery.Entry{entry("ann", "note", "", key("k", 1))})
				if err != nil {
					b.Error(err)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				got[ds[0].ID] = true
				if ds[0].Verdict == delivery.VerdictStored {
					stored++
				}
			})
		}
		wg.Wait()
		if stored != 1 || len(got) != 1 {
			b.Fatalf("stored %d times under %d ids", stored, len(got))
		}
	}},
}
