package delivery_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"jobwire/internal/delivery"
	"jobwire/internal/events"
)

// code is the code of an error for workers.
func code(err error) string {
	if coded := new(events.Error); errors.As(err, &coded) {
		return coded.Code
	}
	return ""
}

func TestAnswers(t *testing.T) {
	w := begin(t, delivery.Config{Coalesce: time.Hour})
	var sockets []*sink
	for _, step := range []struct {
		name    string
		sockets int // of the user, from here on
		ev      events.Event
		want    delivery.Result // without ID
	}{
		{"no socket", 0, note(`1`), delivery.Result{Status: delivery.StatusStored}},
		{"progress, no socket", 0, progress("1", `1`), delivery.Result{Status: delivery.StatusStored}},
		{"keyed, no socket", 0, keyed("k", note(`2`)), delivery.Result{Status: delivery.StatusStored}},
		{"three sockets", 3, note(`3`), delivery.Result{Status: delivery.StatusSent, Sockets: 3}},
		{"a repeat is counted anew", 3, keyed("k", note(`2`)), delivery.Result{Status: delivery.StatusSent, Sockets: 3, Repeated: true}},
		{"progress", 2, progress("1", `2`), delivery.Result{Status: delivery.StatusSent, Sockets: 2}},
		{"held back", 2, keyed("p", progress("1", `3`)), delivery.Result{Status: delivery.StatusCoalesced}},
		{"an end", 1, attempt(5, completed("1", `4`)), delivery.Result{Status: delivery.StatusSent, Sockets: 1}},
		{"finished", 1, keyed("f", progress("1", `5`)), delivery.Result{Status: delivery.StatusIgnored, Reason: delivery.ReasonJobFinished}},
		{"superseded", 1, attempt(4, completed("1", `6`)), delivery.Result{Status: delivery.StatusIgnored, Reason: delivery.ReasonAttemptSuperseded}},
		{"a repeat of what was ignored", 1, keyed("f", progress("1", `5`)), delivery.Result{Status: delivery.StatusIgnored, Reason: delivery.ReasonJobFinished, Repeated: true}},
		{"a repeat of what was held back", 1, keyed("p", progress("1", `3`)), delivery.Result{Status: delivery.StatusSent, Sockets: 1, Repeated: true}},
		{"a repeat, no socket", 0, keyed("k", note(`2`)), delivery.Result{Status: delivery.StatusStored, Repeated: true}},
	} {
		for len(sockets) < step.sockets {
			k := w.socket("ann")
			w.connect(k)
			sockets = append(sockets, k)
		}
		for len(sockets) > step.sockets {
			w.bye(sockets[0])
			sockets = sockets[1:]
		}
		got := w.publish(step.ev)
		if got.ID.IsZero() != (step.want.Status == delivery.StatusIgnored) {
			t.Errorf("%s: id %s", step.name, got.ID)
		}
		got.ID = events.ID{}
		if got != step.want {
			t.Errorf("%s: %+v, want %+v", step.name, got, step.want)
		}
	}
	if st := w.Stats(); st.Decided[delivery.Accepted].Load() != 7 || st.Decided[delivery.Ignored].Load() != 2 ||
		st.Decided[delivery.Repeated].Load() != 4 || st.Coalesced.Load() != 1 {
		t.Errorf("stats %+v", st)
	}
	w.end()
}

func TestARepeatHasTheIDOfTheFirstAndEmitsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := begin(t, delivery.Config{})
		k := w.socket("ann")
		w.connect(k)
		w.ref.set(func(r *reference) { r.sync = func() time.Duration { return 10 * time.Millisecond } })
		ev := keyed("k", note(`1`))
		var calls sync.WaitGroup
		results := make([]delivery.Result, 8)
		for i := range results { // some while the first is at the store
			calls.Go(func() { results[i] = w.publish(ev) })
		}
		calls.Wait()
		time.Sleep(time.Hour)
		results = append(results, w.publish(ev)) //nolint:makezero // behind the others
		repeats := 0
		for _, r := range results {
			if r.ID != results[0].ID || r.Status != delivery.StatusSent || r.Sockets != 1 {
				t.Errorf("%+v", r)
			}
			if r.Repeated {
				repeats++
			}
		}
		if got := names(k.frames()); repeats != len(results)-1 || got != "note1" {
			t.Errorf("%d repeats, the socket got %s", repeats, got)
		}
		w.bye(k)
		w.end()
	})
}

func TestAKeyBelongsToOneBody(t *testing.T) {
	w := begin(t, delivery.Config{})
	first := keyed("k", attempt(1, progress("1", `{"a": ["é", 1]}`)))
	w.publish(first)
	change := func(f func(*events.Event)) events.Event {
		ev := first
		f(&ev)
		return ev
	}
	for name, ev := range map[string]events.Event{
		"other name":    change(func(ev *events.Event) { ev.Name = "clip" }),
		"other kind":    change(func(ev *events.Event) { ev.Kind = events.Failed }),
		"other data":    change(func(ev *events.Event) { ev.Data = []byte(`{"a":["è",1]}`) }),
		"other number":  change(func(ev *events.Event) { ev.Data = []byte(`{"a":["é",1.0]}`) }),
		"other job":     change(func(ev *events.Event) { ev.JobID = "2" }),
		"other attempt": change(func(ev *events.Event) { ev.Attempt = 2 }),
		"no attempt":    change(func(ev *events.Event) { ev.Attempt, ev.HasAttempt = 0, false }),
		"a watch":       change(func(ev *events.Event) { ev.StaleAfter = time.Second }),
	} {
		if _, err := w.Publish(context.Background(), ev); code(err) != delivery.CodeKeyReused {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, spelled := range []string{string(first.Data), `{"a":["é",1]}`, "{\"\\u0061\":\n[\"\\u00e9\",1]}"} {
		if res := w.publish(change(func(ev *events.Event) { ev.Data = []byte(spelled) })); !res.Repeated {
			t.Errorf("the same body as %s: %+v", spelled, res)
		}
	}
	other := first
	other.UserID = "bob"
	if res := w.publish(other); res.Repeated {
		t.Errorf("another user: %+v", res)
	}
	w.end()
}

// What concurrent publishers of a user send goes out in the order of places, once each, however long the store takes; and
// progress waits behind a message that is not safe yet.
func TestOrderUnderConcurrentPublishers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ref := newReference()
		ref.sync = func() time.Duration { return time.Duration(rand.IntN(5000)) * time.Microsecond }
		calls := 0
		var mu sync.Mutex
		ref.on = func(_ context.Context, op, _ string) error {
			mu.Lock()
			defer mu.Unlock()
			if op == "publish" {
				if calls++; calls%17 == 0 {
					return errors.New("hiccup")
				}
			}
			return nil
		}
		w := beginOn(t, delivery.Config{Coalesce: 20 * time.Millisecond}, ref)
		w.hub.then(func(string, frame) { sleep(time.Duration(rand.IntN(300)) * time.Microsecond) })
		users := []string{"ann", "bob", "cia"}
		sockets := map[string]*sink{}
		answered := map[string]map[events.ID]string{}
		for _, u := range users {
			sockets[u] = w.socket(u)
			w.connect(sockets[u])
			answered[u] = map[events.ID]string{}
		}
		var workers sync.WaitGroup
		for worker := range 24 {
			workers.Go(func() {
				for i := range 30 {
					user := users[rand.IntN(len(users))]
					job := fmt.Sprint(worker, "-", i/10)
					data := fmt.Sprintf(`{"job":%q,"n":%d}`, job, i)
					evs := []events.Event{event(user, events.JobProgress, job, data)}
					switch i % 4 {
					case 0:
						evs = append(evs, event(user, "note", "", data), event(users[rand.IntN(3)], "note", "", data))
					case 1:
						evs[0] = event(user, "note", "", data)
					case 2:
						evs[0] = event(user, events.JobCompleted, job, data)
					}
					answers, err := w.PublishBatch(t.Context(), evs)
					if err != nil {
						continue
					}
					mu.Lock()
					for j, a := range answers {
						if a.Err == nil && evs[j].Kind.Logged() {
							answered[evs[j].UserID][a.ID] = data
						}
					}
					mu.Unlock()
					sleep(time.Duration(rand.IntN(2000)) * time.Microsecond)
				}
			})
		}
		workers.Wait()
		time.Sleep(time.Second)
		for _, u := range users {
			var at events.ID
			for _, f := range sockets[u].frames() {
				if !f.receipt {
					continue
				}
				if f.id.Compare(at) <= 0 {
					t.Errorf("%s came after %s", f.id, at)
				}
				at = f.id
				if answered[u][f.id] == f.data {
					delete(answered[u], f.id)
				}
			}
			if len(answered[u]) > 0 {
				t.Errorf("%s: answered, but not emitted: %v", u, answered[u])
			}
			w.bye(sockets[u])
		}
		w.idle()
		w.end()
	})
}

func TestAPostIsAnsweredWhenItsEventIsEmitted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := begin(t, delivery.Config{})
		k := w.socket("ann")
		w.connect(k)
		w.hub.then(func(string, frame) { sleep(time.Millisecond) })
		var posts sync.WaitGroup
		for i := range 100 {
			posts.Go(func() {
				res := w.publish(note(fmt.Sprint(i)))
				if !slices.ContainsFunc(k.frames(), func(f frame) bool { return f.id == res.ID }) {
					t.Errorf("%s was answered before it was emitted", res.ID)
				}
			})
		}
		posts.Wait()
		w.bye(k)
		w.end()
	})
}

func TestAFailingStoreFailsThePost(t *testing.T) {
	cause := errors.New("disk on fire")
	full := &events.Error{Code: delivery.CodeStoreFull, Detail: "full"}
	for _, c := range []struct {
		name, code string
		err        error
	}{
		{"a failure", delivery.CodeStoreUnavailable, cause},
		{"no room", delivery.CodeStoreFull, full},
	} {
		t.Run(c.name, func(t *testing.T) {
			ref := newReference()
			ref.on = func(context.Context, string, string) error { return c.err }
			w := beginOn(t, delivery.Config{}, ref)
			if _, err := w.Publish(context.Background(), note(`1`)); code(err) != c.code || !errors.Is(err, c.err) {
				t.Errorf("publish: %v", err)
			}
			if _, err := w.PublishBatch(context.Background(), []events.Event{note(`1`), event("bob", "note", "", `1`)}); code(err) != c.code {
				t.Errorf("batch: %v", err)
			}
			if _, err := w.Jobs(context.Background(), delivery.JobsQuery{UserID: "ann", Limit: 1}); code(err) != c.code {
				t.Errorf("jobs: %v", err)
			}
			if _, err := w.Disconnect(context.Background(), "ann", "why"); code(err) != c.code {
				t.Errorf("disconnect: %v", err)
			}
			if n := w.Stats().StoreFailures.Load(); n < 5 {
				t.Errorf("%d failures counted", n)
			}
			w.end()
		})
	}
}

func TestBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ref := newReference()
		var atOnce, most int
		ref.on = func(_ context.Context, op, user string) error {
			if op != "publish" {
				return nil
			}
			ref.mu.Lock()
			atOnce++
			most = max(most, atOnce)
			ref.mu.Unlock()
			time.Sleep(time.Second)
			ref.mu.Lock()
			atOnce--
			ref.mu.Unlock()
			if user == "user3" {
				return errors.New("no")
			}
			return nil
		}
		w := beginOn(t, delivery.Config{}, ref)
		k := w.socket("user5")
		w.connect(k)
		const users = 100
		var evs []events.Event
		for i := range 5 * users {
			evs = append(evs, event(fmt.Sprint("user", i%users), "note", "", fmt.Sprint(i)))
		}
		evs[7] = keyed("k", evs[7])
		evs[users+7] = keyed("k", evs[users+7]) // another body
		start := time.Now()
		answers, err := w.PublishBatch(t.Context(), evs)
		if err != nil {
			t.Fatal(err)
		}
		for i, a := range answers {
			switch {
			case i%users == 3:
				if code(a.Err) != delivery.CodeStoreUnavailable {
					t.Errorf("item %d of the user that fails: %+v", i, a)
				}
			case i == users+7:
				if code(a.Err) != delivery.CodeKeyReused {
					t.Errorf("item %d with a used key: %+v", i, a)
				}
			case a.Err != nil || a.ID.IsZero() || (a.Status == delivery.StatusSent) != (i%users == 5):
				t.Errorf("item %d: %+v", i, a)
			case i >= users && answers[i-users].Err == nil && a.ID.Compare(answers[i-users].ID) <= 0:
				t.Errorf("item %d has place %s, the one before it %s", i, a.ID, answers[i-users].ID)
			}
		}
		if got := names(k.frames()); got != "note5 note105 note205 note305 note405" {
			t.Errorf("the socket got %s", got)
		}
		if took := time.Since(start); took != 2*time.Second || most >= users {
			t.Errorf("%d users at once, in %s", most, took)
		}
		if _, err := w.PublishBatch(t.Context(), []events.Event{evs[3], evs[103]}); code(err) != delivery.CodeStoreUnavailable {
			t.Errorf("none could be stored: %v", err)
		}
		if answers, err := w.PublishBatch(t.Context(), nil); err != nil || len(answers) != 0 {
			t.Errorf("empty: %v, %v", answers, err)
		}
		w.bye(k)
		w.end()
	})
}

func TestContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := begin(t, delivery.Config{})
		k := w.socket("ann")
		w.connect(k)
		done, cancel := context.WithCancel(context.Background())
		cancel()
		if _, err := w.Publish(done, note(`1`)); !errors.Is(err, context.Canceled) {
			t.Errorf("done before: %v", err)
		}
		if _, err := w.PublishBatch(done, []events.Event{note(`1`)}); !errors.Is(err, context.Canceled) {
			t.Errorf("a batch, done before: %v", err)
		}
		if n := len(k.frames()); n != 0 {
			t.Errorf("%d events", n)
		}
		w.ref.set(func(r *reference) { r.sync = func() time.Duration { return time.Second } })
		short, cancel := context.WithTimeout(context.Background(), interval)
		defer cancel()
		if res, err := w.Publish(short, note(`2`)); err != nil || res.Status != delivery.StatusSent {
			t.Errorf("done after the decision: %+v, %v", res, err)
		}
		w.bye(k)
		w.end()
	})
}

func TestDisconnect(t *testing.T) {
	w := begin(t, delivery.Config{})
	a, b := w.socket("ann"), w.socket("ann")
	w.connect(a)
	w.connect(b)
	n, err := w.Disconnect(context.Background(), "ann", "signed out")
	if err != nil || n != 2 || !slices.Equal(w.hub.closed, []string{"ann: signed out"}) {
		t.Errorf("%d, %v, closed %v", n, err, w.hub.closed)
	}
	w.bye(a)
	w.bye(b)
	w.idle()
	w.end()
}

// tap lets a test hold the feed of a service.
type tap struct {
	delivery.Store
	feed delivery.Feed
}

func (s *tap) Subscribe(feed delivery.Feed) func() {
	s.feed = feed
	return s.Store.Subscribe(feed)
}

func TestADeliveryThatWasShownIsLeftOut(t *testing.T) {
	ref := newReference()
	w := &world{T: t, ref: ref, store: ref.open(), hub: newHub()}
	store := &tap{Store: w.store}
	w.Service = delivery.New(delivery.Config{Logger: quiet}, store, w.hub)
	k := w.socket("ann")
	w.connect(k)
	place := w.publish(note(`1`)).ID
	w.publish(note(`2`))
	for _, user := range []string{"ann", "bob"} { // bob has no socket
		e := new(delivery.Emission)
		e.Expect(1)
		if store.feed.Deliver(&delivery.Delivery{UserID: user, Place: place, Name: "note", Data: []byte(`1`), Emission: e}) {
			store.feed.Run(user)
		}
		if sockets, held := e.Wait(); sockets != 0 || held {
			t.Errorf("%s: %d sockets, held back %v", user, sockets, held)
		}
	}
	if got := names(k.frames()); got != "note1 note2" || w.Stats().Disorder.Load() != 1 {
		t.Errorf("the socket got %s, %d out of order", got, w.Stats().Disorder.Load())
	}
	w.bye(k)
	_ = w.Close(context.Background())
	w.store.kill()
}
