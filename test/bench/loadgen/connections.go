package main

import (
	"context"
	"fmt"
	"time"

	"jobwire/test/bench/loadgen/sockets"
	"jobwire/test/bench/proc"
)

func ignore(*sockets.Conn, sockets.Event) {}

// memory reads the server's memory with conns and then n idle connections,
// every one of another user.
func memory(ctx context.Context, t *target) (metrics, error) {
	pool, err := t.pool(ignore)
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	empty, err := proc.ReadMemory(t.pid)
	if err != nil {
		return nil, err
	}
	small, err := t.grow(ctx, pool, 0, t.conns)
	if err != nil {
		return nil, err
	}
	measuring()
	large, err := t.grow(ctx, pool, t.conns, t.n)
	if err != nil {
		return nil, err
	}
	more := float64(t.n - t.conns)
	return metrics{
		"slope_rss_kb": float64(large.RSS-small.RSS) / more,
		"slope_pss_kb": float64(large.PSS-small.PSS) / more,
		"rss_empty_mb": float64(empty.RSS) / 1024,
		"rss_small_mb": float64(small.RSS) / 1024,
		"rss_large_mb": float64(large.RSS) / 1024,
	}, nil
}

func (t *target) grow(ctx context.Context, pool *sockets.Pool, from, to int) (proc.Memory, error) {
	if to <= from {
		return proc.Memory{}, fmt.Errorf("cannot grow from %d to %d connections", from, to)
	}
	if err := pool.Connect(ctx, t.specs("", from, to-from, to), inFlight); err != nil {
		return proc.Memory{}, err
	}
	if err := pause(ctx, t.rest); err != nil {
		return proc.Memory{}, err
	}
	if err := intact(pool); err != nil {
		return proc.Memory{}, err
	}
	return proc.ReadMemory(t.pid)
}

// connect measures what one authenticated connection costs to make. A first
// wave warms the server up; it stays, so that its leaving costs nothing while
// the others come.
func connect(ctx context.Context, t *target) (metrics, error) {
	pool, err := t.pool(ignore)
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	if err := pool.Connect(ctx, t.specs("warm-", 0, t.warm, t.warm), inFlight); err != nil {
		return nil, err
	}
	if err := pause(ctx, time.Second); err != nil {
		return nil, err
	}
	specs := t.specs("", 0, t.n, t.n)
	measuring()
	m, err := t.startMeter()
	if err != nil {
		return nil, err
	}
	if err := pool.Connect(ctx, specs, inFlight); err != nil {
		return nil, err
	}
	took := time.Since(m.began)
	// Who comes may be told of the others a second later.
	if err := m.idle(ctx, 1500*time.Millisecond); err != nil {
		return nil, err
	}
	server, own, _, err := m.stop()
	if err != nil {
		return nil, err
	}
	if err := intact(pool); err != nil {
		return nil, err
	}
	return metrics{
		"cpu_ms":       micros(server, t.n) / 1000,
		"connects_s":   float64(t.n) / took.Seconds(),
		"generator_ms": micros(own, t.n) / 1000,
	}, nil
}

func dropped(p *sockets.Pool) float64 {
	n, _ := p.Dropped()
	return float64(n)
}
