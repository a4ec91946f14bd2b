package main

import (
	"fmt"
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
	ratios := odd.over(series{0: 6, 2: 1, 7: 5})
	if len(ratios) != 2 || ratios[0] != 0.5 || ratios[2] != 2 {
		t.Errorf("ratios pair other rounds than their own: %v", ratios)
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
	ratio := line{load: "x", metric: "m", bar: atMost(0.8, "node", "")}
	zero := line{load: "x", metric: "m", bar: &bar{zero: true}}
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

func TestJudgeDisk(t *testing.T) {
	l := line{load: "durable", metric: "post_s", bar: &bar{atLeast: 5000}}
	for name, c := range map[string]struct {
		rate, limit float64
		want        string
	}{
		"fast enough":                     {6000, 100000, "pass"},
		"slow, but the disk is slow":      {900, 1500, "pass"},
		"slow, and the disk is not":       {900, 15000, "MISS"},
		"slow, and nobody asked the disk": {900, 0, "MISS"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newReport([]sample{{Load: "durable", Server: "jobwire",
				Metrics: map[string]float64{"post_s": c.rate, diskLimit: c.limit}}}, options{rounds: 1}, time.Time{})
			if got := r.judge(l).String(); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// Every line must name a load and a metric that exist, or the table has holes
// that nobody notices.
func TestLinesNameLoads(t *testing.T) {
	known := map[string]bool{"": true}
	for _, l := range loads {
		known[l.name] = true
	}
	for _, list := range [][]line{lines, details} {
		for _, l := range list {
			if !known[l.load] || !known[l.peerLoad] || l.metric == "" {
				t.Errorf("%q takes its value from load %q, %q, metric %q", l.title, l.load, l.peerLoad, l.metric)
			}
		}
	}
}

func TestSelection(t *testing.T) {
	plan, err := selection(options{servers: "jobwire,bare", loads: "post,presence,memory"})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range plan {
		for _, c := range p.on {
			got = append(got, p.name+"/"+c.name)
		}
	}
	want := "[memory/jobwire memory/bare post/jobwire post/bare presence/jobwire]"
	if text := fmt.Sprint(got); text != want {
		t.Errorf("plan is %s, want %s", text, want)
	}
	if _, err := selection(options{loads: "nothing"}); err == nil {
		t.Error("an unknown load is accepted")
	}
}

func TestFurtherTurnsAreForThoseThatABarCompares(t *testing.T) {
	var got []string
	for _, l := range loads {
		for _, name := range serverNames() {
			if l.turns > 1 && l.further(name) {
				got = append(got, l.name+"/"+name)
			}
		}
	}
	if text := fmt.Sprint(got); text != "[connect/jobwire connect/centrifuge post/jobwire post/centrifuge latency/jobwire latency/centrifuge]" {
		t.Errorf("further turns are for %s", text)
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
