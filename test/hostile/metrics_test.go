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
		if strings.HasPrefix(line, "#") { // the metric's HELP, or its TYPE
			continue
		}
		line = strings.TrimSuffix(line, "\n")
		space := strings.LastIndexByte(line, ' ') // labels may hold some, too
		number, err := strconv.ParseFloat(line[space+1:], 64)
		if space < 0 || err != nil {
			t.Fatalf("no sample: %q", line)
		}
		samples[strings.TrimPrefix(line[:space], "jobwire_")] = number
	}
	return samples
}

// Whatever a scraper says that it wants, it gets the metrics.
func TestScrapers(t *testing.T) {
	t.Parallel()
	n := start(t)
	long := strings.Repeat("text/plain;version=9.9.9;q=0.1,", 500)
	for name, headers := range map[string][]string{
		"nothing":                {},
		"Prometheus 3":           {"Accept: application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1"},
		"protobuf":               {"Accept: application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"},
		"what there is not":      {"Accept: image/png"},
		"no format":              {"Accept: ;;;q=,,=\"\\,/"},
		"a weight that is none":  {"Accept: text/plain;q=nan, */*;q=-1e999"},
		"thousands of formats":   {"Accept: " + long[:len(long)-1]},
		"an escaping of its own": {"Accept: text/plain;version=0.0.4;escaping=../../etc"},
		"gzip":                   {"Accept-Encoding: gzip"},
		"zstd":                   {"Accept-Encoding: zstd"},
		"no encoding at all":     {"Accept-Encoding: identity;q=0, *;q=0"},
		"only some":              {"X-Prometheus-Scrape-Timeout-Seconds: -1"},
	} {
		t.Run(name, func(t *testing.T) {
			response := must[*http.Response](t)(n.do(http.MethodGet, "/metrics?name[]=jobwire_sessions&name[]=%ff", "", headers...))
			defer response.Body.Close()
			text, err := io.ReadAll(response.Body)
			if err != nil || response.StatusCode != http.StatusOK || len(text) == 0 || response.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("answered %s with %d bytes, %v: %.200s", response.Status, len(text), err, text)
			}
		})
	}
	n.stillServes(t)
}

// What a worker posts and a client confirms is seen in the durations, and each metric says what it is.
func TestDurations(t *testing.T) {
	t.Parallel()
	n := start(t)
	n.stillServes(t)
	must[[]published](t)(n.batch([]string{envelope("timed", "custom", "1")}))
	if status, text, err := n.call(http.MethodPost, "/v1/events", "{"); status != http.StatusBadRequest {
		t.Errorf("half an event is answered %d %s, %v", status, text, err)
	}
	m := n.eventually(t, "a receipt", func(m metrics) bool { return m["receipt_seconds_count"] == 1 })
	for name, want := range map[string]float64{
		`post_duration_seconds_count{call="events"}`: 1, `post_duration_seconds_count{call="batch"}`: 1, `post_duration_seconds_count{call="wait"}`: 0,
	} {
		if m[name] != want {
			t.Errorf("%s is %v, want %v", name, m[name], want)
		}
	}
	if took := m[`post_duration_seconds_sum{call="events"}`]; took <= 0 || took > patience.Seconds() {
		t.Errorf("the POST took %v seconds", took)
	}
	explained := map[string]bool{}
	for line := range strings.Lines(n.read(t, "http://"+n.addr+"/metrics")) {
		word := strings.Fields(line)
		if strings.HasPrefix(line, "# HELP ") && len(word) > 3 {
			explained[word[2]] = true
		}
		if strings.HasPrefix(line, "# TYPE ") && !explained[word[2]] {
			t.Errorf("%s has no HELP", word[2])
		}
	}
	if len(explained) < 50 {
		t.Errorf("only %d metrics", len(explained))
	}
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

// goroutinesOf counts the node's goroutines. Those that gather metrics are not among them: how many of these there are at a
// time, and go_goroutines with them, is chance.
func (n *node) goroutinesOf(t testing.TB) float64 {
	t.Helper()
	_, rest, _ := strings.Cut(n.profile(t, "goroutine?debug=1"), "total ")
	line, _, _ := strings.Cut(rest, "\n")
	count, err := strconv.ParseFloat(line, 64)
	if err != nil {
		t.Fatalf("no count in the profile: %v", err)
	}
	return count
}

// footing reads it, when it has come to rest. Pools and lazy starts must be behind the node: it has served before.
func (n *node) footing(t testing.TB) footing {
	t.Helper()
	n.stillServes(t)
	n.stillServes(t) // the other transport
	n.http.CloseIdleConnections()
	var last footing
	for same := 0; same < 10; same++ {
		n.empty(t, 0)
		now := footing{n.goroutinesOf(t), n.descriptors(t)}
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
		now := footing{n.goroutinesOf(t), n.descriptors(t)}
		if now.goroutines <= before.goroutines && now.files <= before.files {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("left behind: %+v, before it was %+v; goroutines:\n%s", now, before, n.profile(t, "goroutine?debug=1"))
		}
		pause()
	}
}
