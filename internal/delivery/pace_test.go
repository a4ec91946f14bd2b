package delivery_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"jobwire/internal/delivery"
	"jobwire/internal/events"
	"jobwire/internal/store/embedded"
)

const interval = 100 * time.Millisecond

func TestProgressIsCoalesced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{sockets: 1}
		s := begin(t, delivery.Config{Coalesce: interval}, w)
		start := time.Now()
		var last delivery.Result
		statuses := map[delivery.Status]int{}
		for i := range 1000 {
			last = publish(t, s, progress("1", i))
			statuses[last.Status]++
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Second)
		frames := w.of("ann")
		rising(t, frames)
		if !frames[0].at.Equal(start) {
			t.Errorf("the first one came after %s", frames[0].at.Sub(start))
		}
		for i := 1; i < len(frames); i++ {
			if gap := frames[i].at.Sub(frames[i-1].at); gap < interval {
				t.Errorf("two within %s", gap)
			}
		}
		if len(frames) > 11 {
			t.Errorf("%d emissions in a second", len(frames))
		}
		if f := frames[len(frames)-1]; f.id != last.ID || f.at.Sub(start) > time.Second+interval {
			t.Errorf("the last one on the wire is %+v, the last accepted %s", f, last.ID)
		}
		if statuses[delivery.StatusSent]+statuses[delivery.StatusCoalesced] != 1000 || statuses[delivery.StatusSent] > 11 {
			t.Errorf("statuses %v", statuses)
		}
		if !s.Idle() {
			t.Error("the job's pace is still in memory")
		}
		end(t, s)
	})
}

func TestProgressSlowerThanTheIntervalIsNotDelayed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{sockets: 1}
		s := begin(t, delivery.Config{Coalesce: interval}, w)
		defer end(t, s)
		for i := range 10 {
			res := publish(t, s, progress("1", i))
			if res.Status != delivery.StatusSent || len(w.of("ann")) != i+1 {
				t.Fatalf("progress %d: %+v", i, res)
			}
			time.Sleep(interval + time.Millisecond)
		}
	})
}

func TestCoalescingOffSendsEverything(t *testing.T) {
	w := &wire{sockets: 1}
	s := begin(t, delivery.Config{}, w)
	defer end(t, s)
	for i := range 100 {
		publish(t, s, progress("1", i))
	}
	if n := len(w.of("ann")); n != 100 {
		t.Fatalf("%d emissions", n)
	}
}

func names(frames []frame) string {
	var b strings.Builder
	for _, f := range frames {
		fmt.Fprintf(&b, "%s%s ", strings.TrimPrefix(f.name, "job_"), f.data)
	}
	return b.String()
}

func TestTerminalFlushesAndGoesOutAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{sockets: 1}
		s := begin(t, delivery.Config{Coalesce: interval}, w)
		defer end(t, s)
		start := time.Now()
		for i := range 5 {
			publish(t, s, event("ann", events.JobProgress, "1", fmt.Sprint(i)))
		}
		publish(t, s, event("ann", events.JobFailed, "1", `"x"`))
		frames := w.of("ann")
		if got := names(frames); got != `progress0 progress4 failed"x" ` {
			t.Fatalf("emitted %s", got)
		}
		rising(t, frames)
		if time.Since(start) != 0 {
			t.Fatalf("it took %s", time.Since(start))
		}
		time.Sleep(time.Second)
		if n := len(w.of("ann")); n != 3 {
			t.Fatalf("%d emissions", n)
		}
		// A new attempt starts at once, whatever the last one's pace was.
		again := event("ann", events.JobProgress, "1", `"again"`)
		again.Attempt = 1
		if res := publish(t, s, again); res.Status != delivery.StatusSent {
			t.Fatalf("%+v", res)
		}
	})
}

func TestTerminalFlushesOvertakenProgressUnderAnIdOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{sockets: 1}
		s := begin(t, delivery.Config{Coalesce: interval}, w)
		defer end(t, s)
		publish(t, s, event("ann", events.JobProgress, "1", `1`))
		publish(t, s, event("ann", events.JobProgress, "1", `2`)) // held back
		note := publish(t, s, event("ann", "note", "", `0`))      // overtakes it
		done := publish(t, s, event("ann", events.JobCompleted, "1", `3`))
		frames := w.of("ann")
		if got := names(frames); got != `progress1 note0 progress2 completed3 ` {
			t.Fatalf("emitted %s", got)
		}
		rising(t, frames)
		if id := frames[2].id; id.Compare(note.ID) <= 0 || id.Compare(done.ID) >= 0 {
			t.Fatalf("flushed under %s", id)
		}
	})
}

func TestOvertakenProgressGetsANewIdAndIsReplayedUnderIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{sockets: 1}
		s := begin(t, delivery.Config{Coalesce: interval}, w)
		defer end(t, s)
		publish(t, s, event("ann", events.JobProgress, "1", `1`))
		old := publish(t, s, event("ann", events.JobProgress, "1", `2`))
		note := publish(t, s, event("ann", "note", "", `0`))
		s.Confirmed("ann", note.ID)
		time.Sleep(2 * interval)
		frames := w.of("ann")
		if got := names(frames); got != `progress1 note0 progress2 ` {
			t.Fatalf("emitted %s", got)
		}
		rising(t, frames)
		if frames[2].id == old.ID {
			t.Fatal("the overtaken progress kept its id")
		}
		// A client that left after the note must still get the progress.
		sink := &sink{user: "ann", offset: note.ID.String(), has: true}
		if _, err := s.Attach(context.Background(), sink); err != nil {
			t.Fatal(err)
		}
		if got := sink.got; len(got) != 1 || got[0].id != frames[2].id {
			t.Fatalf("replayed %+v", got)
		}
	})
}

// Many jobs of one user progress at different speeds: each keeps its pace,
// none is starved by the others, ids rise, and the last one always comes.
func TestManyJobsOfOneUser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{sockets: 1}
		s := begin(t, delivery.Config{Coalesce: interval}, w)
		lastOf := map[string]string{}
		for i := range 3000 {
			job := fmt.Sprint(rand.IntN(2) * rand.IntN(8)) // job 0 is the busiest
			ev := event("ann", events.JobProgress, job, fmt.Sprintf(`"%s/%d"`, job, i))
			lastOf[job] = string(ev.Data)
			publish(t, s, ev)
			if i%50 == 0 {
				publish(t, s, event("ann", "note", "", fmt.Sprint(i)))
			}
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Second)
		frames := w.of("ann")
		rising(t, frames)
		seen := map[string]frame{}
		count := map[string]int{}
		for _, f := range frames {
			if f.name != events.JobProgress {
				continue
			}
			job, _, _ := strings.Cut(f.data[1:], "/")
			if prev, ok := seen[job]; ok && f.at.Sub(prev.at) < interval {
				t.Errorf("job %s: two within %s", job, f.at.Sub(prev.at))
			}
			seen[job] = f
			count[job]++
		}
		for job, last := range lastOf {
			if seen[job].data != last {
				t.Errorf("job %s: the last on the wire is %s, the last accepted %s", job, seen[job].data, last)
			}
			if count[job] < 12 {
				t.Errorf("job %s came only %d times in 3 s", job, count[job])
			}
		}
		end(t, s)
	})
}

func TestTheLastProgressComesHoweverSlowTheStoreIs(t *testing.T) {
	for _, c := range []struct {
		name           string
		fails          time.Duration // the store refuses all for so long
		delay          time.Duration // so much later it answers
		user, waitsFor string        // who meets the delay
		end            bool          // the job ends meanwhile
	}{
		{name: "at first", fails: interval + interval/2},
		{name: "for a while", fails: 10 * interval},
		{name: "its own user's events wait for the disk", delay: 5 * interval, user: "ann", waitsFor: "note"},
		{name: "its end waits for the disk", delay: 5 * interval, user: "ann", waitsFor: "note", end: true},
		{name: "its new id waits for the disk", delay: 5 * interval, user: "ann", waitsFor: "refresh"},
		{name: "another user's events wait for the disk", delay: 10 * interval, user: "bob", waitsFor: "note"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &wire{sockets: 1}
				var broken atomic.Bool
				s := beginOn(t, delivery.Config{Coalesce: interval}, &hiccups{
					Store: embedded.NewMemory(delivery.Limits{}, nil),
					of: func(e *delivery.Entry) (time.Duration, error) {
						refresh := e.Kind == delivery.KindRefresh
						switch {
						case !broken.Load():
						case c.fails > 0:
							return 0, errors.New("no")
						case e.Event.UserID == c.user && refresh == (c.waitsFor == "refresh"):
							return c.delay, nil
						}
						return 0, nil
					},
				}, w)
				var slow sync.WaitGroup
				const later = interval / 5
				for _, user := range []string{"bob", "ann"} { // bob has the same, and needs his new id first
					publish(t, s, event(user, events.JobProgress, "1", `1`))
					publish(t, s, event(user, events.JobProgress, "1", `2`))
					publish(t, s, event(user, "note", "", `0`))
					time.Sleep(later)
				}
				broken.Store(true)
				time.AfterFunc(c.fails, func() { broken.Store(c.fails == 0) })
				if c.waitsFor == "note" {
					time.Sleep(interval - 2*later - time.Millisecond) // the call is at the store when the new id comes
					late := event(c.user, "note", "", `1`)
					if c.end {
						late = event(c.user, events.JobCompleted, "1", `3`)
					}
					slow.Go(func() { publish(t, s, late) })
				}
				time.Sleep(c.fails + interval + interval/2)
				if c.delay > 0 && c.user == "ann" {
					time.Sleep(c.delay)
				}
				last := 0
				for _, f := range w.of("ann") {
					if f.name == events.JobProgress && f.data == "2" {
						last++
					}
				}
				if last != 1 {
					t.Errorf("the last progress came %d times: %s", last, names(w.of("ann")))
				}
				slow.Wait()
				time.Sleep(time.Second)
				rising(t, w.of("ann"))
				end(t, s)
			})
		})
	}
}

// hiccups is a store that answers some calls late, or not.
type hiccups struct {
	delivery.Store
	of func(e *delivery.Entry) (time.Duration, error)
}

func (h *hiccups) Publish(ctx context.Context, es []delivery.Entry) ([]delivery.Decision, error) {
	for i := range es {
		delay, err := h.of(&es[i])
		if err != nil {
			return nil, err
		}
		defer time.Sleep(delay)
	}
	return h.Store.Publish(ctx, es)
}

func TestABusyUserDoesNotHoldUpOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{sockets: 1}
		var slow atomic.Bool
		w.onEmit = func(user string, _ frame) {
			if user == "busy" && slow.Load() {
				time.Sleep(10 * time.Millisecond)
			}
		}
		s := begin(t, delivery.Config{Coalesce: interval}, w)
		for n := range 20 {
			job := fmt.Sprint("first", n)
			s.PublishBatch(t.Context(), []events.Event{event("busy", events.JobProgress, job, `1`), event("busy", events.JobProgress, job, `2`)})
		}
		slow.Store(true)
		time.Sleep(interval + interval/2) // the ends of their intervals are being worked on, and from here on there is always more
		var workers sync.WaitGroup
		stop := time.Now().Add(5 * time.Second)
		for n := range 4 {
			workers.Go(func() {
				for i := 0; time.Now().Before(stop); i++ {
					batch := []events.Event{event("busy", events.JobProgress, fmt.Sprint(n), fmt.Sprint(i))}
					for range 50 {
						batch = append(batch, event("busy", "note", "", fmt.Sprint(i)))
					}
					s.PublishBatch(t.Context(), batch)
				}
			})
		}
		time.Sleep(time.Second)
		publish(t, s, event("ann", events.JobProgress, "1", `1`))
		publish(t, s, event("ann", events.JobProgress, "1", `2`))
		time.Sleep(2 * interval)
		if got := names(w.of("ann")); got != `progress1 progress2 ` {
			t.Errorf("emitted %s", got)
		}
		workers.Wait()
		time.Sleep(time.Second)
		end(t, s)
	})
}

func TestStalledJobIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{sockets: 1}
		store := embedded.NewMemory(delivery.Limits{}, nil)
		s := beginOn(t, delivery.Config{Coalesce: interval}, store, w)
		watched := func(job string, after time.Duration) events.Event {
			ev := event("ann", events.JobProgress, job, `1`)
			ev.StaleAfter = after
			return ev
		}
		start := time.Now().UTC()
		publish(t, s, watched("stalls", 2*time.Second))
		publish(t, s, watched("ends", 2*time.Second))
		publish(t, s, watched("goes on", 2*time.Second))
		time.Sleep(1500 * time.Millisecond)
		publish(t, s, completed("ends"))
		publish(t, s, watched("goes on", 2*time.Second))
		time.Sleep(time.Second)
		var stalls []frame
		for _, f := range w.of("ann") {
			if f.name == events.JobStalled {
				stalls = append(stalls, f)
			}
		}
		want := fmt.Sprintf(`{"jobId":"stalls","lastEventAt":"%s"}`, start.Format("2006-01-02T15:04:05.000Z"))
		if len(stalls) != 1 || stalls[0].data != want || !stalls[0].confirm || stalls[0].id.IsZero() {
			t.Fatalf("stalls %+v, want %s", stalls, want)
		}
		if late := stalls[0].at.Sub(start) - 2*time.Second; late < 0 || late > 50*time.Millisecond {
			t.Errorf("told %s late", late)
		}
		end(t, s)

		// The second job's deadline passes while no process runs.
		time.Sleep(time.Minute)
		w2 := &wire{}
		s = beginOn(t, delivery.Config{}, store, w2)
		time.Sleep(10 * time.Millisecond)
		if got := w2.of("ann"); len(got) != 1 || !strings.Contains(got[0].data, "goes on") {
			t.Fatalf("after the restart: %+v", got)
		}
		jobs, err := s.Jobs(context.Background(), "ann")
		if err != nil || len(jobs) != 3 || jobs[0].State != delivery.JobStalled {
			t.Fatalf("%+v, %v", jobs, err)
		}
		publish(t, s, watched("stalls", 0))
		jobs, err = s.Jobs(context.Background(), "ann")
		if err != nil || jobs[0].JobID != "stalls" || jobs[0].State != delivery.JobRunning {
			t.Fatalf("%+v, %v", jobs, err)
		}
		end(t, s)
	})
}

// longSweep is a store with a great many users.
type longSweep struct{ delivery.Store }

func (s longSweep) Sweep(ctx context.Context) (delivery.Swept, error) {
	swept, err := s.Store.Sweep(ctx)
	swept.More = true
	return swept, err
}

func TestStallsAreToldDuringASweep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{sockets: 1}
		s := beginOn(t, delivery.Config{SweepEvery: time.Second}, longSweep{embedded.NewMemory(delivery.Limits{}, nil)}, w)
		ev := progress("1", 1)
		ev.StaleAfter = 5 * time.Second
		publish(t, s, ev)
		time.Sleep(5*time.Second + 10*time.Millisecond)
		if frames := w.of("ann"); len(frames) != 2 || frames[1].name != events.JobStalled {
			t.Errorf("emitted %s", names(frames))
		}
		end(t, s)
	})
}

// lateRefreshes delays the requests for new ids, so that newer progress is
// always faster.
type lateRefreshes struct{ delivery.Store }

func (s lateRefreshes) Publish(ctx context.Context, es []delivery.Entry) ([]delivery.Decision, error) {
	if es[0].Kind == delivery.KindRefresh {
		time.Sleep(5 * time.Millisecond)
	}
	return s.Store.Publish(ctx, es)
}

func TestProgressThatIsAlwaysOvertakenIsNotStarved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{sockets: 1}
		s := beginOn(t, delivery.Config{Coalesce: interval}, lateRefreshes{embedded.NewMemory(delivery.Limits{}, nil)}, w)
		for i := range 1000 {
			publish(t, s, event("ann", events.JobProgress, "1", fmt.Sprint(i)))
			publish(t, s, event("ann", "note", "", fmt.Sprint(i)))
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Second)
		var shown []frame
		for _, f := range w.of("ann") {
			if f.name == events.JobProgress {
				shown = append(shown, f)
			}
		}
		for i := 1; i < len(shown); i++ {
			if gap := shown[i].at.Sub(shown[i-1].at); gap < interval {
				t.Errorf("progress %s came %v after %s", shown[i].data, gap, shown[i-1].data)
			}
		}
		if n := len(shown); n < 9 || shown[n-1].data != "999" {
			t.Errorf("%d emissions, the last %+v", n, shown[n-1])
		}
		rising(t, w.of("ann"))
		end(t, s)
	})
}
