package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"jobwire/test/bench/loadgen/sockets"
	"jobwire/test/bench/loadgen/worker"
)

const (
	settleCycles = 2
	settleSample = 100             // tabs that come back at the end
	settleWindow = 2 * time.Second // of POSTs, in which the pings are answered
	settleAfter  = 300 * time.Millisecond
	settleSpread = time.Second // in which all tabs answer theirs
	settleStep   = 10 * time.Millisecond
	heartbeatDue = 30 * time.Second // more than any ping interval
)

// settle measures what POSTs wait while the receipts of a crowd come in, each
// of which moves another user's cursor that the server then has to store.
//
// Every tab of the crowd gets a message and keeps the ping that asks for its
// receipt. Then, under POSTs to others at a fixed rate, all of them answer
// within a second. For comparison the same is done with the pings of the
// heartbeat: the same tabs send the same pongs, and nothing has to be stored.
func settle(ctx context.Context, t *target) (metrics, error) {
	users, err := t.crowd()
	if err != nil {
		return nil, err
	}
	var heard atomic.Int64
	crowd, err := t.pool(func(_ *sockets.Conn, ev sockets.Event) {
		if string(ev.Name) == crowdEvent {
			heard.Add(1)
		}
	})
	if err != nil {
		return nil, err
	}
	defer crowd.Close()
	if err := crowd.Connect(ctx, t.specs(crowdPrefix, 0, users, users), inFlight); err != nil {
		return nil, err
	}
	posts, err := t.startPosts(ctx)
	if err != nil {
		return nil, err
	}
	defer posts.close()
	batches, err := t.dial(4, "/v1/events/batch")
	if err != nil {
		return nil, err
	}
	defer hangUp(batches)

	crowd.HoldPongs()
	var with, without []time.Duration
	measuring()
	for cycle := range settleCycles {
		heard.Store(0)
		if err := tellCrowd(batches, users); err != nil {
			return nil, err
		}
		await(&heard, int64(users))
		if n := heard.Load(); n != int64(users) {
			return nil, fmt.Errorf("of %d messages %d arrived", users, n)
		}
		for _, into := range []*[]time.Duration{&with, &without} {
			if err := owe(ctx, crowd, users); err != nil {
				return nil, fmt.Errorf("cycle %d: %w", cycle, err)
			}
			answered, err := posts.during(ctx, func() { answerAll(crowd, users) })
			if err != nil {
				return nil, err
			}
			*into = append(*into, answered...)
		}
	}
	if err := errors.Join(intact(crowd), posts.check()); err != nil {
		return nil, err
	}
	crowd.Disconnect() // leaves room for those who come back
	if err := t.settled(ctx, users); err != nil {
		return nil, err
	}
	slices.Sort(with)
	slices.Sort(without)
	return metrics{
		"users":           float64(users),
		"p50_ms":          millis(quantile(with, 0.5)),
		"p99_ms":          millis(quantile(with, 0.99)),
		"p999_ms":         millis(quantile(with, 0.999)),
		"control_p50_ms":  millis(quantile(without, 0.5)),
		"control_p99_ms":  millis(quantile(without, 0.99)),
		"control_p999_ms": millis(quantile(without, 0.999)),
	}, nil
}

const (
	crowdPrefix = "crowd-"
	crowdEvent  = "invoice.ready"
)

// crowd is n, or as many tabs as the limit on open files leaves, here and in
// the server, which has the same.
func (t *target) crowd() (int, error) {
	others := t.descriptors("settle") + otherFiles
	if err := raiseFileLimit(uint64(t.n) + others); err == nil {
		return t.n, nil
	}
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return 0, fmt.Errorf("file limit: %w", err)
	}
	if lim.Max < 2*others {
		return 0, fmt.Errorf("file limit: %d descriptors leave no room for a crowd (ulimit -n)", lim.Max)
	}
	return int(lim.Max - others), raiseFileLimit(lim.Max)
}

// tellCrowd posts one message to every tab.
func tellCrowd(clients []*worker.Client, users int) error {
	const per = 500
	var next atomic.Int64
	return each(clients, func(_ int, c *worker.Client) error {
		var body []byte
		for {
			from := int(next.Add(per)) - per
			if from >= users {
				return nil
			}
			body = append(body[:0], `{"events":[`...)
			for user := from; user < min(from+per, users); user++ {
				if user > from {
					body = append(body, ',')
				}
				body = append(body, `{"userId":"`+crowdPrefix+userName(user)+`","event":"`+crowdEvent+`","data":{"invoice":"inv-`...)
				body = strconv.AppendInt(body, int64(user), 10)
				body = append(body, `","amount":"129.90","currency":"EUR","message":"Your invoice can be downloaded now"}}`...)
			}
			status, answer, err := c.Post(append(body, `]}`...))
			if err != nil {
				return err
			}
			if status != 200 || bytes.Contains(answer, []byte(`"error"`)) {
				return fmt.Errorf("batch answered %d: %.300s", status, answer)
			}
		}
	})
}

// owe waits until every tab has a ping to answer.
func owe(ctx context.Context, crowd *sockets.Pool, users int) error {
	for began := time.Now(); crowd.Owing() < users; {
		if time.Since(began) > heartbeatDue {
			return fmt.Errorf("of %d tabs %d were pinged", users, crowd.Owing())
		}
		if err := errors.Join(pause(ctx, 20*time.Millisecond), intact(crowd)); err != nil {
			return err
		}
	}
	return pause(ctx, settleAfter) // what the pings leave to do is not measured
}

// answerAll has the whole crowd answer its pings within settleSpread.
func answerAll(crowd *sockets.Pool, users int) {
	steps := int(settleSpread / settleStep)
	began := time.Now()
	for i := range steps {
		time.Sleep(time.Until(began.Add(time.Duration(i) * settleStep)))
		crowd.AnswerPings(users*(i+1)/steps - users*i/steps)
	}
}

// posts are the POSTs under which a crowd answers its pings, to users of their
// own.
type posts struct {
	t       *target
	pool    *sockets.Pool
	clients []*worker.Client
	arrived *tally
	next    int
}

func (t *target) startPosts(ctx context.Context) (*posts, error) {
	perWindow := int(settleWindow.Seconds() * float64(t.rate))
	p := &posts{t: t, arrived: newTally(2 * settleCycles * perWindow)}
	var err error
	p.pool, err = t.pool(func(_ *sockets.Conn, ev sockets.Event) {
		if n, ok := number(ev); ok {
			p.arrived.add(n)
		}
	})
	if err != nil {
		return nil, err
	}
	if err := p.pool.Connect(ctx, t.specs("", 0, t.users, t.users), inFlight); err != nil {
		p.close()
		return nil, err
	}
	if p.clients, err = t.dial(t.workers, "/v1/events"); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

func (p *posts) close() {
	hangUp(p.clients)
	p.pool.Close()
}

// during posts for settleWindow, in which it calls fn, and returns how long
// after they were due the POSTs were answered.
func (p *posts) during(ctx context.Context, fn func()) ([]time.Duration, error) {
	count := len(p.arrived.seen) / (2 * settleCycles)
	start := time.Now().Add(10 * time.Millisecond)
	done := make(chan struct{})
	go func() {
		defer close(done)
		time.Sleep(time.Until(start.Add(settleAfter)))
		fn()
	}()
	answered, _, err := p.t.openLoop(ctx, p.clients, start, p.next, p.next+count, nil)
	p.next += count
	<-done
	return answered, err
}

// check fails unless every event arrived once.
func (p *posts) check() error {
	p.arrived.wait(p.next)
	if err := intact(p.pool); err != nil {
		return err
	}
	return p.arrived.complete()
}

// settled fails when the server has taken the pongs for no receipts: then a tab
// that comes back is sent its messages again.
func (t *target) settled(ctx context.Context, users int) error {
	var again atomic.Int64
	pool, err := t.pool(func(_ *sockets.Conn, ev sockets.Event) {
		if string(ev.Name) == crowdEvent {
			again.Add(1)
		}
	})
	if err != nil {
		return err
	}
	defer pool.Close()
	if err := pool.Connect(ctx, t.specs(crowdPrefix, 0, min(users, settleSample), users), inFlight); err != nil {
		return err
	}
	if err := pause(ctx, time.Second); err != nil {
		return err
	}
	if n := again.Load(); n > 0 {
		return fmt.Errorf("%d messages came again that had been confirmed", n)
	}
	return nil
}
