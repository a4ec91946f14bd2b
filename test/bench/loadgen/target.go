package main

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"os"
	"strconv"
	"time"

	"jobwire/test/bench/loadgen/sockets"
	"jobwire/test/bench/loadgen/worker"
	"jobwire/test/bench/proc"
)

// inFlight is how many handshakes are under way at a time in every scenario:
// enough to keep two cores busy, below every server's accept backlog.
const inFlight = 32

// target is the server under load and the size of the load.
type target struct {
	addr    string
	pid     int
	dialect sockets.Dialect
	secret  []byte
	key     string

	n, warm, conns, users, workers, batch, rate int
	rest                                        time.Duration
	presence                                    bool // the server tells everyone who comes
	kind                                        string

	restart func() (pid int, err error) // ends the server and starts it again, at the same address
}

func (t *target) pool(emit func(*sockets.Conn, sockets.Event)) (*sockets.Pool, error) {
	return sockets.NewPool(t.addr, t.dialect, emit)
}

// userName is the id of the i-th user.
func userName(i int) string { return fmt.Sprintf("user-%05d", i) }

// specs are count connections tagged from first on and spread evenly over
// users; prefix keeps users of different phases apart.
func (t *target) specs(prefix string, first, count, users int) []sockets.Spec {
	out := make([]sockets.Spec, count)
	for i := range out {
		out[i] = sockets.Spec{Tag: first + i, Token: t.token(prefix + userName((first+i)%users))}
	}
	return out
}

// token mints an HS256 token that lasts for two hours.
func (t *target) token(subject string) string {
	now := time.Now().Unix()
	claims := `{"sub":"` + subject + `","iat":` + strconv.FormatInt(now, 10) + `,"exp":` + strconv.FormatInt(now+7200, 10) + `}`
	enc := base64.RawURLEncoding
	text := enc.EncodeToString([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + enc.EncodeToString([]byte(claims))
	mac := hmac.New(sha256.New, t.secret)
	mac.Write([]byte(text))
	return text + "." + enc.EncodeToString(mac.Sum(nil))
}

// dial opens n keep-alive connections to path.
func (t *target) dial(n int, path string) ([]*worker.Client, error) {
	clients := make([]*worker.Client, 0, n)
	for range n {
		c, err := worker.Dial(t.addr, path, t.key)
		if err != nil {
			hangUp(clients)
			return nil, fmt.Errorf("worker: %w", err)
		}
		clients = append(clients, c)
	}
	return clients, nil
}

func hangUp(clients []*worker.Client) {
	for _, c := range clients {
		c.Close()
	}
}

// meter measures what the server and this generator spend.
type meter struct {
	pid         int
	began       time.Time
	server, own time.Duration
}

func (t *target) startMeter() (*meter, error) {
	server, err := proc.CPU(t.pid)
	if err != nil {
		return nil, err
	}
	own, err := proc.CPU(os.Getpid())
	if err != nil {
		return nil, err
	}
	return &meter{pid: t.pid, began: time.Now(), server: server, own: own}, nil
}

// idle returns when the server has done what the load left it to do, which
// belongs to the load: when it has used less than a thirtieth of a core for a
// while.
func (m *meter) idle(ctx context.Context, while time.Duration) error {
	last, err := proc.CPU(m.pid)
	if err != nil {
		return err
	}
	for {
		if err := pause(ctx, while); err != nil {
			return fmt.Errorf("the server does not come to rest: %w", err)
		}
		now, err := proc.CPU(m.pid)
		if err != nil || now-last < while/30 {
			return err
		}
		last = now
	}
}

// stop returns what was spent since the start: the server's CPU time, this
// process's, and the wall clock's.
func (m *meter) stop() (server, own, wall time.Duration, err error) {
	wall = time.Since(m.began)
	if server, err = proc.CPU(m.pid); err != nil {
		return 0, 0, 0, err
	}
	if own, err = proc.CPU(os.Getpid()); err != nil {
		return 0, 0, 0, err
	}
	return server - m.server, own - m.own, wall, nil
}

// micros is d per unit of work in µs.
func micros(d time.Duration, units int) float64 {
	return float64(d) / float64(time.Microsecond) / float64(units)
}

// pause sleeps unless ctx ends first.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// intact fails a measurement whose connections did not all survive it.
func intact(p *sockets.Pool) error {
	if n, why := p.Dropped(); n > 0 {
		return fmt.Errorf("%d connections ended early, the first one: %w", n, why)
	}
	return nil
}
