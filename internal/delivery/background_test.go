package delivery_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"jobwire/internal/delivery"
	"jobwire/internal/events"
)

// logbook is a log that several goroutines write, and tests read.
type logbook struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logbook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logbook) logger() *slog.Logger { return slog.New(slog.NewJSONHandler(l, nil)) }

// lines returns what was logged, and checks that nothing of the events' data is in it.
func (l *logbook) lines(t *testing.T) (lines []map[string]any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if bytes.Contains(l.b.Bytes(), []byte("secret")) {
		t.Errorf("payloads are logged: %s", l.b.Bytes())
	}
	for line := range bytes.Lines(l.b.Bytes()) {
		var attrs map[string]any
		if err := json.Unmarshal(line, &attrs); err != nil {
			t.Error(err)
		}
		lines = append(lines, attrs)
	}
	return lines
}

func TestWatchdog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ref := newReference()
		w := beginOn(t, delivery.Config{Coalesce: interval}, ref)
		twin := &world{T: t, ref: ref, store: w.store, hub: newHub()} // watches, too
		twin.Service = delivery.New(delivery.Config{Coalesce: interval, Logger: quiet}, w.store, twin.hub)
		k := w.socket("ann")
		w.connect(k)
		start := time.Now()
		w.publish(watched(2*time.Second, progress("stalls", `1`)))
		w.publish(watched(2*time.Second, progress("ends", `1`)))
		w.publish(watched(2*time.Second, progress("goes on", `1`)))
		w.publish(watched(2*time.Second, progress("is not watched any more", `1`)))
		time.Sleep(1500 * time.Millisecond)
		w.publish(completed("ends", `2`))
		w.publish(watched(2*time.Second, progress("goes on", `2`)))
		w.publish(progress("is not watched any more", `2`))
		time.Sleep(1500 * time.Millisecond)
		var stalls []frame
		for _, f := range k.frames() {
			if f.name == events.JobStalled {
				stalls = append(stalls, f)
			}
		}
		want := string(delivery.StalledData("stalls", start))
		if len(stalls) != 1 || stalls[0].data != want || !stalls[0].receipt {
			t.Fatalf("stalls %+v, want %s", stalls, want)
		}
		if late := stalls[0].at.Sub(start) - 2*time.Second; late < 0 || late > 100*time.Millisecond {
			t.Errorf("told %s late", late)
		}
		w.bye(k)
		twin.end()
		w.end()
		w.idle()

		// The deadline of a job passes while no process runs.
		time.Sleep(time.Minute)
		w = beginOn(t, delivery.Config{}, ref)
		time.Sleep(150 * time.Millisecond)
		k = w.socket("ann")
		w.connect(k)
		if got := k.frames()[len(k.frames())-1]; got.data != string(delivery.StalledData("goes on", start.Add(1500*time.Millisecond))) {
			t.Errorf("after the restart: %+v", got)
		}
		if n := w.Stats().Stalled.Load(); n != 1 {
			t.Errorf("%d stalls counted", n)
		}
		w.bye(k)
		w.end()
	})
}

func TestWatchdogTakesWhatIsDueInBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log logbook
		ref := newReference()
		var calls, failing atomic.Int64
		ref.on = func(_ context.Context, op, _ string) error {
			if op == "stall" {
				if calls.Add(1); failing.Add(-1) >= 0 {
					return errors.New("no")
				}
			}
			return nil
		}
		w := beginOn(t, delivery.Config{StallEvery: time.Second, Logger: log.logger()}, ref)
		var evs []events.Event
		for i := range 300 {
			evs = append(evs, watched(interval, event(fmt.Sprint("user", i%10), events.JobProgress, fmt.Sprint(i), `"secret"`)))
		}
		if _, err := w.PublishBatch(t.Context(), evs); err != nil {
			t.Fatal(err)
		}
		failing.Store(3)
		time.Sleep(3*time.Second + interval)
		if n := w.Stats().Stalled.Load(); n != 0 || calls.Load() != 3 {
			t.Errorf("%d stalled, %d calls", n, calls.Load())
		}
		time.Sleep(time.Second)
		if n := w.Stats().Stalled.Load(); n != 300 || calls.Load() != 6 {
			t.Errorf("%d stalled, %d calls", n, calls.Load())
		}
		w.end()
		if lines := log.lines(t); len(lines) != 1 || w.Stats().StoreFailures.Load() != 3 {
			t.Errorf("%d failures, logged %v", w.Stats().StoreFailures.Load(), lines)
		}
	})
}

// sweeps is a store that has a great deal to sweep.
type sweeps struct {
	delivery.Store
	steps int // of each sweep
	calls int
	swept delivery.Swept // of the first call
	err   error
}

func (s *sweeps) Sweep(ctx context.Context) (swept delivery.Swept, err error) {
	if s.err != nil {
		return delivery.Swept{}, s.err
	}
	if s.calls == 0 {
		swept = s.swept
	}
	s.calls++
	swept.More = s.calls%s.steps != 0
	return swept, ctx.Err()
}

func TestSweeper(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log logbook
		ref := newReference()
		w := &world{T: t, ref: ref, store: ref.open(), hub: newHub()}
		store := &sweeps{Store: w.store, steps: 5000}
		w.Service = delivery.New(delivery.Config{SweepEvery: time.Minute, Logger: log.logger()}, store, w.hub)
		k := w.socket("ann")
		w.connect(k)
		time.Sleep(time.Minute)
		w.publish(watched(5*time.Second, progress("1", `1`))) // stalls during the sweep
		time.Sleep(6 * time.Second)
		if got := k.frames(); len(got) != 2 || got[1].name != events.JobStalled {
			t.Errorf("the socket got %s", names(got))
		}
		time.Sleep(3 * time.Minute)
		w.bye(k)
		w.end()
		if store.calls != 10_000 || w.Stats().StoreFailures.Load() != 0 || len(log.lines(t)) != 0 {
			t.Errorf("%d calls, %d failures, logged %v", store.calls, w.Stats().StoreFailures.Load(), log.lines(t))
		}
	})
}

func TestLossesAreCountedAndLogged(t *testing.T) {
	for _, c := range []struct {
		name                string
		swept               map[string]delivery.Dropped
		lost, users, most   float64 // as logged; no line without losses
		worst               string
		dropped, gone, jobs uint64 // as counted
	}{
		{name: "nothing"},
		{
			name:    "what was confirmed or had ended is no loss",
			swept:   map[string]delivery.Dropped{"ann": {Messages: 3, Jobs: 2, UpTo: events.ID{Ms: 1}}},
			dropped: 3, jobs: 2,
		},
		{
			name: "messages and jobs of several users",
			swept: map[string]delivery.Dropped{
				"ann": {Messages: 3, Unconfirmed: 2, UpTo: events.ID{Ms: 1}},
				"bob": {Messages: 1, Unconfirmed: 1, Jobs: 5, Running: 4, UpTo: events.ID{Ms: 1}},
				"cia": {Jobs: 1, Running: 1},
			},
			lost: 8, users: 3, worst: "bob", most: 5, dropped: 4, gone: 3, jobs: 6,
		},
		{
			name: "the same user as ever when several lost the same",
			swept: map[string]delivery.Dropped{
				"cia": {Jobs: 1, Running: 1}, "ann": {Jobs: 1, Running: 1}, "bob": {Jobs: 1, Running: 1},
			},
			lost: 3, users: 3, worst: "ann", most: 1, jobs: 3,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log logbook
				ref := newReference()
				w := &world{T: t, ref: ref, store: ref.open(), hub: newHub()}
				store := &sweeps{Store: w.store, steps: 3, swept: delivery.Swept{Dropped: c.swept}}
				w.Service = delivery.New(delivery.Config{SweepEvery: time.Second, Logger: log.logger()}, store, w.hub)
				time.Sleep(10 * time.Second)
				w.end()
				if st := w.Stats(); st.Dropped.Load() != c.dropped || st.Lost.Load() != c.gone || st.JobsDropped.Load() != c.jobs {
					t.Errorf("stats %+v", st)
				}
				lines := log.lines(t)
				if c.lost == 0 {
					if len(lines) != 0 {
						t.Errorf("logged %v", lines)
					}
					return
				}
				if len(lines) != 1 || lines[0]["lost"] != c.lost || lines[0]["users"] != c.users ||
					lines[0]["worst_user"] != c.worst || lines[0]["worst_user_lost"] != c.most {
					t.Errorf("logged %v", lines)
				}
			})
		})
	}
}

// What a POST pushes out, and what time takes, is told in the next line; a great many users make one line, too.
func TestLossesByPostsAndByTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log logbook
		ref := newReference()
		ref.limits = delivery.Limits{Messages: 10, Retention: time.Hour}
		w := beginOn(t, delivery.Config{StallEvery: time.Hour, Logger: log.logger()}, ref)
		for i := range 30 {
			id := w.publish(note(`"secret"`)).ID
			if i == 9 {
				w.Confirmed("ann", id)
				time.Sleep(time.Second)
			}
		}
		for i := range 1500 {
			w.publish(event(fmt.Sprint("user", i), "note", "", `1`))
		}
		var wait sync.WaitGroup
		wait.Go(func() { // gone with its message
			start := time.Now()
			_, delivered, _, err := w.PublishAndWait(t.Context(), event("zoe", "note", "", `1`), 3*time.Hour)
			if took := time.Since(start); delivered || err != nil || took > time.Hour+2*time.Minute {
				t.Errorf("delivered %v, %v after %s", delivered, err, took)
			}
		})
		time.Sleep(3 * time.Hour)
		wait.Wait()
		w.end()
		if st := w.Stats(); st.Dropped.Load() != 1531 || st.Lost.Load() != 1521 {
			t.Errorf("dropped %d, lost %d", st.Dropped.Load(), st.Lost.Load())
		}
		lines := log.lines(t)
		if len(lines) != 2 || lines[0]["lost"] != 10.0 || lines[1]["lost"] != 1511.0 || lines[1]["users"].(float64) < 1000 {
			t.Errorf("logged %v", lines)
		}
	})
}

func TestBackgroundFailuresAreLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log logbook
		ref := newReference()
		fail := errors.New("disk on fire")
		ref.on = func(_ context.Context, op, _ string) error {
			if op == "confirm" || op == "stall" {
				return fail
			}
			return nil
		}
		w := &world{T: t, ref: ref, store: ref.open(), hub: newHub()}
		store := &sweeps{Store: w.store, steps: 1, err: fail}
		w.Service = delivery.New(delivery.Config{SweepEvery: time.Second, Logger: log.logger()}, store, w.hub)
		id := w.publish(note(`"secret"`)).ID
		w.Confirmed("ann", id)
		time.Sleep(3*time.Second + interval/2)
		told := map[string]int{}
		for _, line := range log.lines(t) {
			if !strings.Contains(fmt.Sprint(line["error"]), fail.Error()) {
				t.Errorf("logged %v", line)
			}
			told[line["what"].(string)]++
		}
		if fmt.Sprint(told) != "map[to look for stalled jobs:1 to store receipts:1 to sweep old events:3]" {
			t.Errorf("told %v", told)
		}
		// The receipt was not lost.
		ref.set(func(r *reference) { r.on = nil })
		time.Sleep(time.Second)
		w.end()
		if up := ref.user("ann").confirmed(); up != id {
			t.Errorf("confirmed up to %s, want %s", up, id)
		}
		w.idle()
	})
}
