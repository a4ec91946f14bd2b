package main

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"jobwire/test/bench/loadgen/sockets"
	"jobwire/test/bench/loadgen/worker"
)

// latency measures the time from when an event was due to be posted until its
// frame is read, at a fixed rate. Due times are set before the run: when the
// server stalls, the events that should have been posted meanwhile count with
// all their waiting (no coordinated omission).
func latency(ctx context.Context, t *target) (metrics, error) {
	total := t.warm + t.n
	arrived := newTally(total)
	took := make([]time.Duration, total) // since base; written by the pool's thread
	step := time.Second / time.Duration(t.rate)
	base := time.Now()
	pool, err := t.pool(func(_ *sockets.Conn, ev sockets.Event) {
		if n, ok := number(ev); ok && n < total {
			took[n] = time.Since(base)
			arrived.add(n)
		}
	})
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	if err := pool.Connect(ctx, t.specs("", 0, t.users, t.users), inFlight); err != nil {
		return nil, err
	}
	clients, err := t.dial(t.workers, "/v1/events")
	if err != nil {
		return nil, err
	}
	defer hangUp(clients)
	if err := pause(ctx, 300*time.Millisecond); err != nil {
		return nil, err
	}

	due := make(chan int, total) // holds all: the pacer never waits for a worker
	late := make([]time.Duration, total)
	start := time.Now().Add(10 * time.Millisecond)
	paced := make(chan error, 1)
	go func() { paced <- pace(ctx, start, step, t.warm, late, due) }()
	err = each(clients, func(_ int, c *worker.Client) error {
		var body []byte
		for n := range due {
			body = t.appendEvent(body[:0], n%t.users, n)
			if err := accepted(c.Post(body)); err != nil {
				return err
			}
		}
		return nil
	})
	if err := errors.Join(err, <-paced); err != nil {
		return nil, err
	}
	arrived.wait(total)
	if err := intact(pool); err != nil {
		return nil, err
	}
	if err := arrived.complete(); err != nil {
		return nil, err
	}
	pool.Disconnect() // orders the thread's writes before the reads below
	for n := range took {
		took[n] -= start.Add(time.Duration(n) * step).Sub(base)
	}
	took, late = took[t.warm:], late[t.warm:]
	slices.Sort(took)
	slices.Sort(late)
	return metrics{
		"p50_ms":             millis(quantile(took, 0.5)),
		"p99_ms":             millis(quantile(took, 0.99)),
		"p999_ms":            millis(quantile(took, 0.999)),
		"max_ms":             millis(took[len(took)-1]),
		"pacer_late_p999_ms": millis(quantile(late, 0.999)),
	}, nil
}

// pace hands out the numbers of the events when they are due and notes how
// late it was itself. Go's timers are too coarse for that; the kernel's are not.
func pace(ctx context.Context, start time.Time, step time.Duration, warm int, late []time.Duration, due chan<- int) error {
	runtime.LockOSThread() // never unlocked: the thread's timer slack is changed
	defer close(due)
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0); err != nil {
		return err
	}
	for n := range late {
		if n == warm {
			measuring()
		}
		at := start.Add(time.Duration(n) * step)
		for wait := time.Until(at); wait > 0; wait = time.Until(at) {
			ts := unix.NsecToTimespec(int64(wait))
			_ = unix.Nanosleep(&ts, nil) // cut short by a signal: the loop sleeps on
		}
		late[n] = time.Since(at)
		due <- n
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

// quantile is the q-quantile of sorted values, by nearest rank.
func quantile(sorted []time.Duration, q float64) time.Duration {
	i := int(q*float64(len(sorted))+0.9999999) - 1
	return sorted[min(max(i, 0), len(sorted)-1)]
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
