package storetest

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"jobwire/internal/delivery"
	"jobwire/internal/events"
)

var feedRules = []behaviour{
	{name: "what is accepted is told, what is not is not", test: func(b *bench) {
		one := b.accept("ann", entry(events.Progress, "1", data(`{"p":1}`)))
		two := b.accept("ann", entry(events.Completed, "1", key("k", 1)))
		b.publish("ann", entry(events.Progress, "1"), entry(events.Completed, "1", key("k", 1)), entry(events.Completed, "1", key("k", 2)))
		same(b, "places", b.feed.heard(b.T, "ann"), []events.ID{one.Place, two.Place})
		told := b.feed.told["ann"]
		for i := range told {
			told[i].Emission = nil
		}
		same(b, "deliveries", told, []delivery.Delivery{
			{UserID: "ann", Place: one.Place, Name: events.JobProgress, Data: []byte(`{"p":1}`), Kind: events.Progress, JobID: "1"},
			{UserID: "ann", Place: two.Place, Prev: one.Place, Name: events.JobCompleted, Data: []byte(`{}`), Kind: events.Completed, JobID: "1"},
		})
	}},
	{name: "a publisher is told what became of its events at all feeds", test: func(b *bench) {
		b.feed.sockets = 3
		other := newFeed()
		other.sockets = 4
		cancel := b.store.Subscribe(other)
		same(b, "sockets", b.accept("ann", entry(events.Message, "")).Sockets, 7)
		same(b, "sockets", b.accept("ann", entry(events.Progress, "1")).Sockets, 7)
		cancel()
		same(b, "sockets", b.accept("ann", entry(events.Message, "")).Sockets, 3)
		same(b, "heard", len(other.heard(b.T, "ann")), 2)
	}},
	{name: "sockets are disconnected through the feeds", test: func(b *bench) {
		b.feed.sockets = 3
		n, err := b.store.Disconnect(context.Background(), "ann", "rude")
		same(b, "sockets", n, 3)
		same(b, "error", err, nil)
		b.feed.mu.Lock()
		defer b.feed.mu.Unlock()
		same(b, "reason", b.feed.gone["ann"], "rude")
	}},
	{name: "a raised cursor is told", test: func(b *bench) {
		one, two := b.note("ann"), b.note("ann")
		b.confirm("ann", one)
		b.feed.mu.Lock()
		same(b, "cursor", b.feed.confirmed["ann"], one)
		b.feed.mu.Unlock()
		b.confirm("ann", events.ID{Ms: 1 << 50})
		b.feed.mu.Lock()
		same(b, "cursor", b.feed.confirmed["ann"], two)
		b.feed.mu.Unlock()
	}},
	{name: "many publish at once, and every feed hears all in order", limits: delivery.Limits{Messages: 10_000}, test: func(b *bench) {
		const workers, each, users = 64, 30, 3
		another := b.store
		if b.harness.Another != nil {
			another = b.harness.Another()
		}
		second := newFeed()
		another.Subscribe(second)
		for u := range users {
			for _, store := range []delivery.Store{b.store, another} {
				if _, err := store.Follow(context.Background(), fmt.Sprint("user", u)); err != nil {
					b.Fatal(err)
				}
			}
		}
		accepted := make([][]events.ID, workers)
		var wg sync.WaitGroup
		for w := range workers {
			store := []delivery.Store{b.store, another}[w/users%2]
			wg.Go(func() {
				user := fmt.Sprint("user", w%users)
				for i := range each {
					entries := []delivery.Entry{entry(events.Kind(i%2), fmt.Sprint(w))}
					if i%5 == 0 {
						entries = append(entries, entry(events.Message, ""), entry(events.Progress, fmt.Sprint("x", w)))
					}
					ds, err := store.Publish(context.Background(), user, entries)
					if err != nil {
						b.Error(err)
						return
					}
					for _, d := range ds {
						accepted[w] = append(accepted[w], d.Place)
					}
				}
			})
		}
		// Readers, receipts and sweeps in the middle of it must not disturb; what a reader sees has been told.
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
				page, err := b.store.Read(context.Background(), delivery.Query{UserID: user, Limit: 50, Bytes: 1 << 20})
				if err != nil {
					b.Error(err)
				}
				b.feed.mu.Lock()
				if told := b.feed.told[user]; !page.Place.IsZero() && (len(told) == 0 || told[len(told)-1].Place.Compare(page.Place) < 0) {
					b.Errorf("a replay as of %s came before its events", page.Place)
				}
				b.feed.mu.Unlock()
				place, err := b.store.Follow(context.Background(), user)
				if err != nil {
					b.Error(err)
				}
				b.store.Unfollow(user)
				b.feed.mu.Lock()
				if told := b.feed.told[user]; !place.IsZero() && !slices.ContainsFunc(told, func(d delivery.Delivery) bool { return d.Place == place }) {
					b.Errorf("the place %s was given before its event", place)
				}
				b.feed.mu.Unlock()
				jobs, err := b.store.Jobs(context.Background(), delivery.JobsQuery{UserID: user, Limit: 50})
				if err != nil || jobs.Place.Compare(place) < 0 {
					b.Error(jobs.Place, place, err)
				}
				b.confirm(user, place)
				if _, err := b.store.Sweep(context.Background()); err != nil {
					b.Error(err)
				}
			}
		})
		wg.Wait()
		close(stop)
		readers.Wait()
		for u := range users {
			user := fmt.Sprint("user", u)
			var want []events.ID
			for w := u; w < workers; w += users {
				if !slices.IsSortedFunc(accepted[w], events.ID.Compare) {
					b.Fatalf("worker %d got places that do not rise", w)
				}
				want = append(want, accepted[w]...)
			}
			slices.SortFunc(want, events.ID.Compare)
			for i, f := range []*feed{b.feed, second} {
				if got := f.heard(b.T, user); !slices.Equal(got, want) {
					b.Fatalf("feed %d heard %d of %d of %s, or in another order", i, len(got), len(want), user)
				}
			}
		}
		b.restart()
		for u := range users {
			recs, _ := b.replay(delivery.Query{UserID: fmt.Sprint("user", u)})
			n := 0
			for _, r := range recs {
				if r.Message {
					n++
				}
			}
			messages := 0
			for w := u; w < workers; w += users {
				messages += each/2 + each/5
			}
			same(b, "messages", n, messages)
		}
	}},
	{name: "one key used by many at once is accepted once", test: func(b *bench) {
		var mu sync.Mutex
		accepted, got := 0, map[events.ID]bool{}
		var wg sync.WaitGroup
		for range 32 {
			wg.Go(func() {
				d := b.publish("ann", entry(events.Message, "", key("k", 1)))[0]
				mu.Lock()
				defer mu.Unlock()
				got[d.Place] = true
				if d.Verdict == delivery.Accepted {
					accepted++
				}
			})
		}
		wg.Wait()
		if accepted != 1 || len(got) != 1 {
			b.Fatalf("accepted %d times at %d places", accepted, len(got))
		}
		same(b, "told", len(b.feed.heard(b.T, "ann")), 1)
	}},
	{name: "a cancelled feed is told nothing more", test: func(b *bench) {
		other := newFeed()
		cancel := b.store.Subscribe(other)
		stop := make(chan struct{})
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
						b.publish("ann", entry(events.Progress, "1"))
					}
				}
			})
		}
		for len(b.feedPlaces(other)) == 0 {
			b.note("ann")
		}
		cancel()
		n := len(b.feedPlaces(other))
		b.note("ann")
		close(stop)
		wg.Wait()
		same(b, "told", len(b.feedPlaces(other)), n)
	}},
}

func (b *bench) feedPlaces(f *feed) (ids []events.ID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, d := range f.told["ann"] {
		ids = append(ids, d.Place)
	}
	return ids
}
