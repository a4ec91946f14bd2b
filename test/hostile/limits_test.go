//go:build linux

package hostile

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"jobwire/internal/auth"
)

// handshake is one attempt to open a session, from an address; nil for any.
func (n *node) handshake(transport string, from net.IP, headers ...string) (*wire, *http.Response, string, error) {
	w, err := n.wire(from)
	if err != nil {
		return nil, nil, "", err
	}
	request := upgradeRequest(n.addr, "", headers...)
	if transport == "polling" {
		request = []byte(opening + strings.Join(append(headers, ""), "\r\n") + "\r\n")
	}
	if _, err := w.Write(request); err != nil {
		return w, nil, "", err
	}
	response, err := w.response()
	if err != nil || response.StatusCode == http.StatusSwitchingProtocols {
		return w, response, "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return w, response, string(text), err
}

// opened reports whether a handshake succeeded.
func opened(response *http.Response) bool {
	return response.StatusCode == http.StatusOK || response.StatusCode == http.StatusSwitchingProtocols
}

// Who does not show a token is closed after the handshake timeout, and there are only so many of them.
func TestNeverAuthenticated(t *testing.T) {
	t.Parallel()
	const limit = 40
	n := start(t, fmt.Sprintf("--max-unauthenticated=%d", limit), "--handshake-timeout=3s")
	before := n.footing(t)
	b := watch(t, n)
	var idle []*wire
	began := time.Now()
	for i := range limit {
		transport := []string{"websocket", "polling"}[i%2]
		w, response, body, err := n.handshake(transport, nil)
		if err != nil || !opened(response) {
			t.Fatalf("%d on %s: %v %s, %v", i, transport, response, body, err)
		}
		if transport == "polling" {
			w.Close() // the session waits for the next request
			continue
		}
		defer w.Close()
		idle = append(idle, w)
	}
	for _, transport := range []string{"websocket", "polling"} {
		t.Run("one too many on "+transport, func(t *testing.T) {
			w, response, body, err := n.handshake(transport, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			if response.StatusCode != 503 || !strings.Contains(body, `"code":"too_many_unauthenticated"`) || response.Header.Get("Retry-After") == "" {
				t.Errorf("answered %s %v %s", response.Status, response.Header, body)
			}
		})
	}
	t.Run("one too many that names a session", func(t *testing.T) {
		w := must[*wire](t)(n.wire(nil))
		defer w.Close()
		fmt.Fprintf(w, "GET /socket.io/?EIO=4&transport=polling&xsid=1 HTTP/1.1\r\nHost: a\r\n\r\n")
		if status, body, err := w.answer(); err != nil || status != 503 {
			t.Errorf("answered %d %s, %v", status, body, err)
		}
	})
	t.Run("closed in time", func(t *testing.T) {
		for _, w := range idle {
			if code, err := w.ending(); err != nil || code != 1000 {
				t.Errorf("code %d, %v", code, err)
			}
		}
		if took := time.Since(began); took < 2*time.Second {
			t.Errorf("after %s only", took)
		}
		n.eventually(t, "all closed", func(m metrics) bool { return m[closed(handshakeTO)] == limit && m["connections_unauthenticated"] == 0 })
	})
	n.stillServes(t)
	b.stands(t)
	n.returnsTo(t, before)
}

// A user has so many sockets and no more, however hard all try at once; who leaves makes room.
func TestSocketsOfOneUser(t *testing.T) {
	t.Parallel()
	const limit = 5
	n := start(t, fmt.Sprintf("--max-sockets-per-user=%d", limit))
	watch(t, n)
	const crowd = 40
	results := make(chan error, crowd)
	tabs := make(chan *tab, crowd)
	for i := range crowd {
		go func() {
			tab, err := n.open(visit{user: "crowd", transport: []string{"websocket", "polling"}[i%2]})
			if err == nil {
				tabs <- tab
			}
			results <- err
		}()
	}
	in := 0
	for range crowd {
		switch err := <-results; {
		case err == nil:
			in++
		case !isRefusal(err, "too_many_sockets"):
			t.Errorf("refused with %v", err)
		}
	}
	if in != limit {
		t.Errorf("%d sockets of one user, want %d", in, limit)
	}
	if got := n.scrape(t)[`handshakes_refused_total{code="too_many_sockets"}`]; got != crowd-limit {
		t.Errorf("%v refusals are counted, want %d", got, crowd-limit)
	}
	n.stillServes(t)
	close(tabs)
	for tab := range tabs {
		tab.leave()
	}
	again, err := n.open(visit{user: "crowd"})
	if err != nil {
		t.Fatalf("after all have left: %v", err)
	}
	again.leave()
}

// Handshakes are rationed by address; established sessions and other addresses are not.
func TestHandshakeRate(t *testing.T) {
	t.Parallel()
	const atOnce = 20
	n := start(t, "--handshake-rate=1", fmt.Sprintf("--handshake-burst=%d", atOnce))
	watch(t, n)
	greedy := net.IPv4(127, 6, 6, 6)
	p := must[*polling](t)(n.polling())
	defer p.close(true)
	refusals := 0
	began := time.Now()
	for i := range 5 * atOnce {
		transport := []string{"websocket", "polling"}[i%2]
		w, response, body, err := n.handshake(transport, greedy, fmt.Sprintf("X-Forwarded-For: 10.0.0.%d", i), fmt.Sprintf("Forwarded: for=10.0.1.%d", i))
		if err != nil {
			t.Fatal(err)
		}
		w.vanish()
		if opened(response) {
			continue
		}
		refusals++
		if response.StatusCode != 429 || response.Header.Get("Retry-After") == "" || body != `{"code":4,"message":"Too many requests"}` {
			t.Fatalf("handshake %d: %s %v %s", i, response.Status, response.Header, body)
		}
	}
	if accepted := 5*atOnce - refusals; accepted < atOnce || accepted > atOnce+1+int(time.Since(began).Seconds()) {
		t.Errorf("%d handshakes in %s were accepted, want %d and one a second", accepted, time.Since(began), atOnce)
	}
	t.Run("a session's requests", func(t *testing.T) {
		w := must[*wire](t)(n.wire(greedy))
		defer w.Close()
		fmt.Fprintf(w, "POST /socket.io/?EIO=4&transport=polling&sid=%s HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\n40/x,1", p.sid)
		if status, body, err := w.answer(); err != nil || status == 429 {
			t.Errorf("answered %d %s, %v", status, body, err)
		}
	})
	if got := n.scrape(t)[`connections_refused_total{reason="handshake_rate"}`]; got != float64(refusals) {
		t.Errorf("%v refusals are counted, want %d", got, refusals)
	}
	n.stillServes(t)
}

// The server has so many connections in all, and says so.
func TestConnectionsInAll(t *testing.T) {
	t.Parallel()
	const limit = 10
	n := start(t, fmt.Sprintf("--max-connections=%d", limit))
	var tabs []*tab
	for i := range limit {
		tabs = append(tabs, must[*tab](t)(n.open(visit{user: fmt.Sprint("all-", i), transport: []string{"websocket", "polling"}[i%2]})))
	}
	for _, transport := range []string{"websocket", "polling"} {
		w, response, body, err := n.handshake(transport, nil)
		if err != nil {
			t.Fatal(err)
		}
		w.Close()
		if response.StatusCode != 503 || body != `{"code":4,"message":"Service unavailable"}` {
			t.Errorf("one too many on %s: %s %s", transport, response.Status, body)
		}
	}
	for _, tab := range tabs {
		tab.leave()
	}
	n.empty(t, 0)
	n.stillServes(t)
}

// burst is that many events on a websocket, numbered by their ack ids.
func burst(events int) []byte {
	var all []byte
	for i := range events {
		all = append(all, text(fmt.Sprintf(`42%d["get_online_users"]`, i))...)
	}
	return all
}

// Events beyond the rate end their connection, and what is within it is served in order.
func TestEventFlood(t *testing.T) {
	t.Parallel()
	n := start(t, "--event-rate=10")
	b := watch(t, n)
	const events = 20_000
	var last int
	outOfOrder := false
	flooder := must[*tab](t)(n.open(visit{user: "flood", acked: func(id int) {
		outOfOrder = outOfOrder || id != last
		last = id + 1
	}}))
	go flooder.link.(*direct).Write(burst(events))
	select {
	case <-flooder.gone:
	case <-time.After(patience):
		t.Fatal("the flood goes on")
	}
	if outOfOrder || last == 0 || last >= events {
		t.Errorf("%d events acked, out of order: %v", last, outOfOrder)
	}
	n.eventually(t, "one connection closed for its rate", func(m metrics) bool { return m[closed(eventRate)] == 1 })
	n.stillServes(t)
	t.Run("on polling", func(t *testing.T) {
		p := must[*polling](t)(n.polling())
		defer p.close(true)
		if err := ask(p, `40{"token":"`+token("flood")+`"}`, "40{"); err != nil {
			t.Fatal(err)
		}
		for range 20 {
			if err := p.write(strings.Split(strings.Repeat(`42["x"] `, 2000)+`42["x"]`, " ")...); err != nil {
				break // it has ended already
			}
		}
		if err := ended(p); err != nil {
			t.Errorf("after 40,000 events: %v", err)
		}
		n.eventually(t, "one more closed for its rate", func(m metrics) bool { return m[closed(eventRate)] == 2 })
		n.stillServes(t)
	})
	b.stands(t)
}

// --event-rate 0 is documented as no limit.
func TestEventRateWithoutLimit(t *testing.T) {
	t.Parallel()
	n := start(t, "--event-rate=0")
	const events = 12_000
	last, done := 0, make(chan struct{})
	eager := must[*tab](t)(n.open(visit{user: "eager", acked: func(id int) {
		if last++; last == events {
			close(done)
		}
	}}))
	go eager.link.(*direct).Write(burst(events))
	select {
	case <-done:
		eager.leave()
	case <-eager.gone:
		t.Errorf("closed after %d of %d events: %v; %v", last, events, eager.err, n.scrape(t)[closed(eventRate)])
	case <-time.After(patience):
		t.Error("neither served nor closed")
	}
}

// Users of one tenant never learn of those of another, on any way.
func TestTenantsStayApart(t *testing.T) {
	t.Parallel()
	n := start(t, "--presence-audience=tenant", "--presence-grace=0s")
	cfg := verifier()
	cfg.TenantClaim = "tenant"
	member := func(tenant string, i int, heard func(string)) visit {
		user := fmt.Sprintf("%s-%d", tenant, i)
		return visit{user: user, token: must[string](t)(auth.Mint(cfg, user, tenant, time.Hour, nil)), heard: heard}
	}
	var mu sync.Mutex
	heard := map[string]string{}
	var watchers []*tab
	for _, tenant := range []string{"north", "south"} {
		watchers = append(watchers, must[*tab](t)(n.open(member(tenant, 0, func(packet string) {
			mu.Lock()
			defer mu.Unlock()
			heard[tenant] += packet
		}))))
	}
	for i := range 10 {
		for _, tenant := range []string{"north", "south"} {
			guest := must[*tab](t)(n.open(member(tenant, i+1, nil)))
			ack := must[json.RawMessage](t)(guest.call("get_online_users"))
			if other := map[string]string{"north": "south", "south": "north"}[tenant]; strings.Contains(string(ack), other) {
				t.Errorf("%s sees %s", tenant, ack)
			}
			// Who has gone before it was the announcer's turn is not announced as online any more.
			arrival := fmt.Sprintf(`"user_online",{"userId":"%s-%d"}`, tenant, i+1)
			for until := time.Now().Add(10 * time.Second); time.Now().Before(until); time.Sleep(time.Millisecond) {
				mu.Lock()
				known := strings.Contains(heard[tenant], arrival)
				mu.Unlock()
				if known {
					break
				}
			}
			guest.leave()
		}
	}
	for _, watcher := range watchers {
		must[json.RawMessage](t)(watcher.call("get_online_users")) // behind everything that was announced
		watcher.leave()
	}
	if strings.Contains(heard["north"], "south") || strings.Contains(heard["south"], "north") {
		t.Errorf("heard: %v", heard)
	}
	for tenant, packets := range heard {
		if got := strings.Count(packets, `"user_online"`); got != 10 {
			t.Errorf("%s heard of %d arrivals, want 10: %s", tenant, got, packets)
		}
	}
}
