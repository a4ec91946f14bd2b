package storetest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	"jobwire/internal/delivery"
	"jobwire/internal/events"
)

// step is one event of a job; attempt -1 stands for none.
type step struct {
	kind    events.Kind
	attempt int
}

// state is the reference of what is known of a job.
type state struct {
	known, ended bool
	kind         events.Kind // of the latest event
	attempt      int
	progress     int // the step of the attempt's latest progress; -1 when there is none
	end          int
}

// take is the whole rule about attempts and ends.
func (s *state) take(i int, e step) (ignored string) {
	switch {
	case s.known && e.attempt >= 0 && e.attempt < s.attempt:
		return delivery.ReasonAttemptSuperseded
	case !s.known || e.attempt > s.attempt:
		*s = state{known: true, attempt: max(e.attempt, 0), progress: -1, end: -1}
	case e.kind == events.Progress && s.ended:
		return delivery.ReasonJobFinished
	}
	s.kind = e.kind
	if e.kind == events.Progress {
		s.progress = i
	} else {
		s.ended, s.end = true, i
	}
	return ""
}

// testAttempts goes through every order of four events of a job, of two attempts and of none, repeated and late ones
// among them.
func testAttempts(t *testing.T, open Open) {
	var alphabet []step
	for _, kind := range []events.Kind{events.Progress, events.Completed, events.Failed} {
		for attempt := -1; attempt <= 2; attempt++ {
			if attempt != 0 {
				alphabet = append(alphabet, step{kind, attempt})
			}
		}
	}
	const length = 4
	b := newBench(t, open, delivery.Limits{})
	total := 1
	for range length {
		total *= len(alphabet)
	}
	every := 1
	if testing.Short() {
		every = 17
	}
	var wg sync.WaitGroup
	turns := make(chan int)
	for range 32 {
		wg.Go(func() {
			for n := range turns {
				var steps []step
				for k := n; len(steps) < length; k /= len(alphabet) {
					steps = append(steps, alphabet[k%len(alphabet)])
				}
				b.tryAttempts(fmt.Sprint("user", n%500), fmt.Sprint("job", n), steps)
			}
		})
	}
	for n := 0; n < total; n += every {
		turns <- n
	}
	close(turns)
	wg.Wait()
}

func (b *bench) tryAttempts(user, job string, steps []step) {
	var ref state
	var entries []delivery.Entry
	var reasons []string
	for i, s := range steps {
		e := entry(s.kind, job, data(fmt.Sprintf(`{"step":%d}`, i)))
		e.UserID = user
		if s.attempt >= 0 {
			attempt(uint32(s.attempt))(&e)
		}
		entries = append(entries, e)
		reasons = append(reasons, ref.take(i, s))
	}
	var ds []delivery.Decision
	for _, part := range [][]delivery.Entry{entries[:2], entries[2:]} {
		decided, err := b.store.Publish(context.Background(), user, part)
		if err != nil {
			b.Error(err)
			return
		}
		ds = append(ds, decided...)
	}
	last := events.ID{}
	for i, d := range ds {
		want := delivery.Accepted
		if reasons[i] != "" {
			want = delivery.Ignored
		} else {
			last = d.Place
		}
		if d.Verdict != want || d.Reason != reasons[i] {
			b.Errorf("%v: step %d is %v %q, want %v %q", steps, i, d.Verdict, d.Reason, want, reasons[i])
			return
		}
	}
	page, err := b.store.Jobs(context.Background(), delivery.JobsQuery{UserID: user, Limit: delivery.MaxJobsLimit})
	if err != nil {
		b.Error(err)
		return
	}
	at := slices.IndexFunc(page.Jobs, func(j delivery.Job) bool { return j.JobID == job })
	if at < 0 {
		b.Errorf("%v: the job is not known", steps)
		return
	}
	got := page.Jobs[at]
	want := delivery.Job{
		JobID: job, State: delivery.JobRunning, Attempt: uint32(ref.attempt), StartedAt: start, UpdatedAt: start, Place: last,
	}
	gotEnd, wantEnd := "", ""
	if ref.progress >= 0 {
		want.Progress = entries[ref.progress].Data
	}
	if ref.ended {
		want.State = delivery.JobCompleted
		if ref.kind == events.Failed {
			want.State = delivery.JobFailed
		}
		wantEnd = fmt.Sprintf("%s %s %s", entries[ref.end].Name, entries[ref.end].Data, ds[ref.end].Place)
	}
	if got.End != nil {
		gotEnd = fmt.Sprintf("%s %s %s", got.End.Event, got.End.Data, got.End.ID)
		got.End = nil
	}
	if g, w := fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", want); g != w || gotEnd != wantEnd {
		b.Errorf("%v:\n got %s, end %s\nwant %s, end %s", steps, g, gotEnd, w, wantEnd)
	}
}
