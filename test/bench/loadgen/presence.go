package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"jobwire/test/bench/loadgen/sockets"
)

// presence lets n users arrive while conns sockets watch, and counts what the
// watchers learn.
func presence(ctx context.Context, t *target) (metrics, error) {
	const prefix = "arriving-"
	watchers := newRoster(prefix, t.conns, t.conns, t.n) // arrivals are numbered after the watchers
	pool, err := t.pool(func(c *sockets.Conn, ev sockets.Event) {
		if c.Tag < t.conns {
			watchers.hear(c.Tag, ev)
		}
	})
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	if err := pool.Connect(ctx, t.specs("", 0, t.conns, t.users), inFlight); err != nil {
		return nil, err
	}
	if err := pause(ctx, time.Second); err != nil {
		return nil, err
	}
	arriving := t.specs(prefix, t.conns, t.n, t.conns+t.n)
	measuring()
	m, err := t.startMeter()
	if err != nil {
		return nil, err
	}
	if err := pool.Connect(ctx, arriving, inFlight); err != nil {
		return nil, err
	}
	watchers.wait()
	server, _, wall, err := m.stop()
	if err != nil {
		return nil, err
	}
	_ = pause(ctx, 200*time.Millisecond) // a repeat would come now
	gone := dropped(pool)
	pool.Disconnect() // orders the thread's writes before the reads below
	lost, repeated := watchers.count()
	return metrics{
		"lost":     float64(lost),
		"repeated": float64(repeated),
		"faults":   float64(lost + repeated),
		"dropped":  gone,
		"cpu_us":   micros(server, t.conns*t.n),
		"wall_s":   wall.Seconds(),
	}, nil
}

// arrival measures what it costs that users come, with one tab each, all as
// fast as the server lets them in. When the server tells everyone who comes,
// it is over when every tab knows every user.
func arrival(ctx context.Context, t *target) (metrics, error) {
	tabs := newRoster("", t.n, 0, t.n)
	pool, err := t.pool(func(c *sockets.Conn, ev sockets.Event) { tabs.hear(c.Tag, ev) })
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	if err := pause(ctx, t.rest); err != nil {
		return nil, err
	}
	specs := t.specs("", 0, t.n, t.n)
	measuring()
	return t.meet(ctx, pool, tabs, specs, inFlight)
}

// atOnce is how many of a storm's handshakes are under way at a time: as many
// as fit in Node's accept backlog.
const atOnce = 400

// storm restarts the server under its users, all of whom come back at once,
// and measures what the new process spends until every tab knows every user
// again. What it spends on starting does not count.
func storm(ctx context.Context, t *target) (metrics, error) {
	specs := t.specs("", 0, t.n, t.n)
	seen := newRoster("", t.n, 0, t.n)
	before, err := t.pool(func(c *sockets.Conn, ev sockets.Event) {
		if string(ev.Name) == "authenticated" {
			specs[c.Tag].PID, specs[c.Tag].Offset = c.Resume()
		}
		seen.hear(c.Tag, ev)
	})
	if err != nil {
		return nil, err
	}
	defer before.Close()
	if err := before.Connect(ctx, slices.Clone(specs), inFlight); err != nil {
		return nil, err
	}
	seen.wait()
	if lost := seen.unknown.Load(); lost > 0 {
		return nil, fmt.Errorf("%d of %d were not known to a tab before the restart", lost, t.n*t.n)
	}
	if t.pid, err = t.restart(); err != nil {
		return nil, err
	}
	before.Disconnect() // orders the thread's writes before the reads below
	again := newRoster("", t.n, 0, t.n)
	pool, err := t.pool(func(c *sockets.Conn, ev sockets.Event) { again.hear(c.Tag, ev) })
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	measuring()
	return t.meet(ctx, pool, again, specs, atOnce)
}

// meet lets the users come and measures until every tab knows every user, if
// the server tells.
func (t *target) meet(ctx context.Context, pool *sockets.Pool, tabs *roster, specs []sockets.Spec, limit int) (metrics, error) {
	m, err := t.startMeter()
	if err != nil {
		return nil, err
	}
	if err := pool.Connect(ctx, specs, limit); err != nil {
		return nil, err
	}
	if t.presence {
		tabs.wait()
	}
	wall := time.Since(m.began)
	if err := m.idle(ctx, 300*time.Millisecond); err != nil {
		return nil, err
	}
	server, own, _, err := m.stop()
	if err != nil {
		return nil, err
	}
	if err := intact(pool); err != nil {
		return nil, err
	}
	pool.Disconnect() // orders the thread's writes before the reads below
	lost := 0
	if t.presence {
		lost, _ = tabs.count()
	}
	return metrics{
		"cpu_s":       server.Seconds(),
		"wall_s":      wall.Seconds(),
		"generator_s": own.Seconds(),
		"lost":        float64(lost),
	}, nil
}
