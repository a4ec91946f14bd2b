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
)

// back is a socket whose client sends an offset.
func (w *world) back(user, offset string) *sink {
	k := w.socket(user)
	k.offset, k.has = offset, true
	return k
}

func TestReplayOfMessages(t *testing.T) {
	ref := newReference()
	ref.limits.Messages = 4
	w := beginOn(t, delivery.Config{}, ref)
	var ids []string
	for i := range 6 { // 0 and 1 are dropped
		ids = append(ids, w.publish(note(fmt.Sprint(i))).ID.String())
	}
	at := w.publish(progress("1", `"p"`)).ID
	w.publish(completed("1", `6`)) // 2 is dropped
	foreign := w.publish(event("bob", "note", "", `1`)).ID.String()
	third, _ := events.ParseID(ids[3])
	w.Confirmed("ann", third)
	for _, c := range []struct {
		name, offset string
		has          bool
		recovered    bool
		want         string
	}{
		{"a first connect: what no client has confirmed", "", false, true, "note4 note5 completed6"},
		{"no offset that counts: the same", ids[1], true, false, "note4 note5 completed6"},
		{"nothing missed, which confirms the ones before, too", ids[5], true, true, "completed6"},
		{"a few missed, though confirmed by another client", ids[3], true, true, "note4 note5 completed6"},
		{"the newest one that is gone", ids[2], true, false, "completed6"},
		{"the place of progress", at.String(), true, false, "completed6"},
		{"of another user", foreign, true, false, "completed6"},
		{"from the future", "99999999999999-0", true, false, "completed6"},
		{"zero", "0-0", true, false, "completed6"},
		{"empty", "", true, false, "completed6"},
		{"not an id", "hello", true, false, "completed6"},
		{"nearly an id", "0" + ids[5], true, false, "completed6"},
		{"too long for an id", strings.Repeat("9", 100) + "-1", true, false, "completed6"},
	} {
		k := w.socket("ann")
		k.offset, k.has = c.offset, c.has
		if r := w.connect(k); r.Recovered != c.recovered {
			t.Errorf("%s: recovered %v", c.name, r.Recovered)
		}
		if got := names(k.frames()); got != c.want || !k.live {
			t.Errorf("%s: %s, want %s; live %v", c.name, got, c.want, k.live)
		}
		for _, f := range k.frames() {
			if !f.receipt {
				t.Errorf("%s: %s asks for no receipt", c.name, f.data)
			}
		}
		w.bye(k)
	}
	if st := w.Stats(); st.Replays.Load() != 13 || st.Unrecovered.Load() != 10 {
		t.Errorf("stats %+v", st)
	}
	w.end()
	w.idle()
}

func TestReplayOfJobs(t *testing.T) {
	stalled := func(w *world) events.ID {
		w.publish(watched(time.Second, progress("1", `1`)))
		time.Sleep(2 * time.Second)
		w.ref.mu.Lock()
		defer w.ref.mu.Unlock()
		u := w.ref.user("ann")
		return w.ref.state(u, u.done).last
	}
	for _, c := range []struct {
		name  string
		setup func(w *world) (offset string)
		want  string // a message has its "!"
	}{
		{"the latest progress of each", func(w *world) string {
			w.publish(progress("1", `1`))
			w.publish(progress("2", `2`))
			w.publish(progress("1", `3`))
			return ""
		}, "progress2 progress3"},
		{"by place, among messages", func(w *world) string {
			w.publish(note(`1`))
			w.publish(progress("1", `2`))
			w.publish(note(`3`))
			return ""
		}, "note1! progress2 note3!"},
		{"though its place is before the offset", func(w *world) string {
			w.publish(progress("1", `"2"`))
			return w.publish(note(`3`)).ID.String()
		}, `progress"2"`},
		{"none of a finished one", func(w *world) string {
			w.publish(progress("1", `1`))
			w.publish(completed("1", `2`))
			return ""
		}, "completed2!"},
		{"nothing of a finished one that was confirmed", func(w *world) string {
			w.publish(progress("1", `1`))
			w.Confirmed("ann", w.publish(completed("1", `2`)).ID)
			return ""
		}, ""},
		{"a new attempt, after the end of the earlier", func(w *world) string {
			w.publish(attempt(1, progress("1", `1`)))
			w.publish(attempt(1, completed("1", `2`)))
			w.publish(attempt(2, progress("1", `3`)))
			return ""
		}, "completed2! progress3"},
		{"a stalled one", func(w *world) string { stalled(w); return "" }, "progress1 stalled!"},
		{"a stalled one, confirmed", func(w *world) string {
			w.Confirmed("ann", stalled(w))
			return ""
		}, "progress1 stalled"},
		{"a stalled one, confirmed, that the client has seen", func(w *world) string {
			return stalled(w).String()
		}, "progress1 stalled"},
		{"a stalled one, confirmed, that this client has not seen", func(w *world) string {
			offset := w.publish(note(`0`)).ID
			w.Confirmed("ann", stalled(w))
			return offset.String()
		}, "progress1 stalled!"},
		{"one that goes on after it stalled", func(w *world) string {
			w.Confirmed("ann", stalled(w))
			w.publish(progress("1", `2`))
			return ""
		}, "progress2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := begin(t, delivery.Config{})
				offset := c.setup(w)
				k := w.socket("ann")
				if offset != "" {
					k = w.back("ann", offset)
				}
				if r := w.connect(k); !r.Recovered {
					t.Error("not recovered")
				}
				var got []string
				for _, f := range k.frames() {
					name := names([]frame{f})
					if f.name == events.JobStalled {
						name = "stalled"
					}
					if f.receipt {
						name += "!"
					}
					got = append(got, name)
				}
				if got := strings.Join(got, " "); got != c.want {
					t.Errorf("replayed %s, want %s", got, c.want)
				}
				w.bye(k)
				w.end()
				w.idle()
			})
		})
	}
}

// doors let a test hold calls of the store, by name.
type doors struct {
	mu   sync.Mutex
	held map[string]chan struct{}
}

func (d *doors) on(ctx context.Context, op, _ string) error {
	d.mu.Lock()
	door := d.held[op]
	d.mu.Unlock()
	if door != nil {
		select {
		case <-door:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (d *doors) close(op string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.held == nil {
		d.held = make(map[string]chan struct{})
	}
	d.held[op] = make(chan struct{})
}

func (d *doors) open(op string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	close(d.held[op])
	delete(d.held, op)
}

// What happens between the moments of a connect, and what the new socket sees of it.
func TestReplayMeetsWhatHappensMeanwhile(t *testing.T) {
	type world3 struct {
		*world
		doors
		first *sink // a tab that was there before
	}
	confirm := func(w *world3) { // by the first tab, all that it has
		got := w.first.frames()
		for i := len(got) - 1; i >= 0; i-- {
			if got[i].receipt {
				w.Confirmed("ann", got[i].id)
				return
			}
		}
	}
	for _, c := range []struct {
		name     string
		before   func(w *world3) // before the socket comes
		joined   func(w *world3) // it is in the room, its replay is not read
		opened   func(w *world3) // the first page is read, nothing is sent
		live     func(w *world3) // the replay is over
		want     string
		forFirst string // what the first tab sees
	}{
		{
			name:   "a receipt of another tab for what was there before",
			before: func(w *world3) { w.publish(note(`1`)) },
			joined: func(w *world3) { confirm(w); time.Sleep(time.Second) },
			want:   "", forFirst: "note1",
		},
		{
			name:   "a receipt of another tab for what came after the join",
			joined: func(w *world3) { w.publish(note(`1`)); confirm(w) },
			want:   "note1", forFirst: "note1",
		},
		{
			name:   "receipts in every gap",
			before: func(w *world3) { w.publish(note(`1`)) },
			joined: func(w *world3) { w.publish(note(`2`)); confirm(w); time.Sleep(time.Second) },
			opened: func(w *world3) { w.publish(note(`3`)); confirm(w); time.Sleep(time.Second) },
			live:   func(w *world3) { w.publish(note(`4`)); confirm(w) },
			want:   "note2 note3 note4", forFirst: "note1 note2 note3 note4",
		},
		{
			name:   "progress in every gap",
			before: func(w *world3) { w.publish(progress("1", `1`)) },
			joined: func(w *world3) { w.publish(progress("2", `2`)); w.publish(progress("3", `3`)) },
			opened: func(w *world3) { w.publish(progress("4", `4`)) },
			live:   func(w *world3) { w.publish(progress("5", `5`)) },
			want:   "progress1 progress2 progress3 progress4 progress5", forFirst: "progress1 progress2 progress3 progress4 progress5",
		},
		{
			name:   "progress that is held back from before the join",
			before: func(w *world3) { w.publish(progress("1", `1`)); w.publish(progress("1", `2`)) },
			live:   func(*world3) { time.Sleep(time.Second) },
			want:   "progress2", forFirst: "progress1 progress2",
		},
		{
			name: "progress that is held back from after the join, and goes out during the replay",
			joined: func(w *world3) {
				w.publish(progress("1", `1`))
				w.publish(progress("1", `2`))
				time.Sleep(interval / 2)
			},
			opened: func(w *world3) { time.Sleep(interval) },
			want:   "progress2", forFirst: "progress1 progress2",
		},
		{
			name:   "progress that is held back, from after the reading",
			joined: func(w *world3) { w.publish(progress("1", `1`)) },
			opened: func(w *world3) { w.publish(progress("1", `2`)) },
			live:   func(*world3) { time.Sleep(time.Second) },
			want:   "progress1 progress2", forFirst: "progress1 progress2",
		},
		{
			name:   "an end flushes progress that is held back from before the reading",
			joined: func(w *world3) { w.publish(progress("1", `1`)); w.publish(progress("1", `2`)) },
			opened: func(w *world3) { w.publish(completed("1", `3`)) },
			want:   "progress2 completed3", forFirst: "progress1 progress2 completed3",
		},
		{
			name:   "an end before the reading",
			before: func(w *world3) { w.publish(progress("1", `1`)); w.publish(progress("1", `2`)) },
			joined: func(w *world3) { w.publish(completed("1", `3`)); confirm(w) },
			live:   func(*world3) { time.Sleep(time.Second) },
			want:   "completed3", forFirst: "progress1 progress2 completed3",
		},
		{
			name: "a message that is not safe at the reading, and progress behind it",
			joined: func(w *world3) {
				w.close("sync")
				go w.publish(note(`1`))
				synctest.Wait()
				go w.publish(progress("1", `2`))
				synctest.Wait()
			},
			live: func(w *world3) {
				if got := names(w.first.frames()); got != "" {
					w.Errorf("emitted before it was safe: %s", got)
				}
				w.open("sync")
				synctest.Wait()
			},
			want: "note1 progress2", forFirst: "note1 progress2",
		},
		{
			name:   "a message that becomes safe after the reading, and is confirmed",
			joined: func(w *world3) { w.close("sync"); go w.publish(note(`1`)); synctest.Wait() },
			opened: func(w *world3) { w.open("sync"); synctest.Wait(); confirm(w) },
			want:   "note1", forFirst: "note1",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ref := newReference()
				w := &world3{world: beginOn(t, delivery.Config{Coalesce: interval}, ref)}
				ref.set(func(r *reference) {
					r.on = w.on
					r.sync = func() time.Duration { _ = w.on(context.Background(), "sync", ""); return 0 }
				})
				step := func(f func(*world3)) {
					if f != nil {
						f(w)
						synctest.Wait()
					}
				}
				w.first = w.socket("ann")
				w.connect(w.first)
				step(c.before)
				k := w.socket("ann")
				w.close("read")
				var replay *delivery.Replay
				opened := make(chan struct{})
				go func() {
					defer close(opened)
					var err error
					if replay, err = w.Open(context.Background(), k); err != nil {
						t.Error(err)
					}
				}()
				synctest.Wait()
				if !k.joined {
					t.Fatal("the socket is not in its room")
				}
				step(c.joined)
				w.open("read")
				<-opened
				step(c.opened)
				if len(k.frames()) > 0 {
					t.Error("something was sent before the replay")
				}
				if err := replay.Run(context.Background()); err != nil {
					t.Fatal(err)
				}
				step(c.live)
				if got := names(k.frames()); got != c.want {
					t.Errorf("the socket got %q, want %q", got, c.want)
				}
				if got := names(w.first.frames()); got != c.forFirst {
					t.Errorf("the first tab got %q, want %q", got, c.forFirst)
				}
				w.bye(k)
				w.bye(w.first)
				w.end()
				w.idle()
			})
		})
	}
}

// Pages of a replay are read while the client takes them: what happens between two pages is shown once, and in order.
func TestReplayInPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := begin(t, delivery.Config{ReplayWindow: 1000})
		for i := range 300 {
			w.publish(note(fmt.Sprintf(`{"n":%d,"text":%q}`, i, strings.Repeat("x", 200))))
			if i%100 == 50 {
				for job := range 3 {
					w.publish(progress(fmt.Sprint(job), fmt.Sprint(i)))
				}
			}
		}
		other := w.socket("ann")
		other.onFrame = func(frame) { other.read(1 << 20) }
		w.connect(other)
		k := w.socket("ann")
		n := 0
		k.onFrame = func(f frame) {
			switch n++; n {
			case 20:
				w.publish(progress("0", `"more"`))
			case 40:
				w.publish(completed("1", `"done"`))
				w.Confirmed("ann", w.publish(note(`"late"`)).ID)
			}
			go func() { time.Sleep(time.Millisecond); k.read(300) }()
		}
		w.connect(k)
		synctest.Wait()
		var at events.ID
		jobs := ""
		notes := 0
		for _, f := range k.frames() {
			if f.name == "note" {
				if notes++; f.id.Compare(at) <= 0 {
					t.Errorf("message %s came after %s", f.id, at)
				}
				at = f.id
			} else {
				jobs += f.data + " "
			}
		}
		if notes != 301 || k.most > 1000+300 {
			t.Errorf("%d messages, at most %d bytes piled up", notes, k.most)
		}
		// Of jobs 0 and 1 the state as of the beginning was not read yet when it changed.
		if jobs != `250 "more" "done" ` {
			t.Errorf("jobs: %s", jobs)
		}
		time.Sleep(time.Second)
		w.bye(k)
		w.bye(other)
		w.idle()
		w.end()
	})
}

// What retention takes during a replay, before it was sent: a client that was told it misses nothing comes back, and is told.
func TestReplayIsOvertakenByRetention(t *testing.T) {
	for _, c := range []struct {
		name  string
		tab   func(w *world, first events.ID) *sink
		again bool
	}{
		{"an offset that counts", func(w *world, first events.ID) *sink { return w.back("ann", first.String()) }, true},
		{"an offset that does not", func(w *world, _ events.ID) *sink { return w.back("ann", "1-0") }, false},
		{"no offset", func(w *world, _ events.ID) *sink { return w.socket("ann") }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ref := newReference()
				ref.limits.Messages = 300
				w := beginOn(t, delivery.Config{}, ref)
				first := w.publish(note(`0`)).ID
				for i := 1; i < 300; i++ {
					w.publish(note(fmt.Sprint(i)))
				}
				k := c.tab(w, first)
				sent := 0
				k.onFrame = func(frame) {
					if sent++; sent == 10 {
						for range 250 {
							w.publish(note(`"more"`))
						}
					}
				}
				r, err := w.Open(context.Background(), k)
				if err == nil {
					err = r.Run(context.Background())
				}
				if again := errors.Is(err, delivery.ErrReplayOvertaken); again != c.again || !again && err != nil {
					t.Errorf("the replay ended with %v", err)
				}
				got := k.frames()
				w.bye(k)
				if c.again {
					k = w.back("ann", got[len(got)-1].id.String())
					if r := w.connect(k); r.Recovered || len(k.frames()) != 300 {
						t.Errorf("as it comes back: recovered %v, %d frames", r.Recovered, len(k.frames()))
					}
					w.bye(k)
				}
				w.end()
			})
		})
	}
}

func TestReplayEndsWithoutItsSocket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := begin(t, delivery.Config{ReplayWindow: 1000, ReplayStall: 5 * time.Second})
		for range 50 {
			w.publish(note(`"` + strings.Repeat("x", 500) + `"`))
		}
		run := func(ctx context.Context, k *sink) (error, time.Duration) { //nolint:staticcheck // what it is about comes first
			start := time.Now()
			r, err := w.Open(ctx, k)
			if err == nil {
				err = r.Run(ctx)
			}
			return err, time.Since(start)
		}
		ctx := context.Background()
		closed, stuck, late, shut := w.socket("ann"), w.socket("ann"), w.socket("ann"), w.socket("ann")
		closed.onFrame = func(frame) { closed.leave() }
		if err, _ := run(ctx, closed); !errors.Is(err, delivery.ErrSinkClosed) {
			t.Errorf("closed: %v", err)
		}
		if err, took := run(ctx, stuck); !errors.Is(err, delivery.ErrReplayStalled) || took < 5*time.Second || took > 6*time.Second {
			t.Errorf("stuck: %v after %s", err, took)
		}
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		if err, took := run(short, late); !errors.Is(err, context.DeadlineExceeded) || took != time.Second {
			t.Errorf("its context has ended: %v after %s", err, took)
		}
		done := make(chan error)
		go func() { err, _ := run(ctx, shut); done <- err }()
		synctest.Wait()
		w.end()
		if err := <-done; !errors.Is(err, delivery.ErrClosed) {
			t.Errorf("the service closes: %v", err)
		}
		for _, k := range []*sink{closed, stuck, late, shut} {
			if k.live {
				t.Error("a socket went live without its replay")
			}
			w.bye(k)
		}
		w.idle()
	})
}

func TestAReplayThatWaitsForTheStoreDoesNotHoldUpOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d doors
		ref := newReference()
		ref.on = d.on
		w := beginOn(t, delivery.Config{}, ref)
		first := w.socket("ann")
		w.connect(first)
		d.close("read")
		sockets := make([]*sink, 100) // more than may read at once
		var opens sync.WaitGroup
		for i := range sockets {
			sockets[i] = w.socket("ann")
			opens.Go(func() { w.connect(sockets[i]) })
		}
		synctest.Wait()
		if res := w.publish(note(`1`)); res.Sockets != len(sockets)+1 || names(first.frames()) != "note1" {
			t.Errorf("%+v, the first tab got %s", res, names(first.frames()))
		}
		d.open("read")
		opens.Wait()
		for _, k := range append(sockets, first) { //nolint:makezero // behind the others
			if got := names(k.frames()); got != "note1" {
				t.Errorf("a tab got %s", got)
			}
			w.bye(k)
		}
		w.idle()
		w.end()
	})
}

func FuzzOffset(f *testing.F) {
	for _, s := range []string{"", "0-0", "1-1", "18446744073709551615-18446744073709551615", "1700000000000-0", "-", "00-1", "1-1-1", "\x00"} {
		f.Add(s)
	}
	ref := newReference()
	w := beginOn(nil, delivery.Config{Logger: quiet}, ref)
	var ids []string
	for range 8 {
		res, err := w.Publish(context.Background(), note(`1`))
		if err != nil {
			f.Fatal(err)
		}
		ids = append(ids, res.ID.String())
	}
	f.Add(ids[3])
	f.Cleanup(func() { _ = w.Close(context.Background()); w.store.kill() })
	f.Fuzz(func(t *testing.T, offset string) {
		k := w.back("ann", offset)
		r, err := w.Open(context.Background(), k)
		if err == nil {
			err = r.Run(context.Background())
		}
		if err != nil || r.Recovered != slices.Contains(ids, offset) {
			t.Errorf("offset %q: recovered %v, %v", offset, r.Recovered, err)
		}
		w.bye(k)
	})
}
