//go:build linux

package hostile

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// metrics are the samples of one scrape, by name and labels as they stand there, without the prefix jobwire_.
type metrics map[string]float64

// read reads a page of the node on a connection of its own.
func (n *node) read(t testing.TB, url string) string {
	t.Helper()
	request, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Close = true
	response, err := n.http.Do(request)
	if err != nil {
		n.alive(t)
		t.Fatalf("%s: %v", url, err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", url, response.Status, err)
	}
	return string(text)
}

// scrape reads /metrics.
func (n *node) scrape(t testing.TB) metrics {
	t.Helper()
	samples := metrics{}
	for line := range strings.Lines(n.read(t, "http://"+n.addr+"/metrics")) {
		line = strings.TrimSuffix(line, "\n")
		space := strings.LastIndexByte(line, ' ') // labels may hold some, too
		if space < 0 {
			continue
		}
		name, value := line[:space], line[space+1:]
		if number, err := strconv.ParseFloat(value, 64); err == nil {
			samples[strings.TrimPrefix(name, "jobwire_")] = number
		}
	}
	return samples
}

// closed is the name of the counter of connections that ended for a reason.
func closed(reason string) string { return fmt.Sprintf("connections_closed_total{reason=%q}", reason) }

// connections is how many there are, on both transports.
func (m metrics) connections() float64 {
	return m[`connections{transport="polling"}`] + m[`connections{transport="websocket"}`]
}

// eventually scrapes until ok, and fails the test when that does not come.
func (n *node) eventually(t testing.TB, what string, ok func(metrics) bool) metrics {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		m := n.scrape(t)
		if ok(m) {
			return m
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not after %s; %v", what, patience, m.gauges())
		}
		pause()
	}
}

// gauges are the samples that tell what is there now.
func (m metrics) gauges() metrics {
	few := metrics{}
	for _, name := range []string{
		`connections{transport="polling"}`, `connections{transport="websocket"}`, "connections_unauthenticated", "sessions",
		"users_online", "rooms", "queued_bytes", "go_goroutines", "go_memstats_heap_alloc_bytes",
	} {
		few[name] = m[name]
	}
	return few
}

// profile reads one of Go's own profiles.
func (n *node) profile(t testing.TB, name string) string {
	t.Helper()
	return n.read(t, "http://"+n.debug+"/debug/pprof/"+name)
}

// live collects the node's garbage and returns how many bytes are left on its heap.
func (n *node) live(t testing.TB) float64 {
	t.Helper()
	n.profile(t, "heap?gc=1&debug=1") // pools let go at the second collection
	_, rest, found := strings.Cut(n.profile(t, "heap?gc=1&debug=1"), "# HeapAlloc = ")
	line, _, _ := strings.Cut(rest, "\n")
	bytes, err := strconv.ParseFloat(line, 64)
	if !found || err != nil {
		t.Fatalf("no heap in the profile: %v", err)
	}
	return bytes
}

// pause is the time between two looks at something that cannot call back.
func pause() { time.Sleep(20 * time.Millisecond) }

// empty waits until nobody is connected and nothing is kept for anyone, but for that many sessions.
func (n *node) empty(t testing.TB, but int) metrics {
	t.Helper()
	return n.eventually(t, fmt.Sprintf("only %d sessions", but), func(m metrics) bool {
		return m.connections() == float64(but) && m["sessions"] == float64(but) && m["connections_unauthenticated"] == 0 &&
			m["queued_bytes"] == 0 && (but > 0 || m["rooms"] == 0)
	})
}

// footing is what a node stands on when nobody is connected.
type footing struct {
	goroutines float64
	files      int
}

// footing reads it, when it has come to rest. Pools and lazy starts must be behind the node: it has served before.
func (n *node) footing(t testing.TB) footing {
	t.Helper()
	n.stillServes(t)
	n.stillServes(t) // the other transport
	n.http.CloseIdleConnections()
	var last footing
	for same := 0; same < 10; same++ {
		m := n.empty(t, 0)
		now := footing{m["go_goroutines"], n.descriptors(t)}
		if now != last {
			last, same = now, 0
		}
		pause()
	}
	return last
}

// returnsTo waits until the node stands on no more than before.
func (n *node) returnsTo(t testing.TB, before footing) {
	t.Helper()
	n.http.CloseIdleConnections()
	n.empty(t, 0)
	deadline := time.Now().Add(patience)
	for {
		now := footing{n.scrape(t)["go_goroutines"], n.descriptors(t)}
		if now.goroutines <= before.goroutines && now.files <= before.files {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("left behind: %+v, before it was %+v; goroutines:\n%s", now, before, n.profile(t, "goroutine?debug=1"))
		}
		pause()
	}
}
