package delivery_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"jobwire/internal/delivery"
	"jobwire/internal/events"
	"jobwire/internal/store/embedded"
)

func TestPublishAnswersAndEmits(t *testing.T) {
	w := &wire{sockets: 2}
	s := begin(t, delivery.Config{}, w)
	defer end(t, s)
	res := publish(t, s, event("ann", "invoice_ready", "", `{"n":1}`))
	if res.Status != delivery.StatusSent || res.Sockets != 2 || res.ID.IsZero() {
		t.Fatalf("result %+v", res)
	}
	got := w.of("ann")
	if len(got) != 1 || got[0].data != `{"n":1}` || got[0].id != res.ID || !got[0].confirm {
		t.Fatalf("emitted %+v", got)
	}
	publish(t, s, progress("1", 1))
	if got = w.of("ann"); len(got) != 2 || got[1].confirm {
		t.Fatalf("progress asks for a receipt: %+v", got)
	}
}

func TestStatuses(t *testing.T) {
	w := &wire{}
	s := begin(t, delivery.Config{}, w)
	defer end(t, s)
	for _, step := range []struct {
		name    string
		sockets int
		ev      events.Event
		want    delivery.Result
	}{
		{"nobody online", 0, event("ann", "note", "", `1`), delivery.Result{Status: delivery.StatusStored}},
		{"online", 3, event("ann", "note", "", `1`), delivery.Result{Status: delivery.StatusSent, Sockets: 3}},
		{"end", 1, completed("1"), delivery.Result{Status: delivery.StatusSent, Sockets: 1}},
		{"late progress", 1, progress("1", 99), delivery.Result{Status: delivery.StatusIgnored, Reason: "job_finished"}},
	} {
		w.sockets = step.sockets
		got := publish(t, s, step.ev)
		if got.ID.IsZero() != (step.want.Status == delivery.StatusIgnored) {
			t.Errorf("%s: id %s", step.name, got.ID)
		}
		got.ID = events.ID{}
		if got != step.want {
			t.Errorf("%s: %+v, want %+v", step.name, got, step.want)
		}
	}
	if n := len(w.of("ann")); n != 3 {
		t.Errorf("%d emissions, want 3", n)
	}
}

func TestRefusals(t *testing.T) {
	s := begin(t, delivery.Config{}, &wire{})
	defer end(t, s)
	keyed := func(data string) events.Event {
		ev := event("ann", "note", "", data)
		ev.IdempotencyKey = "k"
		return ev
	}
	publish(t, s, keyed(`1`))
	stale := keyed(`1`)
	stale.StaleAfter = time.Second
	for _, c := range []struct {
		name, code string
		ev         events.Event
	}{
		{"no user", events.CodeInvalidUserID, event("", "note", "", `1`)},
		{"no job", events.CodeMissingJobID, event("ann", events.JobProgress, "", `{}`)},
		{"other data", delivery.CodeKeyReused, keyed(`2`)},
		{"other stale after", delivery.CodeKeyReused, stale},
	} {
		_, err := s.Publish(context.Background(), c.ev)
		if coded := new(events.Error); !errors.As(err, &coded) || coded.Code != c.code {
			t.Errorf("%s: %v, want code %s", c.name, err, c.code)
		}
	}
}

func TestBatchAnswersInOrderAndABadItemFailsAlone(t *testing.T) {
	w := &wire{sockets: 1}
	s := begin(t, delivery.Config{}, w)
	defer end(t, s)
	var evs []events.Event
	for i := range 100 {
		evs = append(evs, event(fmt.Sprint("user", i%7), "note", "", fmt.Sprint(i)))
	}
	evs[13].UserID = ""
	answers := s.PublishBatch(context.Background(), evs)
	for i, a := range answers {
		if (a.Err != nil) != (i == 13) {
			t.Fatalf("item %d: %+v", i, a)
		}
		if a.Err == nil && (a.Status != delivery.StatusSent || a.ID.IsZero()) {
			t.Fatalf("item %d: %+v", i, a)
		}
	}
	total := 0
	for u := range 7 {
		frames := w.of(fmt.Sprint("user", u))
		rising(t, frames)
		for i, f := range frames {
			if want := answers[u+7*i]; u != 13%7 && (f.id != want.ID || f.data != fmt.Sprint(u+7*i)) {
				t.Fatalf("user %d, emission %d: %+v", u, i, f)
			}
		}
		total += len(frames)
	}
	if total != 99 {
		t.Fatalf("%d emissions", total)
	}
}

func TestRepeatsGetTheFirstAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{sockets: 2}
		s := begin(t, delivery.Config{}, w)
		defer end(t, s)
		ev := event("ann", "note", "", `1`)
		ev.IdempotencyKey = "k"
		first := publish(t, s, ev)
		w.sockets = 0
		for _, pause := range []time.Duration{0, 50 * time.Millisecond, time.Second, time.Hour} {
			time.Sleep(pause) // before, while and after the answer is stored
			got := publish(t, s, ev)
			if !got.Repeated {
				t.Fatalf("not told as a repeat: %+v", got)
			}
			got.Repeated = false
			if got != first {
				t.Fatalf("after %s: %+v, first %+v", pause, got, first)
			}
		}
		if n := len(w.of("ann")); n != 1 {
			t.Fatalf("%d emissions", n)
		}
	})
}

func TestRepeatsDuringTheFirstCallGetItsAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{sockets: 2}
		w.onEmit = func(string, frame) { time.Sleep(time.Second) }
		s := begin(t, delivery.Config{}, w)
		defer end(t, s)
		ev := event("ann", "note", "", `1`)
		ev.IdempotencyKey = "k"
		var wg sync.WaitGroup
		results := make([]delivery.Result, 8)
		for i := range results {
			wg.Go(func() { results[i] = publish(t, s, ev) })
		}
		wg.Wait()
		repeats := 0
		for _, r := range results {
			if r.Status != delivery.StatusSent || r.Sockets != 2 || r.ID != results[0].ID {
				t.Errorf("%+v", r)
			}
			if r.Repeated {
				repeats++
			}
		}
		if repeats != len(results)-1 || len(w.of("ann")) != 1 {
			t.Errorf("%d repeats, %d emissions", repeats, len(w.of("ann")))
		}
	})
}

// slowStore answers after a random time, so that calls come back in any order.
func TestARepeatThatWaitsForTheDiskGetsTheFirstAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var slow atomic.Bool
		s := beginOn(t, delivery.Config{}, &slowStore{
			Store: embedded.NewMemory(delivery.Limits{}, nil),
			delay: func() time.Duration {
				if slow.Load() {
					return time.Second
				}
				return 0
			},
		}, &wire{sockets: 2})
		defer end(t, s)
		ev := event("ann", "note", "", `1`)
		ev.IdempotencyKey = "k"
		first := publish(t, s, ev)
		slow.Store(true)
		repeat := publish(t, s, ev)
		if repeat.ID != first.ID || repeat.Status != delivery.StatusSent || repeat.Sockets != 2 || !repeat.Repeated {
			t.Errorf("first %+v, then %+v", first, repeat)
		}
		slow.Store(false)
		time.Sleep(5 * time.Second)
		if !s.Idle() {
			t.Error("the answer is still in memory")
		}
	})
}

// However many keyed events come, what the store has makes room for what it has not.
func TestManyKeyedEventsKeepTheirAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := begin(t, delivery.Config{}, &wire{sockets: 2})
		defer end(t, s)
		const rounds, each = 12, 10_000 // 100,000 a second
		keyed := func(n int) events.Event {
			ev := event(fmt.Sprint("user", n%500), "note", "", `1`)
			ev.IdempotencyKey = fmt.Sprint(n)
			return ev
		}
		for round := range rounds {
			batch := make([]events.Event, each)
			for i := range batch {
				batch[i] = keyed(round*each + i)
			}
			s.PublishBatch(t.Context(), batch)
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(5 * time.Second)
		for i := range each {
			if res := publish(t, s, keyed((rounds-1)*each+i)); res.Status != delivery.StatusSent || res.Sockets != 2 || !res.Repeated {
				t.Fatalf("repeat %d: %+v", i, res)
			}
		}
	})
}

type slowStore struct {
	delivery.Store
	delay func() time.Duration
	fail  func() error
}

func (s *slowStore) Publish(ctx context.Context, es []delivery.Entry) ([]delivery.Decision, error) {
	if s.fail != nil {
		if err := s.fail(); err != nil {
			return nil, err
		}
	}
	if s.delay != nil {
		defer time.Sleep(s.delay())
	}
	return s.Store.Publish(ctx, es)
}

func TestEmissionsAreInTheOrderOfIdsHoweverCallsReturn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{sockets: 1}
		w.onEmit = func(string, frame) { time.Sleep(time.Duration(rand.IntN(300)) * time.Microsecond) }
		var n sync.Mutex
		calls := 0
		store := &slowStore{
			Store: embedded.NewMemory(delivery.Limits{}, nil),
			delay: func() time.Duration { return time.Duration(rand.IntN(5000)) * time.Microsecond },
			fail: func() error {
				n.Lock()
				defer n.Unlock()
				if calls++; calls%17 == 0 && calls < 1000 {
					return errors.New("hiccup")
				}
				return nil
			},
		}
		s := beginOn(t, delivery.Config{Coalesce: 20 * time.Millisecond}, store, w)
		users := []string{"ann", "bob", "cia"}
		answered := make(map[string]map[events.ID]bool)
		for _, u := range users {
			answered[u] = make(map[events.ID]bool)
		}
		var mu sync.Mutex
		var wg sync.WaitGroup
		for worker := range 24 {
			wg.Go(func() {
				for i := range 60 {
					user := users[rand.IntN(len(users))]
					job := fmt.Sprint(worker%5, "-", i/20)
					evs := []events.Event{event(user, events.JobProgress, job, fmt.Sprint(i))}
					switch i % 4 {
					case 0:
						evs = append(evs, event(user, "note", "", fmt.Sprint(i)), event(users[rand.IntN(3)], "note", "", `0`))
					case 1:
						evs[0].Name = "note"
					case 2:
						if i%20 == 18 {
							evs[0].Name = events.JobCompleted
						}
					}
					for j, a := range s.PublishBatch(t.Context(), evs) {
						if a.Err == nil && events.ClassOf(evs[j].Name) == events.Durable {
							mu.Lock()
							answered[evs[j].UserID][a.ID] = true
							mu.Unlock()
						}
					}
					time.Sleep(time.Duration(rand.IntN(2000)) * time.Microsecond)
				}
			})
		}
		wg.Wait()
		time.Sleep(time.Second)
		for _, u := range users {
			frames := w.of(u)
			rising(t, frames)
			for _, f := range frames {
				delete(answered[u], f.id)
			}
			if len(answered[u]) > 0 {
				t.Errorf("%s: %d answered events were not emitted", u, len(answered[u]))
			}
		}
		if !s.Idle() {
			t.Error("lanes are left")
		}
		end(t, s)
	})
}

func TestFailingStoreFailsThePost(t *testing.T) {
	w := &wire{sockets: 1}
	cause := errors.New("disk on fire")
	s := beginOn(t, delivery.Config{}, &slowStore{
		Store: embedded.NewMemory(delivery.Limits{}, nil),
		fail:  func() error { return cause },
	}, w)
	defer end(t, s)
	_, err := s.Publish(context.Background(), completed("1"))
	coded := new(events.Error)
	if !errors.As(err, &coded) || coded.Code != delivery.CodeStoreUnavailable || !errors.Is(err, cause) || !errors.Is(err, delivery.ErrStoreUnavailable) {
		t.Fatalf("error %v", err)
	}
	for _, a := range s.PublishBatch(context.Background(), []events.Event{completed("1"), completed("2")}) {
		if !errors.Is(a.Err, delivery.ErrStoreUnavailable) {
			t.Fatalf("batch: %v", a.Err)
		}
	}
	if n := len(w.of("ann")); n != 0 {
		t.Fatalf("%d emissions of what was not stored", n)
	}
}

func TestDoneContextStoresNothing(t *testing.T) {
	w := &wire{sockets: 1}
	s := begin(t, delivery.Config{}, w)
	defer end(t, s)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := s.Publish(ctx, completed("1")); !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v", err)
	}
	jobs, err := s.Jobs(context.Background(), "ann")
	if err != nil || len(jobs) != 0 || len(w.of("ann")) != 0 {
		t.Fatalf("%v, %v", jobs, err)
	}
}

func TestContextThatEndsAfterTheDecisionChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{sockets: 1}
		s := beginOn(t, delivery.Config{}, &slowStore{
			Store: embedded.NewMemory(delivery.Limits{}, nil),
			delay: func() time.Duration { return time.Second },
		}, w)
		defer end(t, s)
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		res, err := s.Publish(ctx, completed("1"))
		if err != nil || res.Status != delivery.StatusSent || len(w.of("ann")) != 1 {
			t.Fatalf("%+v, %v", res, err)
		}
	})
}

func TestCloseRefusesAndFlushes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{sockets: 1}
		s := begin(t, delivery.Config{Coalesce: time.Minute}, w)
		publish(t, s, progress("1", 1))
		publish(t, s, progress("1", 2))
		publish(t, s, progress("2", 1))
		other := publish(t, s, progress("2", 2))
		end(t, s)
		frames := w.of("ann")
		// Progress 2 of job 1 was overtaken by job 2 and comes under a new id.
		if len(frames) != 4 || frames[2].id != other.ID || frames[3].data != `{"jobId":"1","progress":2}` {
			t.Fatalf("emitted %+v", frames)
		}
		rising(t, frames)
		if _, err := s.Publish(context.Background(), completed("1")); !errors.Is(err, delivery.ErrClosed) {
			t.Fatalf("error %v", err)
		}
	})
}
