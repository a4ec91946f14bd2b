package main

import (
	"bytes"
	"context"
	"strconv"
	"time"

	"jobwire/test/bench/loadgen/sockets"
)

// presence lets n users arrive while conns sockets watch, and counts the
// user_online events that the watchers get.
func presence(ctx context.Context, t *target) (metrics, error) {
	const prefix = "arriving-"
	heard := newTally(t.conns * t.n)
	pool, err := t.pool(func(c *sockets.Conn, ev sockets.Event) {
		if c.Tag >= t.conns || string(ev.Name) != "user_online" {
			return
		}
		who, ok := bytes.CutPrefix(sockets.Field(ev.Body, `"userId":"`), []byte(prefix+"user-"))
		if !ok {
			return
		}
		// Arrivals are numbered after the watchers.
		if i, err := strconv.Atoi(string(who)); err == nil && i >= t.conns && i < t.conns+t.n {
			heard.add(c.Tag*t.n + i - t.conns)
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
	heard.wait(t.conns * t.n)
	server, _, wall, err := m.stop()
	if err != nil {
		return nil, err
	}
	_ = pause(ctx, 200*time.Millisecond) // a repeat would come now
	gone := dropped(pool)
	pool.Disconnect() // orders the thread's writes before the reads below
	lost, repeated := heard.count()
	return metrics{
		"lost":     float64(lost),
		"repeated": float64(repeated),
		"faults":   float64(lost + repeated),
		"dropped":  gone,
		"cpu_us":   micros(server, t.conns*t.n),
		"wall_s":   wall.Seconds(),
	}, nil
}
