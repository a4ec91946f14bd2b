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

// slowJobs lets questions be on their way to the store for a while, and answers on their way back.
type slowJobs struct {
	delivery.Store
	there, back func()
}

func (s slowJobs) Jobs(ctx context.Context, q delivery.JobsQuery) (delivery.JobsPage, error) {
	if s.there != nil {
		s.there()
	}
	page, err := s.Store.Jobs(ctx, q)
	if s.back != nil {
		s.back()
	}
	return page, err
}

func TestJobsInOrder(t *testing.T) {
	for _, c := range []struct {
		name        string
		limit       int
		before      func(w *world) // the question
		there, back func(w *world) // the question, or the answer of the store, is on its way
		after       func(w *world) // the client has its answer
		want        string         // what the socket gets
	}{
		{
			name:   "what happened before",
			before: func(w *world) { w.publish(progress("1", `1`)); w.publish(completed("2", `2`)) },
			after:  func(w *world) { w.publish(note(`3`)) },
			want:   "progress1 completed2 answer(2:completed,1:running) note3",
		},
		{
			name:   "an end that is in the answer is shown before it",
			before: func(w *world) { w.publish(progress("1", `1`)) },
			there:  func(w *world) { w.publish(completed("1", `2`)) },
			want:   "progress1 completed2 answer(1:completed)",
		},
		{
			name:   "an end that is not in the answer is shown after it",
			before: func(w *world) { w.publish(progress("1", `1`)) },
			back:   func(w *world) { w.publish(completed("1", `2`)) },
			want:   "progress1 answer(1:running) completed2",
		},
		{
			name:   "new attempts",
			before: func(w *world) { w.publish(attempt(1, completed("1", `1`))) },
			there:  func(w *world) { w.publish(attempt(2, progress("1", `2`))) },
			back:   func(w *world) { w.publish(attempt(3, completed("1", `3`))) },
			want:   "completed1 progress2 answer(1:running) completed3",
		},
		{
			name:   "jobs that are new",
			before: func(w *world) { w.publish(progress("1", `1`)) },
			there:  func(w *world) { w.publish(progress("2", `2`)) },
			back:   func(w *world) { w.publish(progress("3", `3`)) },
			want:   "progress1 progress2 answer(2:running,1:running) progress3",
		},
		{
			name:   "messages",
			before: func(w *world) { w.publish(progress("1", `1`)) },
			there:  func(w *world) { w.publish(note(`2`)) },
			back:   func(w *world) { w.publish(note(`3`)) },
			want:   "progress1 note2 answer(1:running) note3",
		},
		{
			name:   "progress that is held back comes later, if it is not older than the answer",
			before: func(w *world) { w.publish(progress("1", `1`)) },
			there:  func(w *world) { w.publish(progress("1", `2`)) },
			back:   func(w *world) { w.publish(progress("1", `3`)) },
			after:  func(*world) { time.Sleep(time.Second) },
			want:   "progress1 answer(1:running) progress3",
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
			there:  func(w *world) { w.publish(completed("1", `3`)) },
			want:   "progress1 progress2 completed3 answer(1:completed)",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ref := newReference()
				w := &world{T: t, ref: ref, store: ref.open(), hub: newHub()}
				var calls sync.WaitGroup
				meanwhile := func(happens func(w *world)) func() {
					return func() {
						if happens != nil {
							calls.Go(func() { happens(w) })
							synctest.Wait()
						}
					}
				}
				store := slowJobs{w.store, meanwhile(c.there), meanwhile(c.back)}
				w.Service = delivery.New(delivery.Config{Coalesce: interval, Logger: quiet}, store, w.hub)
				k := w.socket("ann")
				w.connect(k)
				c.before(w)
				if _, err := w.ask(context.Background(), k, max(c.limit, 1+9*(1-c.limit))); err != nil {
					t.Error(err)
				}
				calls.Wait()
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

// However fast a job changes, a question is answered, and the stream waits no longer for it than the store takes.
func TestJobsThatNeverPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ref := newReference()
		w := &world{T: t, ref: ref, store: ref.open(), hub: newHub()}
		store := slowJobs{Store: w.store, back: func() { time.Sleep(5 * time.Millisecond) }}
		w.Service = delivery.New(delivery.Config{Logger: quiet}, store, w.hub)
		k := w.socket("ann")
		w.connect(k)
		ctx, cancel := context.WithCancel(context.Background())
		var worker sync.WaitGroup
		worker.Go(func() {
			for i := 1; ctx.Err() == nil; i++ {
				start := time.Now()
				w.publish(progress("1", fmt.Sprint(i)))
				if took := time.Since(start); took > 6*time.Millisecond {
					t.Errorf("a worker had to wait for %s", took)
				}
				time.Sleep(time.Millisecond)
			}
		})
		for range 20 {
			time.Sleep(17 * time.Millisecond)
			start := time.Now()
			_, err := w.ask(context.Background(), k, 10)
			if took := time.Since(start); err != nil || took > 10*time.Millisecond {
				t.Fatalf("%v after %s", err, took)
			}
			var before frame // of which the answer must not be older; nothing older follows
			for _, f := range k.frames() {
				switch {
				case f.page == nil:
					before = f
				case string(f.page.Jobs[0].Progress) != before.data:
					t.Errorf("after %s the answer is %s", before.data, f.page.Jobs[0].Progress)
				}
			}
		}
		cancel()
		worker.Wait()
		w.bye(k)
		w.end()
		w.idle()
	})
}

// A store that does not answer questions holds up neither others for longer than a second, nor Close.
func TestJobsOfAStoreThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ref := newReference()
		ref.on = func(ctx context.Context, op, _ string) error {
			if op == "jobs" {
				<-ctx.Done()
			}
			return ctx.Err()
		}
		w := beginOn(t, delivery.Config{}, ref)
		k := w.socket("ann")
		w.connect(k)
		var calls sync.WaitGroup
		ask := func(want error, in time.Duration) {
			calls.Go(func() {
				start := time.Now()
				if _, err := w.ask(context.Background(), k, 10); !errors.Is(err, want) || time.Since(start) != in {
					t.Errorf("%v after %s", err, time.Since(start))
				}
			})
			synctest.Wait()
		}
		ask(delivery.ErrStoreUnavailable, time.Second)
		start := time.Now()
		if w.publish(note(`1`)); time.Since(start) != time.Second {
			t.Errorf("a worker had to wait for %s", time.Since(start))
		}
		ask(delivery.ErrClosed, 0)
		w.end()
		calls.Wait()
		if got := names(k.frames()); time.Since(start) != time.Second || got != "answer() note1 answer()" {
			t.Errorf("the socket got %s, closed after %s", got, time.Since(start))
		}
		if _, err := w.ask(context.Background(), k, 10); !errors.Is(err, delivery.ErrClosed) {
			t.Errorf("a service that is closed: %v", err)
		}
		w.bye(k)
		w.idle()
	})
}

func TestJobsForASocketThatIsGone(t *testing.T) {
	w := begin(t, delivery.Config{})
	k := w.socket("ann")
	w.connect(k)
	w.bye(k)
	if _, err := w.ask(context.Background(), k, 10); !errors.Is(err, delivery.ErrSinkClosed) {
		t.Error(err)
	}
	w.end()
}
