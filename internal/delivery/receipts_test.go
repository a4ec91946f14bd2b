package delivery_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"jobwire/internal/delivery"
	"jobwire/internal/events"
)

func TestWaitForDelivery(t *testing.T) {
	const limit = 5 * time.Second
	type outcome struct {
		status            delivery.Status
		delivered, waited bool
		took              time.Duration
	}
	for _, c := range []struct {
		name   string
		before func(w *world, k *sink) // before the call
		during func(w *world, k *sink) // a second later
		ev     events.Event
		want   outcome
	}{
		{name: "never confirmed", ev: note(`1`), want: outcome{delivery.StatusSent, false, true, limit}},
		{
			name: "confirmed", ev: note(`1`), want: outcome{delivery.StatusSent, true, true, time.Second},
			during: func(w *world, k *sink) { w.Confirmed("ann", k.frames()[0].id) },
		},
		{
			name: "confirmed before the emission returns", ev: note(`1`), want: outcome{delivery.StatusSent, true, true, 0},
			before: func(w *world, _ *sink) { w.hub.then(func(user string, f frame) { w.Confirmed(user, f.id) }) },
		},
		{
			name: "a newer one confirmed", ev: note(`1`), want: outcome{delivery.StatusSent, true, true, time.Second},
			during: func(w *world, _ *sink) { w.Confirmed("ann", w.publish(note(`2`)).ID) },
		},
		{
			name: "an older one confirmed", ev: note(`1`), want: outcome{delivery.StatusSent, false, true, limit},
			before: func(w *world, _ *sink) { w.publish(note(`0`)) },
			during: func(w *world, k *sink) { w.Confirmed("ann", k.frames()[0].id) },
		},
		{
			name: "confirmed at another node", ev: note(`1`), want: outcome{delivery.StatusSent, true, true, time.Second},
			during: func(w *world, k *sink) {
				_ = w.store.Confirm(context.Background(), []delivery.Cursor{{UserID: "ann", Confirmed: k.frames()[0].id}})
			},
		},
		{
			name: "confirmed at another node, without news of it", ev: note(`1`), want: outcome{delivery.StatusSent, true, true, limit},
			during: func(w *world, k *sink) {
				w.ref.mu.Lock()
				defer w.ref.mu.Unlock()
				w.ref.user("ann").confirms = []refConfirm{{up: k.frames()[0].id}}
			},
		},
		{
			name: "the store does not answer at the end", ev: note(`1`), want: outcome{delivery.StatusSent, false, true, limit},
			during: func(w *world, _ *sink) {
				w.ref.set(func(r *reference) { r.on = func(_ context.Context, op, _ string) error { return errors.New(op) } })
			},
		},
		{
			name: "dropped meanwhile", ev: note(`1`), want: outcome{delivery.StatusSent, false, true, time.Second},
			during: func(w *world, _ *sink) {
				for range 5 {
					w.publish(note(`2`))
				}
			},
		},
		{
			name: "a repeat of what is confirmed", ev: keyed("k", note(`1`)), want: outcome{delivery.StatusSent, true, true, 0},
			before: func(w *world, _ *sink) {
				w.Confirmed("ann", w.publish(keyed("k", note(`1`))).ID)
				time.Sleep(time.Second)
			},
		},
		{
			name: "a repeat of what was confirmed just now", ev: keyed("k", note(`1`)), want: outcome{delivery.StatusSent, true, true, 0},
			before: func(w *world, _ *sink) { w.Confirmed("ann", w.publish(keyed("k", note(`1`))).ID) },
		},
		{
			name: "a repeat that is confirmed", ev: keyed("k", note(`1`)), want: outcome{delivery.StatusSent, true, true, time.Second},
			before: func(w *world, _ *sink) { w.publish(keyed("k", note(`1`))) },
			during: func(w *world, k *sink) { w.Confirmed("ann", k.frames()[0].id) },
		},
		{name: "progress", ev: progress("1", `1`), want: outcome{delivery.StatusSent, false, false, 0}},
		{
			name: "progress that is held back", ev: progress("1", `2`), want: outcome{delivery.StatusCoalesced, false, false, 0},
			before: func(w *world, _ *sink) { w.publish(progress("1", `1`)) },
		},
		{
			name: "ignored", ev: attempt(1, completed("1", `2`)), want: outcome{delivery.StatusIgnored, false, false, 0},
			before: func(w *world, _ *sink) { w.publish(attempt(2, progress("1", `1`))) },
		},
		{
			name: "no socket, then one that confirms", ev: note(`1`), want: outcome{delivery.StatusStored, true, true, time.Second},
			before: func(w *world, k *sink) { w.bye(k) },
			during: func(w *world, _ *sink) {
				k := w.socket("ann")
				w.connect(k)
				w.Confirmed("ann", k.frames()[0].id)
				w.bye(k)
			},
		},
		{
			name: "no socket, then one that says it has seen it", ev: note(`1`), want: outcome{delivery.StatusSent, true, true, time.Second},
			during: func(w *world, k *sink) {
				other := w.socket("ann")
				other.offset, other.has = k.frames()[0].id.String(), true
				w.connect(other)
				w.bye(other)
			},
		},
		{
			name: "the service closes", ev: note(`1`), want: outcome{delivery.StatusSent, false, true, time.Second},
			during: func(w *world, _ *sink) { w.end() },
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ref := newReference()
				ref.limits.Messages = 4
				w := beginOn(t, delivery.Config{Coalesce: interval}, ref)
				k := w.socket("ann")
				w.connect(k)
				if c.before != nil {
					c.before(w, k)
				}
				var during sync.WaitGroup
				if c.during != nil {
					during.Go(func() { time.Sleep(time.Second); c.during(w, k) })
				}
				start := time.Now()
				res, delivered, waited, err := w.PublishAndWait(context.Background(), c.ev, limit)
				if got := (outcome{res.Status, delivered, waited, time.Since(start)}); err != nil || got != c.want {
					t.Errorf("%+v, %v, want %+v", got, err, c.want)
				}
				during.Wait()
				time.Sleep(time.Second)
				if !k.gone {
					w.bye(k)
				}
				w.ref.set(func(r *reference) { r.on = nil })
				time.Sleep(time.Second)
				w.idle()
				w.end()
			})
		})
	}
}

func TestReceiptsAreWrittenBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d doors
		ref := newReference()
		calls := 0
		ref.on = func(ctx context.Context, op, user string) error {
			if op == "confirm" {
				calls++
			}
			return d.on(ctx, op, user)
		}
		w := beginOn(t, delivery.Config{}, ref)
		at := func(user string) uint64 {
			ref.mu.Lock()
			defer ref.mu.Unlock()
			return ref.user(user).confirmed().Ms
		}
		d.close("confirm")
		for ms := range uint64(10) {
			w.Confirmed("ann", events.ID{Ms: ms})
		}
		time.Sleep(time.Second)
		w.Confirmed("ann", events.ID{Ms: 20}) // as the one before is being written
		d.open("confirm")
		synctest.Wait()
		if ms := at("ann"); ms != 20 {
			t.Errorf("confirmed up to %d", ms)
		}
		if calls != 2 {
			t.Errorf("%d calls", calls)
		}
		for i := range 300 {
			w.Confirmed(fmt.Sprint("user", i), events.ID{Ms: 1})
		}
		time.Sleep(time.Second)
		if at("user0") != 1 || at("user299") != 1 || calls != 5 {
			t.Errorf("%d calls for 300 users more", calls)
		}
		w.idle()
		w.end()
	})
}

func TestOnReceipt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []time.Duration
		w := begin(t, delivery.Config{OnReceipt: func(d time.Duration) { told = append(told, d) }})
		id := w.publish(note(`1`)).ID
		time.Sleep(20 * time.Millisecond)
		w.Confirmed("ann", id)
		w.Confirmed("ann", id)
		time.Sleep(time.Hour)
		k := w.back("ann", id.String()) // seen long ago
		w.connect(k)
		w.Confirmed("ann", events.ID{})
		w.Confirmed("bob", events.ID{Ms: 1 << 62}) // from the future
		if fmt.Sprint(told) != "[20ms 0s]" || w.Stats().Receipts.Load() != 4 {
			t.Errorf("told %v, %d receipts", told, w.Stats().Receipts.Load())
		}
		w.bye(k)
		w.end()
	})
}

func TestACallerThatGoesAwayEndsItsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := begin(t, delivery.Config{})
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		start := time.Now()
		_, delivered, waited, err := w.PublishAndWait(ctx, note(`1`), time.Minute)
		if delivered || !waited || err != nil || time.Since(start) != time.Second {
			t.Errorf("delivered %v, waited %v, %v after %s", delivered, waited, err, time.Since(start))
		}
		w.idle()
		w.end()
	})
}
