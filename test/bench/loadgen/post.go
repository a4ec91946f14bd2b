package main

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"jobwire/test/bench/loadgen/sockets"
	"jobwire/test/bench/loadgen/worker"
)

// post measures the server's CPU per event in a closed loop: every worker
// posts its next event when the last one was answered. Users take turns; each
// has one socket that receives.
func post(ctx context.Context, t *target) (metrics, error) {
	arrived := newTally(t.warm + t.n)
	pool, err := t.pool(func(_ *sockets.Conn, ev sockets.Event) {
		if n, ok := number(ev); ok {
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

	if _, err := t.closedLoop(ctx, clients, 0, t.warm); err != nil {
		return nil, err
	}
	arrived.wait(t.warm)
	if err := pause(ctx, t.rest); err != nil {
		return nil, err
	}
	measuring()
	m, err := t.startMeter()
	if err != nil {
		return nil, err
	}
	answered, err := t.closedLoop(ctx, clients, t.warm, t.warm+t.n)
	if err != nil {
		return nil, err
	}
	took := time.Since(m.began)
	arrived.wait(t.warm + t.n)
	server, own, _, err := m.stop()
	if err != nil {
		return nil, err
	}
	if err := intact(pool); err != nil {
		return nil, err
	}
	if err := arrived.complete(); err != nil {
		return nil, err
	}
	slices.Sort(answered)
	return metrics{
		"cpu_us":       micros(server, t.n),
		"post_s":       float64(t.n) / took.Seconds(),
		"p50_ms":       millis(quantile(answered, 0.5)),
		"p99_ms":       millis(quantile(answered, 0.99)),
		"p999_ms":      millis(quantile(answered, 0.999)),
		"generator_us": micros(own, t.n),
	}, nil
}

// closedLoop posts the events from ≤ n < to, each worker one at a time, and
// returns how long each was waited for.
func (t *target) closedLoop(ctx context.Context, clients []*worker.Client, from, to int) ([]time.Duration, error) {
	answered := make([]time.Duration, to-from)
	var next atomic.Int64
	next.Store(int64(from))
	return answered, each(clients, func(_ int, c *worker.Client) error {
		var body []byte
		for ctx.Err() == nil {
			n := int(next.Add(1)) - 1
			if n >= to {
				return nil
			}
			body = t.appendEvent(body[:0], n%t.users, n)
			began := time.Now()
			if err := accepted(c.Post(body)); err != nil {
				return err
			}
			answered[n-from] = time.Since(began)
		}
		return ctx.Err()
	})
}

// each runs fn for every client at the same time and joins their errors.
func each(clients []*worker.Client, fn func(int, *worker.Client) error) error {
	errs := make([]error, len(clients))
	var wg sync.WaitGroup
	for i, c := range clients {
		wg.Go(func() { errs[i] = fn(i, c) })
	}
	wg.Wait()
	return errors.Join(errs...)
}
