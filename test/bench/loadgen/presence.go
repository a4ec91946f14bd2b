package main

import (
	"bytes"
	"context"
	"strconv"
	"time"

	"jobwire/test/bench/loadgen/sockets"
)

// presence lets n users arrive while conns sockets watch, and counts how the
// watchers learn of them: each by one user_online, or from a list, which may
// repeat what came before it.
func presence(ctx context.Context, t *target) (metrics, error) {
	const prefix = "arriving-user-"
	heard := newTally(t.conns * t.n)
	// place is where a watcher's hearing of a user is counted. Arrivals are
	// numbered after the watchers.
	place := func(watcher int, user []byte) (int, bool) {
		number, ok := bytes.CutPrefix(user, []byte(prefix))
		i, err := strconv.Atoi(string(number))
		return watcher*t.n + i - t.conns, ok && err == nil && i >= t.conns && i < t.conns+t.n
	}
	pool, err := t.pool(func(c *sockets.Conn, ev sockets.Event) {
		if c.Tag >= t.conns {
			return
		}
		switch string(ev.Name) {
		case "user_online":
			if i, ok := place(c.Tag, sockets.Field(ev.Body, `"userId":"`)); ok {
				heard.add(i)
			}
		case "online_users":
			for user := range bytes.SplitSeq(ev.Body, []byte{'"'}) {
				if i, ok := place(c.Tag, user); ok && heard.seen[i] == 0 {
					heard.add(i)
				}
			}
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
	arriving := t.specs("arriving-", t.conns, t.n, t.conns+t.n)
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
