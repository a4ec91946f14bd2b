package delivery_test

import (
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
)

const interval = 100 * time.Millisecond

// timeline is what a socket got, and how many milliseconds after start.
func timeline(start time.Time, frames []frame) string {
	var b strings.Builder
	for i, f := range frames {
		if i > 0 {
			b.WriteByte(' ')
		}
		data := f.data
		if f.name == events.JobStalled {
			data = ""
		}
		fmt.Fprintf(&b, "%d:%s%s", f.at.Sub(start).Milliseconds(), strings.TrimPrefix(f.name, "job_"), data)
	}
	return b.String()
}

func TestThrottle(t *testing.T) {
	type step struct {
		at int // milliseconds
		ev events.Event
	}
	own := event("ann", "clip", "1", `"half"`)
	own.Kind = events.Progress
	ownEnd := event("ann", "clip_done", "1", `"all"`)
	ownEnd.Kind = events.Completed
	failed := event("ann", events.JobFailed, "1", `9`)
	for _, c := range []struct {
		name     string
		steps    []step
		want     string
		statuses string // their first letters
	}{
		{"the first goes out at once", []step{{0, progress("1", `1`)}}, "0:progress1", "s"},
		{
			"the last one of an interval comes at its end",
			[]step{{0, progress("1", `1`)}, {10, progress("1", `2`)}, {20, progress("1", `3`)}},
			"0:progress1 100:progress3", "scc",
		},
		{
			"what was held back begins the next interval",
			[]step{{0, progress("1", `1`)}, {10, progress("1", `2`)}, {110, progress("1", `3`)}},
			"0:progress1 100:progress2 200:progress3", "scc",
		},
		{
			"after an interval with nothing held back at once",
			[]step{{0, progress("1", `1`)}, {101, progress("1", `2`)}},
			"0:progress1 101:progress2", "ss",
		},
		{
			"jobs do not hold each other back",
			[]step{{0, progress("1", `1`)}, {10, progress("2", `2`)}, {20, progress("1", `3`)}, {30, progress("2", `4`)}},
			"0:progress1 10:progress2 100:progress3 110:progress4", "sscc",
		},
		{
			"messages are not held back",
			[]step{{0, progress("1", `1`)}, {10, progress("1", `2`)}, {20, note(`3`)}, {21, note(`4`)}},
			"0:progress1 20:note3 21:note4 100:progress2", "scss",
		},
		{
			"an end comes at once, after what was held back, and nothing comes after it",
			[]step{{0, progress("1", `1`)}, {10, progress("1", `2`)}, {20, completed("1", `3`)}, {30, progress("1", `4`)}},
			"0:progress1 20:progress2 20:completed3", "scsi",
		},
		{
			"an end with nothing held back",
			[]step{{0, progress("1", `1`)}, {20, failed}},
			"0:progress1 20:failed9", "ss",
		},
		{
			"an end leaves the progress of other jobs alone",
			[]step{{0, progress("1", `1`)}, {0, progress("2", `2`)}, {10, progress("2", `3`)}, {20, completed("1", `4`)}},
			"0:progress1 0:progress2 20:completed4 100:progress3", "sscs",
		},
		{
			"a later end of the same attempt",
			[]step{{0, progress("1", `1`)}, {10, progress("1", `2`)}, {20, failed}, {30, completed("1", `3`)}},
			"0:progress1 20:progress2 20:failed9 30:completed3", "scss",
		},
		{
			"job_stalled comes after what was held back, and the job goes on at once",
			[]step{{0, progress("1", `1`)}, {10, watched(30*time.Millisecond, progress("1", `2`))}, {60, progress("1", `3`)}},
			"0:progress1 40:progress2 40:stalled 60:progress3", "scs",
		},
		{
			"a new attempt after an end begins at once",
			[]step{{0, attempt(1, progress("1", `1`))}, {10, attempt(1, completed("1", `2`))}, {20, attempt(2, progress("1", `3`))}},
			"0:progress1 10:completed2 20:progress3", "sss",
		},
		{
			"a new attempt takes the place of what was held back of the earlier one",
			[]step{{0, attempt(1, progress("1", `1`))}, {10, attempt(1, progress("1", `2`))}, {20, attempt(2, progress("1", `3`))}},
			"0:progress1 100:progress3", "scc",
		},
		{
			"an event of an earlier attempt touches nothing",
			[]step{{0, attempt(2, progress("1", `1`))}, {10, attempt(2, progress("1", `2`))}, {20, attempt(1, completed("1", `3`))}},
			"0:progress1 100:progress2", "sci",
		},
		{
			"names of your own",
			[]step{{0, own}, {10, own}, {20, ownEnd}},
			`0:clip"half" 20:clip"half" 20:clip_done"all"`, "scs",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := begin(t, delivery.Config{Coalesce: interval, StallEvery: time.Millisecond})
				k := w.socket("ann")
				w.connect(k)
				start := time.Now()
				statuses := ""
				for _, step := range c.steps {
					sleep(time.Duration(step.at)*time.Millisecond - time.Since(start))
					statuses += string(w.publish(step.ev).Status)[:1]
				}
				time.Sleep(time.Second)
				if got := timeline(start, k.frames()); got != c.want {
					t.Errorf("the socket got %s, want %s", got, c.want)
				}
				if statuses != c.statuses {
					t.Errorf("statuses %s, want %s", statuses, c.statuses)
				}
				w.bye(k)
				w.idle()
				w.end()
			})
		})
	}
}

func TestProgressIsThrottled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := begin(t, delivery.Config{Coalesce: interval})
		k := w.socket("ann")
		w.connect(k)
		start := time.Now()
		statuses := map[delivery.Status]int{}
		for i := range 1000 {
			statuses[w.publish(progress("1", fmt.Sprint(i))).Status]++
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Second)
		got := k.frames()
		if !got[0].at.Equal(start) {
			t.Errorf("the first one came after %s", got[0].at.Sub(start))
		}
		for i := 1; i < len(got); i++ {
			if gap := got[i].at.Sub(got[i-1].at); gap < interval || gap > interval+interval/10 {
				t.Errorf("%s came %s after the one before", got[i].data, gap)
			}
		}
		if f := got[len(got)-1]; f.data != "999" || len(got) > 11 {
			t.Errorf("%d came, the last is %s", len(got), f.data)
		}
		if statuses[delivery.StatusSent] != 1 || statuses[delivery.StatusCoalesced] != 999 {
			t.Errorf("statuses %v", statuses)
		}
		w.bye(k)
		w.idle()
		w.end()
	})
}

func TestWithoutThrottleEveryProgressIsSent(t *testing.T) {
	w := begin(t, delivery.Config{})
	k := w.socket("ann")
	w.connect(k)
	for i := range 100 {
		if res := w.publish(progress("1", fmt.Sprint(i))); res.Status != delivery.StatusSent {
			t.Fatalf("progress %d: %+v", i, res)
		}
	}
	if n := len(k.frames()); n != 100 {
		t.Fatalf("%d came", n)
	}
	w.bye(k)
	w.idle()
	w.end()
}

// Many jobs of one user progress at different speeds: each keeps its interval, none is starved by the others or by messages,
// and the last one always comes.
func TestManyJobsOfOneUser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := begin(t, delivery.Config{Coalesce: interval})
		k := w.socket("ann")
		w.connect(k)
		last := map[string]string{}
		for i := range 3000 {
			job := fmt.Sprint(rand.IntN(2) * rand.IntN(8)) // job 0 is the busiest
			ev := progress(job, fmt.Sprintf(`{"job":%q,"n":%d}`, job, i))
			last[job] = string(ev.Data)
			w.publish(ev)
			if i%50 == 0 {
				w.publish(note(fmt.Sprint(i)))
			}
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Second)
		shown := map[string]frame{}
		count := map[string]int{}
		var at events.ID
		for _, f := range k.frames() {
			if f.name == "note" {
				if f.id.Compare(at) <= 0 {
					t.Errorf("message %s came after %s", f.id, at)
				}
				at = f.id
				continue
			}
			job := strings.Split(f.data, `"`)[3]
			if before, ok := shown[job]; ok && (f.at.Sub(before.at) < interval || f.place.Compare(before.place) <= 0) {
				t.Errorf("job %s: %s came %s after %s", job, f.data, f.at.Sub(before.at), before.data)
			}
			shown[job] = f
			count[job]++
		}
		for job, data := range last {
			if shown[job].data != data || count[job] < 12 {
				t.Errorf("job %s came %d times, %s at last; published was %s", job, count[job], shown[job].data, data)
			}
		}
		w.bye(k)
		w.idle()
		w.end()
	})
}

// A user for whom there is always more to do keeps neither the goroutine of the intervals nor a publisher for ever.
func TestABusyUserDoesNotHoldUpOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := begin(t, delivery.Config{Coalesce: interval})
		busy, ann := w.socket("busy"), w.socket("ann")
		w.connect(busy)
		w.connect(ann)
		var slow atomic.Bool
		w.hub.then(func(user string, _ frame) {
			if user == "busy" && slow.Load() {
				sleep(time.Millisecond)
			}
		})
		batch := func(n, notes int) (evs []events.Event) {
			for i := range notes {
				evs = append(evs, event("busy", "note", "", fmt.Sprint(i)))
			}
			for range 2 {
				evs = append(evs, event("busy", events.JobProgress, fmt.Sprint(n), fmt.Sprint(time.Now().UnixMilli())))
			}
			return evs
		}
		for n := range 20 {
			_, _ = w.PublishBatch(t.Context(), batch(n, 0))
		}
		slow.Store(true)
		time.Sleep(interval - time.Millisecond) // as the ends of their intervals come, there is always more to do
		stop := time.Now().Add(3 * time.Second)
		var workers sync.WaitGroup
		for n := range 4 {
			workers.Go(func() {
				for time.Now().Before(stop) {
					_, _ = w.PublishBatch(t.Context(), batch(n, 50))
				}
			})
		}
		time.Sleep(time.Second)
		start := time.Now()
		w.publish(progress("1", `1`))
		w.publish(progress("1", `2`))
		time.Sleep(2 * interval)
		if got := ann.frames(); names(got) != `progress1 progress2` || got[1].at.Sub(start) > interval+interval/2 {
			t.Errorf("%s", timeline(start, got))
		}
		if n := len(busy.frames()); n < 1000 {
			t.Errorf("the busy user was not busy: %d events", n)
		}
		workers.Wait()
		time.Sleep(time.Second)
		w.bye(busy)
		w.bye(ann)
		w.idle()
		w.end()
	})
}
