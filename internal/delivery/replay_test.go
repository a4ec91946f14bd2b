package delivery_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"jobwire/internal/delivery"
	"jobwire/internal/events"
	"jobwire/internal/store/embedded"
)

// sink is a held socket with a queue that drains at its own speed.
type sink struct {
	user, offset string
	has          bool

	mu      sync.Mutex
	got     []frame // what the client sees, in order
	held    []frame // what the room sent during the hold
	live    bool
	after   events.ID
	queued  int
	most    int // the highest level of the queue
	gone    bool
	onFrame func(f frame)
}

func (s *sink) UserID() string         { return s.user }
func (s *sink) Offset() (string, bool) { return s.offset, s.has }

func (s *sink) Emit(packet []byte, id events.ID, confirm bool) bool {
	f := parseFrame(packet, id, confirm)
	s.mu.Lock()
	if s.gone {
		s.mu.Unlock()
		return false
	}
	s.got = append(s.got, f)
	s.queued += len(packet)
	s.most = max(s.most, s.queued)
	fn := s.onFrame
	s.mu.Unlock()
	if fn != nil {
		fn(f)
	}
	return true
}

func (s *sink) Live(after events.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live, s.after = true, after
	for _, f := range s.held {
		if f.id.Compare(after) > 0 {
			s.got = append(s.got, f)
		}
	}
	s.held = nil
}

func (s *sink) Buffered() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.queued
}

func (s *sink) drain(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queued = max(0, s.queued-n)
}

// room delivers what the user's room gets.
func (s *sink) room(f frame) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.live {
		s.got = append(s.got, f)
	} else {
		s.held = append(s.held, f)
	}
}

func (s *sink) frames() []frame {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.got)
}

func TestReplayOffsets(t *testing.T) {
	w := &wire{}
	store := embedded.NewMemory(delivery.Limits{Events: 4}, nil)
	s := beginOn(t, delivery.Config{}, store, w)
	defer end(t, s)
	var ids []events.ID
	for i := range 6 {
		ids = append(ids, publish(t, s, event("ann", "note", "", fmt.Sprint(i))).ID)
	}
	s.Confirmed("ann", ids[3])
	for _, c := range []struct {
		name, offset string
		has          bool
		recovered    bool
		want         []events.ID
	}{
		{"a first connect", "", false, true, ids[4:]},
		{"nothing missed but unconfirmed ones", ids[5].String(), true, true, ids[4:]},
		{"a few missed", ids[2].String(), true, true, ids[3:]},
		{"missed what is gone", ids[0].String(), true, false, ids[2:]},
		{"from the future", "99999999999999-0", true, false, ids[2:]},
		{"empty", "", true, false, ids[2:]},
		{"not an id", "hello", true, false, ids[2:]},
		{"nearly an id", "0" + ids[5].String(), true, false, ids[2:]},
		{"too long for an id", strings.Repeat("9", 100) + "-1", true, false, ids[2:]},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := &sink{user: "ann", offset: c.offset, has: c.has}
			recovered, err := s.Attach(context.Background(), k)
			if err != nil || recovered != c.recovered {
				t.Fatalf("recovered %v, error %v", recovered, err)
			}
			var got []events.ID
			for _, f := range k.got {
				got = append(got, f.id)
			}
			if !slices.Equal(got, c.want) || !k.live || k.after != ids[5] {
				t.Fatalf("replayed %v, want %v; live %v after %s", got, c.want, k.live, k.after)
			}
		})
	}
}

func TestReplayShowsTheLatestProgressIncludingWhatWasHeldBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &sink{user: "ann"}
		w := &wire{sockets: 1}
		w.onEmit = func(_ string, f frame) { k.room(f) }
		s := begin(t, delivery.Config{Coalesce: interval}, w)
		defer end(t, s)
		publish(t, s, progress("1", 1))
		publish(t, s, progress("1", 2)) // held back
		k.held = nil                    // the socket comes only now
		if _, err := s.Attach(context.Background(), k); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		got := k.frames()
		if len(got) != 1 || got[0].data != `{"jobId":"1","progress":2}` {
			t.Fatalf("the new socket sees %s", names(got))
		}
		if all := w.of("ann"); len(all) != 2 || all[1].id != got[0].id {
			t.Fatalf("the others see %s", names(all))
		}
	})
}

// An event that is in the store while the replay reads, and whose emission is
// still under way, must reach the new socket exactly once, and in order.
func TestReplayMeetsEmissionsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &sink{user: "ann"}
		w := &wire{sockets: 1}
		w.onEmit = func(_ string, f frame) { k.room(f) }
		s := beginOn(t, delivery.Config{}, &slowStore{
			Store: embedded.NewMemory(delivery.Limits{}, nil),
			delay: func() time.Duration { return time.Second },
		}, w)
		defer end(t, s)
		var posts sync.WaitGroup
		posts.Go(func() { publish(t, s, event("ann", "note", "", `1`)) })
		synctest.Wait() // stored, not emitted
		var attached sync.WaitGroup
		attached.Go(func() {
			if _, err := s.Attach(context.Background(), k); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		if k.live {
			t.Error("live before the emission that it must not repeat")
		}
		posts.Go(func() { publish(t, s, event("ann", "note", "", `2`)) })
		posts.Wait()
		attached.Wait()
		if got := names(k.frames()); got != `note1 note2 ` {
			t.Errorf("the socket sees %s", got)
		}
	})
}

// A receipt of another socket, given while a new socket is already held, must
// not take an event away from the new one.
func TestReceiptDuringTheHoldTakesNothingAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &sink{user: "ann"}
		w := &wire{sockets: 1}
		w.onEmit = func(_ string, f frame) { k.room(f) }
		store := &slowReads{Store: embedded.NewMemory(delivery.Limits{}, nil), gate: make(chan struct{})}
		s := beginOn(t, delivery.Config{}, store, w)
		defer end(t, s)
		var attached sync.WaitGroup
		attached.Go(func() {
			if _, err := s.Attach(context.Background(), k); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait() // held, and at the store's door
		note := publish(t, s, event("ann", "note", "", `1`))
		s.Confirmed("ann", note.ID)
		time.Sleep(time.Minute)
		close(store.gate)
		attached.Wait()
		if got := names(k.frames()); got != `note1 ` {
			t.Errorf("the socket sees %q", got)
		}
		time.Sleep(time.Minute)
		next := &sink{user: "ann"}
		if _, err := s.Attach(context.Background(), next); err != nil || len(next.got) != 0 {
			t.Errorf("the receipt was lost: %s, %v", names(next.got), err)
		}
	})
}

// slowReads lets reads wait.
type slowReads struct {
	delivery.Store
	gate chan struct{}
	fail error
}

func (s *slowReads) Read(ctx context.Context, q delivery.Query) (delivery.Page, error) {
	if s.gate != nil {
		<-s.gate
	}
	if s.fail != nil {
		return delivery.Page{}, s.fail
	}
	return s.Store.Read(ctx, q)
}

func TestReplayIsPaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := begin(t, delivery.Config{ReplayWindow: 10_000}, &wire{})
		defer end(t, s)
		const n, size = 900, 1000
		for range n {
			publish(t, s, event("ann", "note", "", `"`+strings.Repeat("x", size)+`"`))
		}
		k := &sink{user: "ann"}
		stop := time.NewTicker(5 * time.Millisecond)
		done := make(chan error)
		go func() { _, err := s.Attach(context.Background(), k); done <- err }()
		for {
			select {
			case <-stop.C:
				k.drain(5000)
				continue
			case err := <-done:
				if err != nil {
					t.Fatal(err)
				}
			}
			break
		}
		if len(k.got) != n {
			t.Fatalf("%d of %d events", len(k.got), n)
		}
		if k.most > 10_000+size+100 {
			t.Fatalf("%d bytes piled up", k.most)
		}
		rising(t, k.got)
	})
}

func TestReplayEndsWithItsSocket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := begin(t, delivery.Config{ReplayWindow: 1000, ReplayStall: 5 * time.Second}, &wire{})
		for range 50 {
			publish(t, s, event("ann", "note", "", `"`+strings.Repeat("x", 500)+`"`))
		}
		closed := &sink{user: "ann"}
		closed.onFrame = func(frame) { closed.gone = true }
		if _, err := s.Attach(context.Background(), closed); !errors.Is(err, delivery.ErrSinkClosed) {
			t.Errorf("closed socket: %v", err)
		}
		begin := time.Now()
		stuck := &sink{user: "ann"}
		if _, err := s.Attach(context.Background(), stuck); !errors.Is(err, delivery.ErrReplayStalled) {
			t.Errorf("stuck socket: %v", err)
		}
		if took := time.Since(begin); took < 5*time.Second || took > 6*time.Second {
			t.Errorf("given up after %s", took)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if _, err := s.Attach(ctx, &sink{user: "ann"}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("ended context: %v", err)
		}
		shut := make(chan error)
		go func() { _, err := s.Attach(context.Background(), &sink{user: "ann"}); shut <- err }()
		synctest.Wait()
		end(t, s)
		if err := <-shut; !errors.Is(err, delivery.ErrClosed) {
			t.Errorf("closing service: %v", err)
		}
		if closed.live || stuck.live {
			t.Error("a socket went live without its replay")
		}
	})
}

func TestAttachWithoutStoreDoesNotGoLive(t *testing.T) {
	store := &slowReads{Store: embedded.NewMemory(delivery.Limits{}, nil), fail: errors.New("gone")}
	s := beginOn(t, delivery.Config{}, store, &wire{})
	defer end(t, s)
	k := &sink{user: "ann"}
	if _, err := s.Attach(context.Background(), k); !errors.Is(err, delivery.ErrStoreUnavailable) || k.live {
		t.Fatalf("error %v, live %v", err, k.live)
	}
}

func TestAttachDoesNotHoldUpOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &slowReads{Store: embedded.NewMemory(delivery.Limits{}, nil), gate: make(chan struct{})}
		w := &wire{}
		s := beginOn(t, delivery.Config{Replays: 2}, store, w)
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() { _, _ = s.Attach(context.Background(), &sink{user: "ann"}) })
		}
		synctest.Wait()
		publish(t, s, event("ann", "note", "", `1`))
		publish(t, s, event("bob", "note", "", `1`))
		if len(w.of("ann")) != 1 || len(w.of("bob")) != 1 {
			t.Error("not emitted")
		}
		close(store.gate)
		wg.Wait()
		end(t, s)
	})
}

func TestWhatRetentionTakesIsNotDelivered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{}
		s := beginOn(t, delivery.Config{}, embedded.NewMemory(delivery.Limits{Events: 3}, nil), w)
		defer end(t, s)
		var waits sync.WaitGroup
		begin := time.Now()
		waits.Go(func() {
			_, delivered, err := s.PublishAndWait(context.Background(), event("ann", "note", "", `0`), time.Minute)
			if delivered || err != nil || time.Since(begin) > time.Minute/2 {
				t.Errorf("delivered %v, %v after %s", delivered, err, time.Since(begin))
			}
		})
		time.Sleep(time.Second)
		var last delivery.Result
		for range 5 {
			last = publish(t, s, event("ann", "note", "", `1`))
		}
		s.Confirmed("ann", last.ID)
		waits.Wait()
	})
}

func TestWaitForDelivery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{sockets: 1}
		s := begin(t, delivery.Config{Coalesce: interval}, w)
		defer end(t, s)
		wait := func(ev events.Event) (delivery.Result, bool, time.Duration) {
			begin := time.Now()
			res, delivered, err := s.PublishAndWait(context.Background(), ev, 5*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			return res, delivered, time.Since(begin)
		}
		w.onEmit = func(user string, f frame) {
			if f.confirm {
				time.AfterFunc(time.Second, func() { s.Confirmed(user, f.id) })
			}
		}
		if _, delivered, took := wait(completed("1")); !delivered || took != time.Second {
			t.Errorf("confirmed: %v after %s", delivered, took)
		}
		w.onEmit = func(user string, f frame) { s.Confirmed(user, f.id) } // before Emit returns
		if _, delivered, took := wait(completed("2")); !delivered || took != 0 {
			t.Errorf("confirmed at once: %v after %s", delivered, took)
		}
		w.onEmit = nil
		keyed := completed("3")
		keyed.IdempotencyKey = "k"
		res, delivered, took := wait(keyed)
		if delivered || took != 5*time.Second {
			t.Errorf("nobody confirms: %v after %s", delivered, took)
		}
		s.Confirmed("ann", res.ID)
		if res, delivered, took = wait(keyed); !delivered || took != 0 || !res.Repeated {
			t.Errorf("a repeat of a confirmed event: %+v, %v after %s", res, delivered, took)
		}
		time.Sleep(time.Second)
		if _, delivered, took = wait(keyed); !delivered || took != 0 {
			t.Errorf("a repeat of a stored receipt: %v after %s", delivered, took)
		}
		if res, delivered, took = wait(progress("3", 1)); delivered || took != 0 || res.Status != delivery.StatusIgnored {
			t.Errorf("ignored: %+v, %v after %s", res, delivered, took)
		}
		w.onEmit = func(user string, f frame) {
			if f.confirm {
				s.Confirmed(user, f.id)
			}
		}
		if res, delivered, took = wait(progress("4", 1)); !delivered || res.Status != delivery.StatusSent {
			t.Errorf("progress that somebody waits for: %+v, %v after %s", res, delivered, took)
		}
		if res, delivered, took = wait(progress("4", 2)); delivered || took != 0 || res.Status != delivery.StatusCoalesced {
			t.Errorf("coalesced: %+v, %v after %s", res, delivered, took)
		}
	})
}
