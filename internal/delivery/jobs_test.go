package delivery_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"jobwire/internal/delivery"
	"jobwire/internal/events"
)

// ask lets the client of a socket ask for its jobs. The answer becomes a frame of its own among what the socket gets.
func (w *world) ask(ctx context.Context, k *sink, limit int) (page delivery.JobsPage, err error) {
	answers := 0
	q := delivery.JobsQuery{UserID: k.user, Limit: limit}
	w.JobsInOrder(ctx, q, func(p delivery.JobsPage, e error) {
		answers++
		page, err = p, e
		k.answer(p)
	})
	if answers != 1 {
		w.Errorf("%d answers", answers)
	}
	return page, err
}

// answer queues the answer to a question.
func (k *sink) answer(page delivery.JobsPage) {
	var jobs []string
	for _, j := range page.Jobs {
		jobs = append(jobs, fmt.Sprintf("%s:%s", j.JobID, j.State))
	}
	f := frame{name: "answer", data: "(" + strings.Join(jobs, ",") + ")", page: &page}
	k.mu.Lock()
	k.take(f)
	k.mu.Unlock()
	if k.onFrame != nil {
		k.onFrame(f)
	}
}

// lateJobs lets answers of Jobs be on their way for a while.
type lateJobs struct {
	delivery.Store
	back func()
}

func (l lateJobs) Jobs(ctx context.Context, q delivery.JobsQuery) (delivery.JobsPage, error) {
	page, err := l.Store.Jobs(ctx, q)
	l.back()
	return page, err
}

func TestJobsInOrder(t *testing.T) {
	for _, c := range []struct {
		name   string
		limit  int
		before func(w *world) // the question
		during func(w *world) // the answer of the store is on its way, for the first time
		after  func(w *world) // the client has its answer
		want   string         // what the socket gets
	}{
		{
			name:   "what happened before",
			before: func(w *world) { w.publish(progress("1", `1`)); w.publish(completed("2", `2`)) },
			after:  func(w *world) { w.publish(note(`3`)) },
			want:   "progress1 completed2 answer(2:completed,1:running) note3",
		},
		{
			name:   "an end that is shown before the answer is in the answer",
			before: func(w *world) { w.publish(progress("1", `1`)) },
			during: func(w *world) { w.publish(completed("1", `2`)) },
			want:   "progress1 completed2 answer(1:completed)",
		},
		{
			name:   "so is a new attempt",
			before: func(w *world) { w.publish(attempt(1, completed("1", `1`))) },
			during: func(w *world) { w.publish(attempt(2, progress("1", `2`))) },
			want:   "completed1 progress2 answer(1:running)",
		},
		{
			name:   "so is a job that is new",
			before: func(w *world) { w.publish(progress("1", `1`)) },
			during: func(w *world) { w.publish(progress("2", `2`)) },
			want:   "progress1 progress2 answer(2:running,1:running)",
		},
		{
			name:   "messages before the answer do not matter",
			before: func(w *world) { w.publish(progress("1", `1`)) },
			during: func(w *world) { w.publish(note(`2`)) },
			want:   "progress1 note2 answer(1:running)",
		},
		{
			name:   "progress that is held back comes later, if it is not older than the answer",
			before: func(w *world) { w.publish(progress("1", `1`)) },
			during: func(w *world) { w.publish(progress("1", `2`)) },
			after:  func(*world) { time.Sleep(time.Second) },
			want:   "progress1 answer(1:running) progress2",
		},
		{
			name:  "progress that is held back of a job that is not in the answer",
			limit: 1,
			before: func(w *world) {
				w.publish(progress("1", `1`))
				w.publish(progress("1", `2`))
				w.publish(progress("2", `3`))
			},
			after: func(*world) { time.Sleep(time.Second) },
			want:  "progress1 progress3 answer(2:running) progress2",
		},
		{
			name:   "an end flushes what was held back, before the answer",
			before: func(w *world) { w.publish(progress("1", `1`)); w.publish(progress("1", `2`)) },
			during: func(w *world) { w.publish(completed("1", `3`)) },
			want:   "progress1 progress2 completed3 answer(1:completed)",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ref := newReference()
				w := &world{T: t, ref: ref, store: ref.open(), hub: newHub()}
				var once sync.Once
				store := lateJobs{w.store, func() {
					once.Do(func() {
						if c.during != nil {
							c.during(w)
						}
					})
				}}
				w.Service = delivery.New(delivery.Config{Coalesce: interval, Logger: quiet}, store, w.hub)
				k := w.socket("ann")
				w.connect(k)
				c.before(w)
				if _, err := w.ask(context.Background(), k, max(c.limit, 1+9*(1-c.limit))); err != nil {
					t.Error(err)
				}
				if c.after != nil {
					c.after(w)
				}
				if got := names(k.frames()); got != c.want {
					t.Errorf("the socket got %q, want %q", got, c.want)
				}
				w.bye(k)
				w.end()
				w.idle()
			})
		})
	}
}

// The answer waits until everything up to the place at which it was read was emitted.
func TestJobsWaitForTheirPlace(t *testing.T) {
	for _, c := range []struct {
		name  string
		setup func(w *world)
	}{
		{"as events are on their way from another node", func(w *world) {
			w.ref.lag = func() time.Duration { return time.Second }
		}},
		{"as the stream is busy", func(w *world) {
			w.hub.then(func(string, frame) { sleep(time.Second) })
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ref := newReference()
				w := &world{T: t, ref: ref, hub: newHub()}
				c.setup(w)
				w.store = ref.open()
				w.Service = delivery.New(delivery.Config{Coalesce: interval, Logger: quiet}, w.store, w.hub)
				k := w.socket("ann")
				w.connect(k)
				for _, ev := range []events.Event{note(`1`), progress("1", `2`), progress("1", `3`), note(`4`), completed("1", `5`)} {
					go w.publish(ev)
					synctest.Wait()
				}
				short, cancel := context.WithTimeout(context.Background(), 3*time.Second)
				defer cancel()
				if _, err := w.ask(short, k, 10); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("a client that does not wait: %v", err)
				}
				if _, err := w.ask(context.Background(), k, 10); err != nil {
					t.Error(err)
				}
				time.Sleep(time.Minute)
				if got, want := names(k.frames()), "completed5 answer(1:completed)"; !strings.HasSuffix(got, want) {
					t.Errorf("the socket got %q, want %q at the end", got, want)
				}
				w.bye(k)
				w.end()
				w.idle()
			})
		})
	}
}

// Progress that is held back has had its turn: the answer does not wait for its emission.
func TestJobsDoNotWaitForWhatIsHeldBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ref := newReference()
		ref.lag = func() time.Duration { return time.Second }
		w := beginOn(t, delivery.Config{Coalesce: time.Hour}, ref)
		k := w.socket("ann")
		w.connect(k)
		w.publish(progress("1", `1`))
		w.publish(progress("1", `2`))
		start := time.Now()
		if page, err := w.ask(context.Background(), k, 10); err != nil || string(page.Jobs[0].Progress) != "2" {
			t.Errorf("%+v, %v", page, err)
		}
		if got := names(k.frames()); got != "progress1 answer(1:running)" || time.Since(start) != 2*time.Second {
			t.Errorf("the socket got %s after %s", got, time.Since(start))
		}
		w.bye(k)
		w.end()
		w.idle()
	})
}

func TestJobsOfWhichThereIsAlwaysNewerEndInAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ref := newReference()
		w := &world{T: t, ref: ref, store: ref.open(), hub: newHub()}
		store := lateJobs{w.store, func() { time.Sleep(time.Second); w.publish(completed("1", `1`)) }}
		w.Service = delivery.New(delivery.Config{Logger: quiet}, store, w.hub)
		k := w.socket("ann")
		w.connect(k)
		start := time.Now()
		if _, err := w.ask(context.Background(), k, 10); code(err) != delivery.CodeStoreUnavailable || time.Since(start) > 12*time.Second {
			t.Errorf("%v after %s", err, time.Since(start))
		}
		w.bye(k)
		w.idle()
		if _, err := w.ask(context.Background(), k, 10); !errors.Is(err, delivery.ErrSinkClosed) {
			t.Errorf("a socket that is gone: %v", err)
		}
		w.end()
		if _, err := w.ask(context.Background(), k, 10); !errors.Is(err, delivery.ErrClosed) {
			t.Errorf("a service that is closed: %v", err)
		}
	})
}
