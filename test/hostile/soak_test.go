//go:build linux

package hostile

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// churner is one restless user agent: it connects, does a little of something, and goes, again and again.
type churner struct {
	n     *node
	dice  *rand.Rand
	count *[numWays]atomic.Int64
}

// What a churner may do.
const (
	cleanLeave = iota
	reset
	silentEnd
	reload
	upgradeAndTalk
	upgradeAndVanish
	refusedToken
	brokenFrame
	manyEvents
	idlePoll
	numWays
)

// turn does one thing. An error is something that must not happen to an honest client.
func (c *churner) turn() error {
	way := c.dice.IntN(numWays)
	defer c.count[way].Add(1)
	v := visit{
		user:      fmt.Sprint("churn-", c.dice.IntN(20)),
		transport: []string{"websocket", "polling"}[c.dice.IntN(2)],
		heard:     func(string) {},
	}
	switch way {
	case refusedToken:
		v.token = "garbage"
		if _, err := c.n.open(v); !isRefusal(err, "token_malformed") {
			return fmt.Errorf("garbage for a token: %w", err)
		}
		return nil
	case brokenFrame:
		w, err := c.n.websocket("", breaches()[c.dice.IntN(20)].bytes...)
		if err != nil {
			return err
		}
		defer w.Close()
		_, err = w.ending()
		return err
	case upgradeAndTalk, upgradeAndVanish:
		v.transport = "polling"
	}
	tab, err := c.n.open(v)
	if err != nil {
		return err
	}
	switch way {
	case cleanLeave:
		if _, err := tab.call("get_online_users"); err != nil {
			return err
		}
		tab.leave()
	case reset:
		tab.vanish(true)
	case silentEnd:
		tab.vanish(false)
	case reload: // the new page is there before the old one has gone
		again, err := c.n.open(v)
		tab.vanish(c.dice.IntN(2) == 0)
		if err != nil {
			return err
		}
		if _, err := again.call("get_online_users"); err != nil {
			return err
		}
		again.leave()
	case upgradeAndTalk:
		if err := tab.link.(*polling).upgrade(); err != nil {
			return err
		}
		for range 3 {
			if _, err := tab.call("get_online_users"); err != nil {
				return err
			}
		}
		tab.leave()
	case upgradeAndVanish:
		gone := make(chan error, 1)
		go func() { gone <- tab.link.(*polling).upgrade() }()
		if c.dice.IntN(2) == 0 {
			tab.vanish(true)
			<-gone // whether it came to it or not
			tab.vanish(true)
		} else {
			<-gone
			tab.vanish(true)
		}
	case manyEvents:
		packets := strings.Split(strings.Repeat(`42["get_online_users"] `, 19)+`42["no_such_event",{"a":[1]}]`, " ")
		err := tab.write(packets...)
		tab.vanish(c.dice.IntN(2) == 0)
		return err
	case idlePoll:
		if d, ok := tab.link.(*direct); ok {
			_, err := d.Write(text("40/somewhere,")[:4]) // half a frame, and silence
			tab.vanish(false)
			return err
		}
		tab.leave()
	}
	return nil
}

// churn lets that many churners go on until the time is over.
func churn(t *testing.T, n *node, churners int, d time.Duration) {
	t.Helper()
	var count [numWays]atomic.Int64
	deadline := time.Now().Add(d)
	errs := make([]error, churners+1)
	var all sync.WaitGroup
	for i := range churners {
		c := &churner{n: n, dice: rand.New(rand.NewPCG(1, uint64(i))), count: &count}
		all.Go(func() {
			for time.Now().Before(deadline) && errs[i] == nil {
				errs[i] = c.turn()
			}
		})
	}
	all.Go(func() { // a worker for all of them
		for i := 0; time.Now().Before(deadline) && errs[churners] == nil; i++ {
			job := i % 5
			name := []string{"job_progress", "job_progress", "job_progress", "job_completed", "custom"}[i%5]
			_, errs[churners] = n.post(fmt.Sprint("churn-", i%20), name, fmt.Sprintf(`{"jobId":"job-%d","attempt":%d}`, job, i))
		}
	})
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Errorf("churn: %v", err)
	}
	n.alive(t)
	total := int64(0)
	var ways []int64
	for i := range count {
		ways = append(ways, count[i].Load())
		total += count[i].Load()
	}
	t.Logf("%d turns in %s, by kind %v", total, d, ways)
}

// soakTime is how long the soak takes.
func soakTime(t *testing.T) time.Duration {
	text := os.Getenv("HOSTILE_SOAK")
	if text == "" {
		if full() {
			return 5 * time.Minute
		}
		return 10 * time.Second
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("HOSTILE_SOAK: %v", err)
	}
	return d
}

// Clients of every kind come, talk and go in every way, and in the end goroutines, descriptors, sockets and memory are
// where they began.
func TestChurnSoak(t *testing.T) {
	t.Parallel()
	// The addresses of clients are remembered for as long as burst/rate, here a second.
	n := start(t, "--presence-grace=1s", "--ping-interval=2s", "--ping-timeout=2s", "--retention-events=20",
		"--handshake-rate=100", "--handshake-burst=100")
	const churners = 12
	// What a first round leaves is what the node keeps anyway: full logs, pools, buffers of maps.
	churn(t, n, churners, 4*time.Second)
	before := n.footing(t)
	heap := n.live(t)
	began := n.scrape(t)

	churn(t, n, churners, soakTime(t))
	n.stillServes(t)
	n.returnsTo(t, before)
	m := n.eventually(t, "nobody is online", func(m metrics) bool { return m["users_online"] == 0 && m["rooms"] == 0 })
	opened := m["sessions_opened_total"] - began["sessions_opened_total"]
	// A session that stayed would be kilobytes; what a map has grown to may stay.
	const slack = 256 << 10
	deadline := time.Now().Add(patience)
	grown := n.live(t) - heap
	for ; grown > slack && time.Now().Before(deadline); grown = n.live(t) - heap {
		if err := n.serve(visit{user: "churn-0"}); err != nil { // what is forgotten in passing needs somebody to pass
			t.Fatal(err)
		}
		pause()
	}
	t.Logf("%.0f sessions; goroutines %.0f, descriptors %d, heap %.0f bytes and %+.0f", opened, before.goroutines, before.files, heap, grown)
	if grown > slack {
		t.Errorf("the heap has grown by %.0f bytes over %.0f sessions", grown, opened)
	}
	if panics := m[`panics_total{in="socket"}`] + m[`panics_total{in="connection"}`]; panics > 0 {
		t.Errorf("%v panics were recovered", panics)
	}
}
