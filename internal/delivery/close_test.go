package delivery_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"jobwire/internal/delivery"
	"jobwire/internal/events"
)

func TestCloseRefusesFlushesAndKeepsReceipts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := begin(t, delivery.Config{Coalesce: time.Minute, WriteBehind: time.Hour})
		k := w.socket("ann")
		w.connect(k)
		w.publish(progress("1", `1`))
		w.publish(progress("1", `2`))
		w.publish(progress("2", `3`))
		w.publish(progress("2", `4`))
		last := w.publish(note(`5`))
		w.Confirmed("ann", last.ID)
		w.end()
		if got := names(k.frames()); got != `progress1 progress3 note5 progress2 progress4` {
			t.Errorf("the socket got %s", got)
		}
		if up := w.ref.user("ann").confirmed(); up != last.ID {
			t.Errorf("the store knows of receipts up to %s, want %s", up, last.ID)
		}
		ctx := context.Background()
		_, err := w.Publish(ctx, note(`6`))
		_, batch := w.PublishBatch(ctx, []events.Event{note(`6`)})
		_, _, _, wait := w.PublishAndWait(ctx, note(`6`), time.Second)
		_, jobs := w.Jobs(ctx, delivery.JobsQuery{UserID: "ann", Limit: 1})
		_, disconnect := w.Disconnect(ctx, "ann", "why")
		late := w.socket("ann")
		_, open := w.Open(ctx, late)
		w.bye(late)
		for name, err := range map[string]error{"publish": err, "batch": batch, "wait": wait, "jobs": jobs, "disconnect": disconnect, "open": open} {
			if !errors.Is(err, delivery.ErrClosed) {
				t.Errorf("%s after close: %v", name, err)
			}
		}
		w.bye(k)
		w.end() // once more does nothing
	})
}

func TestCloseEndsQuestionsThatWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ref := newReference()
		ref.lag = func() time.Duration { return time.Minute }
		w := beginOn(t, delivery.Config{}, ref)
		k := w.socket("ann")
		w.connect(k)
		w.publish(note(`1`))
		var calls sync.WaitGroup
		calls.Go(func() {
			if _, err := w.ask(context.Background(), k, 1); !errors.Is(err, delivery.ErrClosed) {
				t.Error(err)
			}
		})
		synctest.Wait()
		start := time.Now()
		if err := w.Close(context.Background()); err != nil || time.Since(start) != 0 {
			t.Errorf("%v after %s", err, time.Since(start))
		}
		calls.Wait()
		w.bye(k)
		w.store.kill()
	})
}

// A store that hangs holds up neither Close, beyond what its caller allows, nor another call.
func TestCloseOnAStoreThatHangs(t *testing.T) {
	for _, op := range []string{"publish", "read", "confirm", "stall", "sweep", "cursor"} {
		t.Run(op, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ref := newReference()
				release := make(chan struct{})
				ref.on = func(ctx context.Context, at, _ string) error {
					if at == op {
						select {
						case <-ctx.Done():
							return ctx.Err()
						case <-release:
						}
					}
					return nil
				}
				w := beginOn(t, delivery.Config{SweepEvery: time.Second}, ref)
				k := w.socket("ann")
				ctx, cancel := context.WithCancel(context.Background())
				var calls sync.WaitGroup
				calls.Go(func() { _, _ = w.Open(ctx, k) })
				calls.Go(func() { _, _, _, _ = w.PublishAndWait(ctx, note(`1`), 1900*time.Millisecond) })
				time.Sleep(1500 * time.Millisecond)
				w.Confirmed("ann", events.ID{Ms: 1})
				time.Sleep(500 * time.Millisecond)
				if op != "publish" {
					if _, err := w.Publish(ctx, event("bob", "note", "", `1`)); err != nil {
						t.Errorf("another call: %v", err)
					}
				}
				start := time.Now()
				patience, stop := context.WithTimeout(context.Background(), 3*time.Second)
				defer stop()
				err := w.Close(patience)
				took := time.Since(start)
				switch op {
				case "publish", "read", "confirm":
					if !errors.Is(err, context.DeadlineExceeded) || took != 3*time.Second {
						t.Errorf("close: %v after %s", err, took)
					}
				default:
					if err != nil || took > time.Second {
						t.Errorf("close: %v after %s", err, took)
					}
				}
				cancel()
				close(release)
				calls.Wait()
				w.bye(k)
				time.Sleep(time.Minute)
				w.store.kill()
			})
		})
	}
}
