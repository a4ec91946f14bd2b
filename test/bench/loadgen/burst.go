package main

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"jobwire/test/bench/loadgen/sockets"
	"jobwire/test/bench/loadgen/worker"
)

// burst posts n events of one user as fast as the server answers, and checks
// what each of the user's sockets saw. Every worker posts its own share, one
// after the other: on every socket these must arrive in that order.
func burst(ctx context.Context, t *target) (metrics, error) {
	t.users = 1
	if t.n%t.workers != 0 || (t.batch > 0 && t.n/t.workers%t.batch != 0) {
		return nil, fmt.Errorf("%d events do not divide among %d workers in batches of %d", t.n, t.workers, t.batch)
	}
	share := t.n / t.workers
	all := newTally(t.n * t.conns)
	logs := make([]socketLog, t.conns)
	for i := range logs {
		logs[i] = newSocketLog(t.workers, share)
	}
	pool, err := t.pool(func(c *sockets.Conn, ev sockets.Event) {
		if n, ok := number(ev); ok && n < t.n {
			all.add(c.Tag*t.n + n)
			logs[c.Tag].add(n, ev.ID)
		}
	})
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	if err := pool.Connect(ctx, t.specs("", 0, t.conns, 1), inFlight); err != nil {
		return nil, err
	}
	path, per := "/v1/events", 1
	if t.batch > 0 {
		path, per = "/v1/events/batch", t.batch
	}
	clients, err := t.dial(t.workers, path)
	if err != nil {
		return nil, err
	}
	defer hangUp(clients)

	measuring()
	began := time.Now()
	err = each(clients, func(w int, c *worker.Client) error {
		var body []byte
		for n := w * share; n < (w+1)*share && ctx.Err() == nil; n += per {
			body = t.appendPost(body[:0], n)
			if err := t.answered(c.Post(body)); err != nil {
				return err
			}
		}
		return ctx.Err()
	})
	if err != nil {
		return nil, err
	}
	posted := time.Since(began)
	all.wait(t.n * t.conns)
	_ = pause(ctx, 200*time.Millisecond) // a repeat would come now
	gone, _ := pool.Dropped()
	pool.Disconnect() // orders the thread's writes before the reads below

	lost, repeated := all.count()
	disordered, differing := 0, 0
	for _, l := range logs {
		disordered += l.disordered
		if !slices.Equal(l.order, logs[0].order) {
			differing++
		}
	}
	return metrics{
		"lost":       float64(lost),
		"repeated":   float64(repeated),
		"disordered": float64(disordered),
		"faults":     float64(lost + repeated + disordered),
		"differing":  float64(differing),
		"dropped":    float64(gone),
		"events_s":   float64(t.n) / posted.Seconds(),
	}, nil
}

// appendPost appends the body of the POST that starts at event n.
func (t *target) appendPost(dst []byte, n int) []byte {
	if t.batch == 0 {
		return t.appendEvent(dst, 0, n)
	}
	dst = append(dst, `{"events":[`...)
	for i := range t.batch {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = t.appendEvent(dst, 0, n+i)
	}
	return append(dst, `]}`...)
}

func (t *target) answered(status int, answer []byte, err error) error {
	if t.batch == 0 || err != nil {
		return accepted(status, answer, err)
	}
	if status != 200 {
		return fmt.Errorf("batch answered %d: %.300s", status, answer)
	}
	return nil
}

// socketLog is what one socket saw.
type socketLog struct {
	share      int
	last       []int // per worker: the last event seen
	order      []int32
	id         [2]uint64 // the highest id seen
	disordered int       // events after a later one of their worker, or with an id that did not rise
}

func newSocketLog(workers, share int) socketLog {
	l := socketLog{share: share, last: make([]int, workers), order: make([]int32, 0, workers*share)}
	for i := range l.last {
		l.last[i] = -1
	}
	return l
}

func (l *socketLog) add(n int, id []byte) {
	l.order = append(l.order, int32(n))
	w := n / l.share
	fine := n > l.last[w]
	l.last[w] = max(n, l.last[w])
	if id != nil {
		now, ok := parseID(id)
		fine = fine && ok && slices.Compare(now[:], l.id[:]) > 0
		l.id = now
	}
	if !fine {
		l.disordered++
	}
}

// parseID reads "<unix-ms>-<n>".
func parseID(id []byte) (out [2]uint64, ok bool) {
	ms, seq, found := bytes.Cut(id, []byte("-"))
	a, err1 := strconv.ParseUint(string(ms), 10, 64)
	b, err2 := strconv.ParseUint(string(seq), 10, 64)
	return [2]uint64{a, b}, found && err1 == nil && err2 == nil
}
