//go:build linux

package hostile

import (
	"fmt"
	"strings"
	"testing"
)

// What the library itself gets wrong without anybody attacking it.

// A reload, in which a user's last socket leaves just as the next one comes, never loses the user's room.
func TestReloads(t *testing.T) {
	t.Parallel()
	n := start(t, "--ping-interval=2s", "--ping-timeout=2s") // ends what vanished between two polls
	reloads := size(150, 2000)
	err := parallel(4, 4, func(i int) error {
		v := visit{user: fmt.Sprint("reloader-", i)}
		old, err := n.open(v)
		if err != nil {
			return err
		}
		for k := range reloads {
			left := make(chan struct{})
			go func() {
				defer close(left)
				if k%3 == 0 {
					old.leave()
				} else {
					old.vanish(k%3 == 1)
				}
			}()
			v.transport = []string{"websocket", "polling"}[k/2%2]
			page, err := n.open(v)
			if err != nil {
				return err
			}
			answer, err := n.post(v.user, "seen", fmt.Sprint(k))
			if err == nil && answer.Sockets < 1 {
				err = fmt.Errorf("reload %d: the POST found %d sockets", k, answer.Sockets)
			}
			for err == nil {
				var e event
				if e, err = page.wait("seen"); err == nil && string(e.data) == fmt.Sprint(k) {
					break // before it may come what the old page did not confirm
				}
			}
			if err != nil {
				return fmt.Errorf("reload %d on %s: %w", k, v.transport, err)
			}
			<-left
			old = page
		}
		old.leave()
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	n.empty(t, 0)
}

// What was queued for a client reaches it before the end of the connection does.
func TestFarewells(t *testing.T) {
	t.Parallel()
	n := start(t)
	for _, transport := range []string{"websocket", "polling"} {
		t.Run(transport, func(t *testing.T) {
			const events = 100
			var heard []string
			user := "farewell-" + transport
			tab := must[*tab](t)(n.open(visit{user: user, transport: transport, heard: func(packet string) {
				if e, err := parseEvent(packet); err == nil && (e.name == "last_words" || e.name == "unauthorized") {
					heard = append(heard, e.name) // who else is online may be told at any time
				}
			}}))
			item := envelope(user, "last_words", `"`+strings.Repeat("w", 10_000)+`"`)
			if _, err := n.batch(strings.Split(strings.Repeat(item+"\n", events-1)+item, "\n")); err != nil {
				t.Fatal(err)
			}
			status, text, err := n.call("POST", "/v1/users/"+user+"/disconnect", `{"reason":"enough"}`)
			if err != nil || status != 200 || text != `{"sockets":1}` {
				t.Fatalf("disconnect: %d %s, %v", status, text, err)
			}
			<-tab.gone
			if tab.err == nil || tab.err.Error() != "disconnected by the server" {
				t.Errorf("ended with %v", tab.err)
			}
			want := strings.Repeat(" last_words", events) + " unauthorized"
			if got := strings.Join(heard, " "); got != want[1:] {
				t.Errorf("heard %.60s… %d events, want %d and unauthorized", got, len(heard), events)
			}
		})
	}
}

// Messages of more than 64 kB come in whole, as long as they may be.
func TestLargeMessages(t *testing.T) {
	t.Parallel()
	n := start(t, "--max-payload=1MiB")
	for _, transport := range []string{"websocket", "polling"} {
		tab := must[*tab](t)(n.open(visit{user: "large", transport: transport}))
		for _, size := range []int{100, 32 << 10, 64<<10 - 1, 64 << 10, 64<<10 + 1, 100_000, 1<<20 - 100} {
			ack, err := tab.call("nobody_knows", strings.Repeat("x", size))
			if err != nil || !strings.Contains(string(ack), "unknown_event") {
				t.Errorf("%d bytes on %s: ack %.100s, %v", size, transport, ack, err)
			}
		}
		tab.leave()
	}
}
