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
	if err := pause(ctx, t.rest); err != nil {
		return nil, err
	}

	start := time.Now().Add(10 * time.Millisecond)
	var m *meter
	var metered error
	answered, late, err := t.openLoop(ctx, clients, start, 0, total, func(n int) {
		if n == t.warm {
			measuring()
			m, metered = t.startMeter()
		}
	})
	if err := errors.Join(err, metered); err != nil {
		return nil, err
	}
	arrived.wait(total)
	server, _, _, err := m.stop()
	if err != nil {
		return nil, err
	}
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
	took, answered, late = took[t.warm:], answered[t.warm:], late[t.warm:]
	slices.Sort(took)
	slices.Sort(answered)
	slices.Sort(late)
	return metrics{
		"cpu_us":             micros(server, t.n),
		"p50_ms":             millis(quantile(took, 0.5)),
		"p99_ms":             millis(quantile(took, 0.99)),
		"p999_ms":            millis(quantile(took, 0.999)),
		"max_ms":             millis(took[len(took)-1]),
		"answer_p999_ms":     millis(quantile(answered, 0.999)),
		"pacer_late_p999_ms": millis(quantile(late, 0.999)),
	}, nil
}

// openLoop posts the events from ≤ n < to, the first one at start and the others
// at the rate after it, whatever the server does. It returns by event how long
// after it was due it was answered, and how late it was handed to a worker.
// before, unless nil, is called for each event when it is due.
func (t *target) openLoop(ctx context.Context, clients []*worker.Client, start time.Time, from, to int, before func(n int)) (answered, late []time.Duration, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	step := time.Second / time.Duration(t.rate)
	answered, late = make([]time.Duration, to-from), make([]time.Duration, to-from)
	due := make(chan int, to-from) // holds all: the pacer never waits for a worker
	paced := make(chan error, 1)
	go func() {
		defer close(due)
		paced <- pace(ctx, start, step, late, func(i int) {
			if before != nil {
				before(from + i)
			}
			due <- i
		})
	}()
	err = each(clients, func(_ int, c *worker.Client) error {
		var body []byte
		for i := range due {
			n := from + i
			body = t.appendEvent(body[:0], n%t.users, n)
			if err := accepted(c.Post(body)); err != nil {
				cancel() // the others need not go on
				return err
			}
			answered[i] = time.Since(start.Add(time.Duration(i) * step))
		}
		return nil
	})
	if stopped := <-paced; err == nil {
		err = stopped
	}
	return answered, late, err
}

// pace calls fn for each event when it is due and notes how late it was itself.
// Go's timers are too coarse for that; the kernel's are not.
func pace(ctx context.Context, start time.Time, step time.Duration, late []time.Duration, fn func(i int)) error {
	runtime.LockOSThread() // never unlocked: the thread's timer slack is changed
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0); err != nil {
		return err
	}
	for i := range late {
		at := start.Add(time.Duration(i) * step)
		for wait := time.Until(at); wait > 0; wait = time.Until(at) {
			ts := unix.NsecToTimespec(int64(wait))
			_ = unix.Nanosleep(&ts, nil) // cut short by a signal: the loop sleeps on
		}
		late[i] = time.Since(at)
		fn(i)
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
