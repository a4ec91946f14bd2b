//go:build linux

package hostile

import (
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// noise makes bytes that look almost like those of a client.
type noise struct {
	dice  *rand.Rand
	seeds [][]byte // websocket frames, whole or broken
	words []string // Engine.IO packets
}

func newNoise(seed uint64) *noise {
	z := &noise{dice: rand.New(rand.NewPCG(seed, 0))}
	good := `40{"token":"` + token(fmt.Sprint("noise-", seed%8)) + `"}`
	z.words = []string{good, good, "3", "2probe", "5", "1", "40/x,", `421["get_online_users"]`, `41`}
	for _, m := range append(append(always(), early()...), late()...) {
		for _, packet := range m.packets {
			if len(packet) < 4096 && len(z.words) < 400 {
				z.words = append(z.words, packet)
			}
		}
	}
	for _, b := range breaches() {
		if len(b.bytes) < 4096 {
			z.seeds = append(z.seeds, b.bytes)
		}
	}
	for _, word := range z.words {
		z.seeds = append(z.seeds, text(word), frame(opText, word), frame(fin|opContinuation, word), frame(fin|opBinary, word))
	}
	return z
}

// frames is a burst for a websocket.
func (z *noise) frames() []byte {
	var all []byte
	if z.dice.IntN(2) == 0 {
		all = append(all, text(z.words[0])...)
	}
	for range 1 + z.dice.IntN(12) {
		all = append(all, z.spoil(z.seeds[z.dice.IntN(len(z.seeds))])...)
	}
	return all
}

// payload is a POST's body for polling.
func (z *noise) payload() string {
	var packets []string
	for range 1 + z.dice.IntN(8) {
		packets = append(packets, z.words[z.dice.IntN(len(z.words))])
	}
	return string(z.spoil([]byte(strings.Join(packets, "\x1e"))))
}

// spoil changes a little, or nothing.
func (z *noise) spoil(seed []byte) []byte {
	b := slices.Clone(seed)
	for z.dice.IntN(3) == 0 && len(b) > 0 {
		at := z.dice.IntN(len(b))
		switch z.dice.IntN(4) {
		case 0:
			b[at] ^= 1 << z.dice.IntN(8)
		case 1:
			b = b[:at]
		case 2:
			b = slices.Insert(b, at, byte(z.dice.Uint32()))
		case 3:
			b = slices.Concat(b[:at], b)
		}
	}
	return b
}

// websocket sends noise on a websocket, in pieces that cut frames anywhere, and goes.
func (z *noise) websocket(n *node) error {
	w, err := n.wire(nil)
	if err != nil {
		return err
	}
	defer w.Close()
	query := ""
	if z.dice.IntN(4) == 0 { // as the probe of an upgrade
		p, err := n.polling()
		if err != nil {
			return err
		}
		defer p.close(true)
		query = "&sid=" + p.sid
	}
	all := append(upgradeRequest(n.addr, query), z.frames()...)
	read := make(chan struct{})
	go func() {
		defer close(read)
		io.Copy(io.Discard, w.in)
	}()
	for len(all) > 0 {
		piece := all[:1+z.dice.IntN(len(all))]
		if _, err := w.Write(piece); err != nil {
			break // the server has had enough
		}
		all = all[len(piece):]
	}
	if z.dice.IntN(2) == 0 {
		w.vanish()
	} else {
		w.Close()
	}
	<-read
	return nil
}

// polling sends noise in a session on polling, and goes.
func (z *noise) polling(n *node) error {
	p, err := n.polling()
	if err != nil {
		return err
	}
	defer p.close(true)
	if z.dice.IntN(2) == 0 {
		if err := ask(p, z.words[0], "40{"); err != nil {
			return err
		}
	}
	for range 1 + z.dice.IntN(3) {
		if _, err := p.request("POST", z.payload()); err != nil {
			break
		}
		if z.dice.IntN(2) == 0 {
			if _, err := p.request("GET", ""); err != nil {
				break
			}
		}
	}
	return nil
}

// What nobody has thought of: all of the above, mixed, cut and spoiled, for a while. A failure names its seed.
func TestNoise(t *testing.T) {
	t.Parallel()
	n := start(t, "--handshake-timeout=3s", "--ping-interval=1s", "--ping-timeout=3s")
	before := n.footing(t)
	b := watch(t, n)
	began := uint64(time.Now().UnixNano())
	length := 5 * time.Second
	if full() {
		length = 2 * time.Minute
	}
	deadline := time.Now().Add(length)
	var count atomic.Int64
	var all sync.WaitGroup
	for i := range uint64(4) {
		all.Go(func() {
			z := newNoise(began + i)
			for time.Now().Before(deadline) {
				do := z.websocket
				if z.dice.IntN(3) == 0 {
					do = z.polling
				}
				if err := do(n); err != nil {
					t.Errorf("seed %d: %v", began+i, err)
					return
				}
				count.Add(1)
			}
		})
	}
	all.Wait()
	t.Logf("%d noisy clients, seeds from %d on", count.Load(), began)
	n.stillServes(t)
	b.stands(t)
	n.returnsTo(t, before)
	m := n.scrape(t)
	if panics := m[`panics_total{in="socket"}`] + m[`panics_total{in="connection"}`]; panics > 0 {
		t.Errorf("%v panics were recovered", panics)
	}
}
