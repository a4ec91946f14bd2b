package metrics

import (
	"cmp"
	"flag"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"jobwire/internal/delivery"
	"jobwire/internal/engine"
	"jobwire/internal/realtime"
	"jobwire/internal/store/embedded"
	"jobwire/middleware"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// full is a node that has counted something of everything, each number another one.
func full() *Registry {
	gin.SetMode(gin.ReleaseMode)
	requests := middleware.NewRequests()
	routes := gin.New()
	routes.Use(requests.Count())
	routes.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil))

	sent := new(delivery.Stats)
	for i, counter := range []*atomic.Uint64{
		&sent.Decided[delivery.Accepted], &sent.Decided[delivery.Ignored], &sent.Decided[delivery.Repeated], &sent.Decided[delivery.KeyReused],
		&sent.Emitted, &sent.Coalesced, &sent.Stalled, &sent.Receipts, &sent.Replays, &sent.Unrecovered, &sent.Replayed,
		&sent.Dropped, &sent.Lost, &sent.JobsDropped, &sent.StoreFailures, &sent.Disorder,
	} {
		counter.Store(30 + uint64(i))
	}
	r := New("v1.2.3")
	r.Register(Parts{
		Hub: func() realtime.Stats {
			return realtime.Stats{
				Unauthenticated: 1, Sessions: 2, Rooms: 3,
				Connected: 4, Refused: map[string]uint64{"token_expired": 5, "token_missing": 6}, Overloaded: 7,
				Closed: map[string]uint64{"ping timeout": 8, "transport close": 9}, Events: 10, UnknownEvents: 11,
				Emits: 12, Deliveries: 13, Panics: 14,
				Engine: engine.Stats{
					Polling: 15, WebSocket: 16, Buffered: 17, Opened: 18, Refused: 19, Rejected: 20, Upgrades: 21, UpgradesFailed: 22,
					PacketsIn: 23, PacketsOut: 24, BytesIn: 25, BytesOut: 26, SlowClients: 27, ProtocolErrors: 28, Panics: 29,
				},
			}
		},
		Delivery: func() *delivery.Stats { return sent },
		Store: func() embedded.Stats {
			return embedded.Stats{Syncs: 46, Failures: 47, Size: 48, Free: 49, Unwritten: 50, Failing: true}
		},
		UsersOnline:       func() int { return 51 },
		HandshakesRefused: func() uint64 { return 52 },
		OriginsRefused:    func() uint64 { return 53 },
	}, requests)
	return r
}

// scrape is what a scrape gets.
func scrape(r *Registry) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	r.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	return w
}

// samples are the lines of a scrape with that prefix.
func samples(r *Registry, prefix string) (lines []string) {
	for line := range strings.Lines(scrape(r).Body.String()) {
		if strings.HasPrefix(line, prefix) {
			lines = append(lines, line)
		}
	}
	return lines
}

func TestEveryNumberStandsAtItsName(t *testing.T) {
	r := full()
	r.StoreSynced(1500 * time.Microsecond)
	r.ReceiptCame(2 * time.Hour)
	lines := slices.DeleteFunc(samples(r, "jobwire_"), func(line string) bool {
		return slices.ContainsFunc([]string{"jobwire_build_info{", "jobwire_http_request_duration_", "jobwire_post_duration_"},
			func(varies string) bool { return strings.HasPrefix(line, varies) })
	})
	got := strings.Join(lines, "")
	if *update {
		if err := os.WriteFile("testdata/samples.golden", []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/samples.golden")
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("testdata/samples.golden has other lines than\n%s", got)
	}
}

// documented are the rows of the table of metrics, cell by cell.
func documented(t *testing.T) (rows [][4]string) {
	t.Helper()
	text, err := os.ReadFile("../../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(text), "\n## Metrics\n")
	if !found {
		t.Fatal("no section about metrics")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	for line := range strings.Lines(section) {
		if cells := strings.Split(strings.TrimSpace(line), " | "); len(cells) == 4 && strings.HasPrefix(line, "| `jobwire_") {
			rows = append(rows, [4]string{
				strings.Trim(cells[0], "|` "), cells[1], strings.ReplaceAll(cells[2], "`", ""), strings.TrimSuffix(cells[3], " |"),
			})
		}
	}
	return rows
}

func TestTheDocumentationNamesTheMetrics(t *testing.T) {
	families, err := full().registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var real [][4]string
	for _, f := range families {
		if f.GetHelp() == "" {
			t.Errorf("%s has no HELP", f.GetName())
		}
		if !strings.HasPrefix(f.GetName(), "jobwire_") {
			continue // the collectors of the client library
		}
		var labels []string
		for _, label := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, label.GetName())
		}
		real = append(real, [4]string{f.GetName(), strings.ToLower(f.GetType().String()), strings.Join(labels, ", "), f.GetHelp()})
	}
	rows := documented(t)
	slices.SortFunc(rows, func(a, b [4]string) int { return cmp.Compare(a[0], b[0]) }) // as Gather does
	for _, row := range rows {
		if !slices.Contains(real, row) {
			t.Errorf("documented, but not there: %q", row)
		}
	}
	for _, row := range real {
		if !slices.Contains(rows, row) {
			t.Errorf("not documented: %q", row)
		}
	}
	if len(rows) != len(real) {
		t.Errorf("%d rows for %d metrics", len(rows), len(real))
	}
}

func TestNamesFollowTheConventionsOfPrometheus(t *testing.T) {
	families, err := full().registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "jobwire_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}

func TestTheBuildIsNamed(t *testing.T) {
	lines := samples(New("v1.2.3"), "jobwire_build_info{")
	if len(lines) != 1 || !strings.Contains(lines[0], `goversion="go1.`) || !strings.Contains(lines[0], `version="v1.2.3"} 1`) ||
		strings.Contains(lines[0], `revision=""`) {
		t.Errorf("%q", lines)
	}
}

func TestTheProcessIsMeasured(t *testing.T) {
	r := New("")
	for _, name := range []string{"go_goroutines", "go_memstats_heap_alloc_bytes", "process_cpu_seconds_total", "process_open_fds"} {
		if len(samples(r, name+" ")) != 1 {
			t.Errorf("no %s", name)
		}
	}
}

// plain is a node without a disk, which has counted nothing.
func plain() Parts {
	none := func() uint64 { return 0 }
	return Parts{
		Hub:               func() realtime.Stats { return realtime.Stats{} },
		Delivery:          func() *delivery.Stats { return new(delivery.Stats) },
		UsersOnline:       func() int { return 0 },
		HandshakesRefused: none, OriginsRefused: none,
	}
}

func TestANodeWithoutADiskShowsNone(t *testing.T) {
	r := New("")
	r.Register(plain())
	if w := scrape(r); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "\njobwire_sessions 0\n") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	for _, name := range []string{"jobwire_store_bytes", "jobwire_store_syncs_total", "jobwire_store_failing"} {
		if lines := samples(r, name); len(lines) > 0 {
			t.Errorf("%q", lines)
		}
	}
}

func TestAPanicInAPartFailsTheScrapeAlone(t *testing.T) {
	parts, broken := plain(), true
	parts.UsersOnline = func() int {
		if broken {
			panic("oops")
		}
		return 1
	}
	r := New("")
	r.Register(parts)
	if w := scrape(r); w.Code != http.StatusInternalServerError {
		t.Errorf("answered %d", w.Code)
	}
	broken = false
	if lines := samples(r, "jobwire_users_online "); !slices.Equal(lines, []string{"jobwire_users_online 1\n"}) {
		t.Errorf("afterwards %q", lines)
	}
}

func TestObservingDoesNotAllocate(t *testing.T) {
	r := New("")
	if n := testing.AllocsPerRun(100, func() {
		r.StoreSynced(time.Millisecond)
		r.ReceiptCame(time.Second)
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkObserve(b *testing.B) {
	r := New("")
	b.ReportAllocs()
	for b.Loop() {
		r.ReceiptCame(3 * time.Millisecond)
	}
}

func BenchmarkScrape(b *testing.B) {
	r := full()
	b.ReportAllocs()
	for b.Loop() {
		if w := scrape(r); w.Code != http.StatusOK {
			b.Fatal(w.Code)
		}
	}
}
