//go:build linux

package hostile

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
)

// An event that follows connect at once is never lost, and neither is what a worker sends at that moment.
func TestFirstEvents(t *testing.T) {
	t.Parallel()
	n := start(t)
	connects := size(300, 1000)
	err := parallel(8, connects, func(i int) error {
		l, err := n.link([]string{"websocket", "polling"}[i%2])
		if err != nil {
			return err
		}
		defer l.close(true)
		user := fmt.Sprint("first-", i)
		if err := l.write(`40{"token":"` + token(user) + `"}`); err != nil {
			return err
		}
		connected := false
		posted := make(chan error, 1)
		for acked, heard := false, false; !acked || !heard; {
			packet, err := l.read()
			switch {
			case err != nil:
				return fmt.Errorf("%s: %w", user, err)
			case packet == "2":
				err = l.write("3")
			case !connected && !strings.HasPrefix(packet, "40{"):
				return fmt.Errorf("%s: %.80q before the CONNECT reply", user, packet)
			case !connected:
				connected = true
				go func() {
					_, err := n.post(user, "hello", "1")
					posted <- err
				}()
				err = l.write(`427["get_online_users"]`) // at once
			case strings.HasPrefix(packet, "437["):
				acked = true
			case strings.HasPrefix(packet, `42["hello",1`):
				heard = true
			}
			if err != nil {
				return err
			}
		}
		return <-posted
	})
	if err != nil {
		t.Error(err)
	}
}

// 10,000 connects whose token comes in the segment of the handshake; none hangs.
func TestPipelinedConnects(t *testing.T) {
	t.Parallel()
	n := start(t)
	before := n.footing(t)
	connects := size(1000, 10_000)
	began := time.Now()
	err := parallel(16, connects, func(i int) error {
		w, err := n.wire(nil)
		if err != nil {
			return err
		}
		defer w.vanish()
		connect := text(`40{"token":"` + token(fmt.Sprint("pipelined-", i%500)) + `"}`)
		if _, err := w.Write(append(upgradeRequest(n.addr, ""), connect...)); err != nil {
			return err
		}
		if err := w.switched(); err != nil {
			return err
		}
		for _, want := range []string{"0{", "40{", `42["authenticated"`, `42["online_users"`} {
			packet, err := w.packet()
			for err == nil && strings.HasPrefix(packet, `42["user_o`) { // the others, coming and going
				packet, err = w.packet()
			}
			if err != nil {
				return fmt.Errorf("connect %d waits for %s: %w", i, want, err)
			}
			if !strings.HasPrefix(packet, want) {
				return fmt.Errorf("connect %d got %.100q, want %s", i, packet, want)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	t.Logf("%d connects in %s", connects, time.Since(began).Round(time.Millisecond))
	if opened := n.scrape(t)["sessions_opened_total"]; opened < float64(connects) {
		t.Errorf("%v sessions were opened", opened)
	}
	n.returnsTo(t, before)
}

// 10,000 clients that authenticate and vanish, by reset or without a word, at every moment, leave no socket, no room
// and no online user.
func TestVanishingClients(t *testing.T) {
	t.Parallel()
	n := start(t, "--presence-grace=1s", "--ping-interval=2s", "--ping-timeout=2s")
	before := n.footing(t)
	clients := size(1200, 10_000)
	ways := []func(i int) error{
		func(i int) error { return n.vanish(i, true, "connected") },
		func(i int) error { return n.vanish(i, false, "connected") },
		func(i int) error { return n.vanish(i, true, "greeted") },
		func(i int) error { return n.vanish(i, false, "greeted") },
		func(i int) error { return n.vanish(i, true, "connecting") },
		func(i int) error { return n.vanish(i, false, "connecting") },
		func(i int) error { return n.vanish(i, true, "opening") },
		func(i int) error { return n.vanish(i, false, "opening") },
		func(i int) error { return n.vanishPolling(i, true) },
		func(i int) error { return n.vanishPolling(i, false) },
	}
	began := time.Now()
	if err := parallel(32, clients, func(i int) error { return ways[i%len(ways)](i) }); err != nil {
		t.Error(err)
	}
	t.Logf("%d clients in %s", clients, time.Since(began).Round(time.Millisecond))
	m := n.eventually(t, "no socket, no room, no user", func(m metrics) bool {
		return m.connections() == 0 && m["connections_unauthenticated"] == 0 && m["sessions"] == 0 && m["rooms"] == 0 &&
			m["users_online"] == 0 && m["queued_bytes"] == 0
	})
	if m["sessions_opened_total"] < float64(clients)/2 {
		t.Errorf("only %v sessions were opened", m["sessions_opened_total"])
	}
	if online := must[int](t)(n.online()); online != 0 {
		t.Errorf("%d users are online", online)
	}
	n.returnsTo(t, before)
	n.stillServes(t)
}

// vanish connects as a user of its own on websocket and goes, at some point of its way.
func (n *node) vanish(i int, reset bool, point string) error {
	w, err := n.wire(nil)
	if err != nil {
		return err
	}
	defer func() {
		if reset {
			w.vanish()
		}
		w.Close()
	}()
	first := append(upgradeRequest(n.addr, ""), text(`40{"token":"`+token(fmt.Sprint("vanishing-", i))+`"}`)...)
	if point == "opening" { // somewhere in it
		_, err = w.Write(first[:i*37%len(first)])
		return err
	}
	if _, err = w.Write(first); err != nil || point == "connecting" {
		return err
	}
	if err := w.switched(); err != nil {
		return err
	}
	until := map[string]string{"connected": "40{", "greeted": `42["online_users"`}[point]
	for {
		packet, err := w.packet()
		if err != nil || strings.HasPrefix(packet, until) {
			return err
		}
	}
}

// vanishPolling does so on polling, with a poll under way.
func (n *node) vanishPolling(i int, reset bool) error {
	p, err := n.polling()
	if err != nil {
		return err
	}
	defer p.close(true)
	if err := ask(p, `40{"token":"`+token(fmt.Sprint("vanishing-", i))+`"}`, "40{"); err != nil {
		return err
	}
	w, err := n.wire(nil)
	if err != nil {
		return err
	}
	_, err = io.WriteString(w, "GET /socket.io/?EIO=4&transport=polling&sid="+p.sid+" HTTP/1.1\r\nHost: a\r\n\r\n")
	if reset {
		w.vanish()
	}
	w.Close() // again, after a reset
	return err
}
