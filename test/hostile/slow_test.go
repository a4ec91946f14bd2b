//go:build linux

package hostile

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// reluctant connects as a user and takes in next to nothing from then on.
func (n *node) reluctant(transport, auth string) (*wire, error) {
	w, err := n.dialNarrow()
	if err != nil {
		return nil, err
	}
	if transport == "websocket" {
		if err := w.handshake(n.addr, ""); err != nil {
			return nil, err
		}
		return w, w.ask("40"+auth, "40{")
	}
	p, err := n.polling()
	if err != nil {
		w.Close()
		return nil, err
	}
	if err := ask(p, "40"+auth, "40{"); err != nil {
		w.Close()
		return nil, err
	}
	if transport == "polling" { // asks, and does not read the answer
		_, err = io.WriteString(w, "GET /socket.io/?EIO=4&transport=polling&sid="+p.sid+" HTTP/1.1\r\nHost: a\r\n\r\n")
	}
	return w, err // "silence": does not even ask
}

// queue is the --max-queue of these tests, the smallest that there may be.
const queue = 1 << 20

// Who does not read is closed, not buffered, and nobody else waits for them.
func TestSlowReaders(t *testing.T) {
	t.Parallel()
	n := start(t, "--max-queue=1MiB", "--retention-bytes=1MiB", "--ping-interval=60s", "--ping-timeout=60s")
	before := n.footing(t)
	b := watch(t, n)
	for _, transport := range []string{"websocket", "polling", "silence"} {
		t.Run(transport, func(t *testing.T) {
			slow := n.scrape(t)["slow_clients_total"]
			readers := size(10, 100)
			user := "slow-" + transport
			for range readers {
				w := must[*wire](t)(n.reluctant(transport, `{"token":"`+token(user)+`"}`))
				defer w.Close()
			}
			// An honest tab of the same user goes on beside them.
			honest := must[*tab](t)(n.open(visit{user: user}))
			data := `"` + strings.Repeat("x", 32<<10) + `"`
			posts, limit := 0, 64<<20/len(data) // more than the kernel can hold for them
			for ; posts < limit; posts++ {
				answer := must[published](t)(n.post(user, "bulk", data))
				if _, err := honest.wait("bulk"); err != nil {
					t.Fatal(err)
				}
				if answer.Sockets == 1 {
					break
				}
				if m := n.scrape(t); m["queued_bytes"] > float64(readers*(queue+len(data))+1<<20) {
					t.Fatalf("%v bytes are queued for %d slow readers", m["queued_bytes"], readers)
				}
			}
			if posts == limit {
				t.Fatalf("nobody was cut off over %d bytes", posts*len(data))
			}
			if got := n.scrape(t)["slow_clients_total"] - slow; got != float64(readers) {
				t.Errorf("%v slow clients are counted, want %d", got, readers)
			}
			honest.leave()
			n.stillServes(t)
		})
	}
	b.stands(t)
	if waited := time.Duration(b.slowest.Load()); waited > 5*time.Second {
		t.Errorf("a bystander had to wait %s: slow readers hold others up", waited)
	}
	n.returnsTo(t, before)
}

// A client that asks for its whole log again and again and never reads it is cut off, and costs no more than its queue.
func TestSlowReplays(t *testing.T) {
	t.Parallel()
	n := start(t, "--max-queue=1MiB", "--ping-interval=60s", "--ping-timeout=60s")
	before := n.footing(t)
	b := watch(t, n)
	const user = "replays"
	data := `"` + strings.Repeat("x", 32<<10) + `"`
	for range 100 { // 3.2 MB, of 4 that are kept
		must[published](t)(n.post(user, "bulk", data))
	}
	replays := size(20, 200)
	idle := n.live(t)
	for range replays {
		w := must[*wire](t)(n.reluctant("websocket", `{"token":"`+token(user)+`","pid":"p","offset":"0-0"}`))
		defer w.Close()
	}
	if queued := n.scrape(t)["queued_bytes"]; queued > float64(replays*(256<<10)) {
		t.Errorf("%v bytes are queued for %d replays", queued, replays)
	}
	// Beside its queue, each may hold a page of what comes next.
	grown := (n.live(t) - idle) / float64(replays)
	if t.Logf("%.0f kB for each replay that nobody reads", grown/1024); grown > 1<<20 {
		t.Errorf("%.0f bytes for each of %d replays", grown, replays)
	}
	// One that reads gets everything meanwhile, and so does one that comes without an offset.
	reader := must[*tab](t)(n.open(visit{user: user, pid: "p", offset: "0-0"}))
	for i := range 100 {
		if e, err := reader.wait("bulk"); err != nil || string(e.data) != data {
			t.Fatalf("event %d of the replay: %d bytes, %v", i, len(e.data), err)
		}
	}
	reader.leave()
	n.stillServes(t)
	n.empty(t, 4)
	b.stands(t)
	n.returnsTo(t, before)
}

// A worker that does not read its answers blocks nothing but its own connection.
func TestWorkersThatDoNotRead(t *testing.T) {
	t.Parallel()
	n := start(t)
	watch(t, n)
	item := envelope("nobody", "x", "1")
	body := `{"events":[` + strings.TrimSuffix(strings.Repeat(item+",", 1000), ",") + `]}`
	request := fmt.Sprintf("POST /v1/events/batch HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nX-API-Key: %s\r\nContent-Length: %d\r\n\r\n%s",
		apiKey, len(body), body)
	for range size(5, 50) {
		w := must[*wire](t)(n.dialNarrow())
		defer w.vanish()
		w.SetWriteDeadline(time.Now().Add(2 * time.Second))
		for range 50 {
			if _, err := io.WriteString(w, request); err != nil {
				break // it waits for the answers to be read, as it may
			}
		}
	}
	n.stillServes(t)
	if status, _, err := n.call(http.MethodGet, "/readyz", ""); err != nil || status != http.StatusOK {
		t.Errorf("readyz: %d, %v", status, err)
	}
}

// Messages, attachments and fragments that are begun and never ended hold a bounded piece of memory, and let go of it.
func TestUnfinishedMessages(t *testing.T) {
	t.Parallel()
	n := start(t, "--ping-interval=60s", "--ping-timeout=60s", "--handshake-timeout=60s")
	before := n.footing(t)
	b := watch(t, n)
	clients := size(30, 300)
	most := strings.Repeat("x", maxPayload-100)
	connect := `40{"token":"` + token("unfinished") + `"}`
	for _, c := range []struct {
		name  string
		bytes []byte
		bound float64 // bytes a client
	}{
		{"a fragment before the token", frame(opText, "4"+most), 3 * maxPayload},
		{"half a frame that claims the most", frame(fin|opText, "4"+most)[:1000], maxPayload},
		{"7 of 8 attachments", join(text(`458-["x"]`), times(7, frame(fin|opBinary, most))), 12 * maxPayload},
		{"events that are handled while one is unfinished", join(times(20, text(`42["x"]`)), frame(opText, most)), 3 * maxPayload},
	} {
		t.Run(c.name, func(t *testing.T) {
			idle := n.live(t)
			var wires []*wire
			for range clients {
				w := must[*wire](t)(n.websocket(""))
				defer w.Close()
				if !strings.Contains(c.name, "before the token") {
					if err := w.ask(connect, "40{"); err != nil {
						t.Fatal(err)
					}
				}
				if _, err := w.Write(c.bytes); err != nil {
					t.Fatal(err)
				}
				if !strings.HasPrefix(c.name, "half a frame") { // of which a ping would be the other half
					if err := w.pinged(); err != nil {
						t.Fatal(err)
					}
				}
				wires = append(wires, w)
			}
			each := (n.live(t) - idle) / float64(clients)
			if t.Logf("%.0f bytes for each", each); each > c.bound {
				t.Errorf("%.0f bytes for each of %d clients, want at most %.0f", each, clients, c.bound)
			}
			for _, w := range wires {
				w.vanish()
			}
			n.empty(t, 4)
			n.stillServes(t)
		})
	}
	b.stands(t)
	n.returnsTo(t, before)
}

// Workers that ask to wait for a receipt and go away meanwhile leave nothing behind.
func TestWorkersThatDoNotWait(t *testing.T) {
	t.Parallel()
	n := start(t)
	before := n.footing(t)
	for i := range size(50, 1000) {
		w := must[*wire](t)(n.wire(nil))
		body := envelope(fmt.Sprint("absent-", i%10), "x", "1")
		fmt.Fprintf(w, "POST /v1/events HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nX-API-Key: %s\r\nPrefer: wait=60\r\nContent-Length: %d\r\n\r\n%s",
			apiKey, len(body), body)
		defer w.vanish()
	}
	n.eventually(t, "all are waiting", func(m metrics) bool { return m["events_published_total"] >= float64(size(50, 1000)) })
	n.stillServes(t)
	t.Cleanup(func() {
		// The workers have gone by now: deferred calls come before cleanups.
		n.returnsTo(t, before)
	})
}
