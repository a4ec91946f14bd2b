package main

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestSeries(t *testing.T) {
	odd := series{0: 3, 1: 1, 2: 2}
	if got := odd.cell(1); got != "2.0 (1.0–3.0)" {
		t.Errorf("cell of an odd series: %q", got)
	}
	even := series{0: 4, 1: 1, 2: 2, 3: 3}
	if got := even.median(); got != 2.5 {
		t.Errorf("median of an even series: %v", got)
	}
	if got := (series{0: 1.04, 1: 1.01}).cell(1); got != "1.0" {
		t.Errorf("a spread that does not show is printed: %q", got)
	}
	if got := (series{}).cell(1); got != "–" {
		t.Errorf("cell of nothing: %q", got)
	}
	if ratios := odd.over(series{0: 6, 2: 1, 7: 5}); !maps.Equal(ratios, series{0: 0.5, 2: 2}) {
		t.Errorf("ratios pair other rounds than their own: %v", ratios)
	}
	if rest := odd.minus(series{0: 1, 2: 3, 7: 5}); !maps.Equal(rest, series{0: 2, 2: -1}) {
		t.Errorf("differences pair other rounds than their own: %v", rest)
	}
	for q, want := range map[float64]float64{0: 1, 0.25: 1.75, 0.5: 2.5, 0.75: 3.25, 1: 4} {
		if got := even.quantile(q); got != want {
			t.Errorf("quantile %v of 1 to 4: %v, want %v", q, got, want)
		}
	}
}

func TestNumber(t *testing.T) {
	for _, c := range []struct {
		v      float64
		digits int
		want   string
	}{{0, 0, "0"}, {999, 0, "999"}, {1000, 0, "1,000"}, {1234567.89, 1, "1,234,567.9"}, {-1000, 0, "-1,000"}, {-100, 0, "-100"}} {
		if got := number(c.v, c.digits); got != c.want {
			t.Errorf("number(%v, %d) = %q, want %q", c.v, c.digits, got, c.want)
		}
	}
}

// outcome builds a report of one load from each server's values by round.
func outcome(load, metric string, values map[string][]float64) *report {
	var samples []sample
	for server, list := range values {
		for round, v := range list {
			s := sample{Run: round, Load: load, Server: server}
			if v < 0 {
				s.Error = "ended"
			} else {
				s.Metrics = map[string]float64{metric: v}
			}
			samples = append(samples, s)
		}
	}
	return newReport(samples, options{rounds: 3}, time.Time{})
}

func TestJudge(t *testing.T) {
	ratio := line{load: "x", metric: "m", against: toNode, bar: atMost(0.8, "")}
	rate := line{load: "x", metric: "m", against: toNode, bar: &bar{least: 0.8}}
	absolute := line{load: "x", metric: "m", bar: atMost(0.6, "")}
	zero := line{load: "x", metric: "m", bar: none}
	for name, c := range map[string]struct {
		line   line
		values map[string][]float64
		want   string
	}{
		"below the bar":                 {ratio, map[string][]float64{"jobwire": {7, 7, 7}, "node": {10, 10, 10}}, "pass"},
		"above the bar":                 {ratio, map[string][]float64{"jobwire": {9, 9, 9}, "node": {10, 10, 10}}, "MISS"},
		"above in one round":            {ratio, map[string][]float64{"jobwire": {7, 9, 7}, "node": {10, 10, 10}}, "pass, within noise"},
		"drift that hits both":          {ratio, map[string][]float64{"jobwire": {7, 70, 7}, "node": {10, 100, 10}}, "pass"},
		"a round in which it ended":     {ratio, map[string][]float64{"jobwire": {7, -1, 7}, "node": {10, 10, 10}}, "FAILED"},
		"peer not measured":             {ratio, map[string][]float64{"jobwire": {7, 7, 7}}, "n/a"},
		"not measured":                  {ratio, map[string][]float64{"node": {7, 7, 7}}, "n/a"},
		"a rate that is high enough":    {rate, map[string][]float64{"jobwire": {9, 9, 9}, "node": {10, 10, 10}}, "pass"},
		"a rate that is too low":        {rate, map[string][]float64{"jobwire": {7, 7, 7}, "node": {10, 10, 10}}, "MISS"},
		"too low in one round":          {rate, map[string][]float64{"jobwire": {9, 7, 9}, "node": {10, 10, 10}}, "pass, within noise"},
		"a value below its bar":         {absolute, map[string][]float64{"jobwire": {0.5, 0.5, 0.5}}, "pass"},
		"a value above its bar":         {absolute, map[string][]float64{"jobwire": {0.7, 0.7, 0.5}}, "MISS, within noise"},
		"no losses":                     {zero, map[string][]float64{"jobwire": {0, 0, 0}}, "pass"},
		"a loss that the median hides":  {zero, map[string][]float64{"jobwire": {0, 1, 0}}, "MISS"},
		"losses of a peer do not count": {zero, map[string][]float64{"jobwire": {0, 0, 0}, "node": {5, 5, 5}}, "pass"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := outcome("x", "m", c.values).judge(c.line).String(); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestJudgeOwnLoads(t *testing.T) {
	run := func(load string, metrics map[string]float64) sample {
		return sample{Load: load, Server: "jobwire", Metrics: metrics}
	}
	r := newReport([]sample{
		run("told", map[string]float64{"cpu_s": 1.5}), run("untold", map[string]float64{"cpu_s": 1}),
		run("held", map[string]float64{"p999_ms": 9, "control_p999_ms": 3}),
	}, options{rounds: 1}, time.Time{})
	for name, c := range map[string]struct {
		line          line
		verdict, cell string
	}{
		"another load":            {line{load: "told", metric: "cpu_s", against: to("untold"), bar: atMost(1.5, "")}, "pass", "1.50"},
		"less another load":       {line{load: "told", minus: "untold", metric: "cpu_s", bar: atMost(0.5, "")}, "pass", ""},
		"less one that is absent": {line{load: "told", minus: "held", metric: "cpu_s", bar: atMost(0.5, "")}, "FAILED", ""},
		"another metric":          {line{load: "held", metric: "p999_ms", against: versus{server: "jobwire", metric: "control_p999_ms"}, bar: atMost(2, "")}, "MISS", "3.00"},
	} {
		if v := r.judge(c.line); v.String() != c.verdict || v.ratio != c.cell {
			t.Errorf("%s: %q, ratio %q; want %q, %q", name, v, v.ratio, c.verdict, c.cell)
		}
	}
}

func TestTunedLinesSaySo(t *testing.T) {
	samples := []sample{
		{Load: "progress", Server: "jobwire", Metrics: map[string]float64{"cpu_us": 60}},
		{Load: "progress", Server: "centrifuge", Metrics: map[string]float64{"cpu_us": 50}},
		{Load: "progress-tuned", Server: "jobwire", Metrics: map[string]float64{"cpu_us": 45}},
	}
	var text strings.Builder
	newReport(samples, options{rounds: 1}, time.Time{}).Markdown(&text)
	for _, want := range []string{
		"µs | 60.0 | 50.0 | 1.20 of centrifuge | ≤ centrifuge | MISS |\n",
		"| … tuned: memory, presence none | 45.0 | – | 0.90 of centrifuge | | |\n",
	} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %q in\n%s", want, &text)
		}
	}
}

func TestBinariesAreComparedRunByRun(t *testing.T) {
	o := options{rounds: 4, binaries: []otherBinary{{"old", "/bin/old"}}}
	var samples []sample
	for run, v := range []float64{10, 20, 40, 80} { // the machine drifts, the binaries keep to each other
		samples = append(samples,
			sample{Run: run, Load: "rate", Server: "jobwire", Metrics: map[string]float64{"p99_ms": v * (1 + float64(run)/4)}},
			sample{Run: run, Load: "rate", Server: "jobwire-old", Metrics: map[string]float64{"p99_ms": v}})
	}
	var text strings.Builder
	newReport(samples, o, time.Time{}).Markdown(&text)
	_, table, _ := strings.Cut(text.String(), "jobwire ÷ jobwire old")
	if want := "| … p99, ms | 42.50 | 30.00 | 1.38 | 1.19–1.56 | 4 |\n"; !strings.Contains(table, want) {
		t.Errorf("no %q in\n%s", want, &text)
	}
	if strings.Count(table, "\n| … ") != 1 {
		t.Errorf("lines that were not measured are compared:\n%s", table)
	}
}

// Every line must name a load and a metric that exist, or the table has holes
// that nobody notices.
func TestLinesNameLoads(t *testing.T) {
	known := map[string]bool{"": true}
	for _, l := range loads {
		if known[l.name] {
			t.Errorf("load %q is there twice", l.name)
		}
		known[l.name] = true
	}
	for _, l := range expanded(slices.Concat(lines, details)) {
		if l.load == "" || !known[l.load] || !known[l.minus] || !known[l.againstLoad()] || l.metric == "" || l.name() == "" {
			t.Errorf("%+v", l)
		}
		if against := l.against.server; against != "" && !slices.Contains(names(options{}.contenders()), against) {
			t.Errorf("%s is compared with %q", l.name(), against)
		}
		if l.title == "" && loadOf(l.load).setup == shipped {
			t.Errorf("a line of %s has no title", l.load)
		}
	}
	for _, l := range lines {
		if s := loadOf(l.load).setup; l.bar != nil && s.memory {
			t.Errorf("%s: a bar counts with data on disk", l.name())
		}
	}
}

// planText lists "load/server" in the order of the plan.
func planText(t *testing.T, o options) string {
	plan, err := selection(o)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range plan {
		for _, c := range p.on {
			got = append(got, p.name+"/"+c.name)
		}
	}
	return strings.Join(got, " ")
}

func TestSelection(t *testing.T) {
	old := []otherBinary{{"old", "/bin/old"}}
	for name, c := range map[string]struct {
		options options
		want    string
	}{
		"servers that the load suits": {options{servers: "jobwire,bare", loads: "progress,presence,memory"},
			"memory/jobwire memory/bare progress/jobwire progress/bare presence/jobwire"},
		"setups are jobwire's": {options{loads: "rate-tuned,arrival-silent"}, "rate-tuned/jobwire arrival-silent/jobwire arrival-silent/node"},
		"another binary":       {options{servers: "jobwire,jobwire-old", loads: "burst,settle", binaries: old}, "burst/jobwire burst/jobwire-old settle/jobwire settle/jobwire-old"},
		"extra when asked for": {options{quick: true, loads: "custom"}, "custom/jobwire"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := planText(t, c.options); got != c.want {
				t.Errorf("plan is %s, want %s", got, c.want)
			}
		})
	}
	if strings.Contains(planText(t, options{quick: true}), "custom") {
		t.Error("a quick run plays what only explains")
	}
	for _, bad := range []options{{loads: "nothing"}, {servers: "jobwire-old"}} {
		if _, err := selection(bad); err == nil {
			t.Errorf("%+v is accepted", bad)
		}
	}
}

func TestFurtherTurnsAreForThoseThatABarCompares(t *testing.T) {
	var got []string
	for _, l := range loads {
		for _, c := range (options{binaries: []otherBinary{{"old", "/bin/old"}}}).contenders() {
			if l.turns > 1 && l.suits(c) && l.further(c) {
				got = append(got, l.name+"/"+c.name)
			}
		}
	}
	want := "connect/bare connect-silent/jobwire connect-silent/jobwire-old progress/jobwire progress/centrifuge progress/jobwire-old " +
		"durable/jobwire durable/jobwire-old rate/jobwire rate/centrifuge rate/jobwire-old after/jobwire after/jobwire-old " +
		"after-silent/jobwire after-silent/jobwire-old arrival/jobwire arrival/jobwire-old arrival-silent/jobwire arrival-silent/jobwire-old " +
		"arrival-polling/jobwire arrival-polling/jobwire-old arrival-polling-silent/jobwire arrival-polling-silent/jobwire-old"
	if text := strings.Join(got, " "); text != want {
		t.Errorf("further turns are for %s\nwant %s", text, want)
	}
}

func TestParseBinary(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := parseBinary("old=" + self); err != nil || got != (otherBinary{"old", self}) {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{"", "old", "old=", "=" + self, "a,b=" + self, "old=/does/not/exist", "old=" + filepath.Dir(self)} {
		if _, err := parseBinary(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func TestParseBusy(t *testing.T) {
	got, err := parseBusy([]byte("cpu  100 10 50 9000 7 3 2 99 5 5\ncpu0 1 1 1 1 1 1 1 1\n"))
	if err != nil || got != 1650*time.Millisecond {
		t.Errorf("got %v, %v; idle, iowait and steal must not count", got, err)
	}
	if _, err := parseBusy([]byte("intr 1 2 3")); err == nil {
		t.Error("nonsense is accepted")
	}
}
