package main

import (
	"context"
	"fmt"
	"time"

	"jobwire/test/bench/loadgen/sockets"
)

// fanout measures the server's CPU per delivery when all sockets belong to one
// user. The next event is posted when the last one has reached every socket,
// so that no server can put two of them in one write.
func fanout(ctx context.Context, t *target) (metrics, error) {
	t.users = 1
	whole := make(chan struct{}, 1)
	got := 0 // on the pool's thread
	pool, err := t.pool(func(_ *sockets.Conn, ev sockets.Event) {
		if _, ok := number(ev); !ok {
			return
		}
		if got++; got%t.conns == 0 {
			whole <- struct{}{}
		}
	})
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	if err := pool.Connect(ctx, t.specs("", 0, t.conns, 1), inFlight); err != nil {
		return nil, err
	}
	clients, err := t.dial(1, "/v1/events")
	if err != nil {
		return nil, err
	}
	defer hangUp(clients)
	send := func(n int) error {
		if err := accepted(clients[0].Post(t.appendEvent(nil, 0, n))); err != nil {
			return err
		}
		select {
		case <-whole:
			return nil
		case <-time.After(patience):
			return fmt.Errorf("event %d did not reach all %d sockets", n, t.conns)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for n := range t.warm {
		if err := send(n); err != nil {
			return nil, err
		}
	}
	if err := pause(ctx, 300*time.Millisecond); err != nil {
		return nil, err
	}
	measuring()
	m, err := t.startMeter()
	if err != nil {
		return nil, err
	}
	for n := t.warm; n < t.warm+t.n; n++ {
		if err := send(n); err != nil {
			return nil, err
		}
	}
	took := time.Since(m.began)
	server, own, _, err := m.stop()
	if err != nil {
		return nil, err
	}
	if err := intact(pool); err != nil {
		return nil, err
	}
	deliveries := t.n * t.conns
	return metrics{
		"cpu_us":       micros(server, deliveries),
		"deliveries_s": float64(deliveries) / took.Seconds(),
		"generator_us": micros(own, deliveries),
	}, nil
}
