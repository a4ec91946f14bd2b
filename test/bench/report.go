package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// report is the outcome of a bench.
type report struct {
	Machine string    `json:"machine"`
	Began   time.Time `json:"began"`
	Commit  string    `json:"commit,omitempty"`
	Rounds  int       `json:"rounds"`
	Quick   bool      `json:"quick"`
	Profile bool      `json:"profile"`
	Samples []sample  `json:"samples"`

	contenders []contender // jobwire, and those that played
}

func newReport(samples []sample, o options, began time.Time) *report {
	r := &report{Machine: machine(), Began: began, Commit: o.commit, Rounds: o.rounds,
		Quick: o.quick, Profile: o.profile, Samples: samples}
	for _, c := range o.contenders() {
		if c.name == own.name || slices.ContainsFunc(samples, func(s sample) bool { return s.Server == c.name }) {
			r.contenders = append(r.contenders, c)
		}
	}
	return r
}

// Save writes the report with every sample as JSON.
func (r *report) Save(path string) error {
	raw, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(raw, '\n'), 0o644)
}

// of is one metric of one server, by run.
func (r *report) of(server, load, metric string) series {
	out := series{}
	for _, s := range r.Samples {
		if v, ok := s.Metrics[metric]; ok && s.Server == server && s.Load == load {
			out[s.Run] = v
		}
	}
	return out
}

// value is what a line shows of a server, by run.
func (r *report) value(server string, l line) series {
	s := r.of(server, l.load, l.metric)
	if l.minus != "" {
		s = s.minus(r.of(server, l.minus, l.metric))
	}
	return s
}

// ratios are jobwire's value over what the line compares it with, run by run.
func (r *report) ratios(l line) series {
	if l.against.server == "" {
		return nil
	}
	return r.value(own.name, l).over(r.of(l.against.server, l.againstLoad(), l.againstMetric()))
}

func (r *report) played(server, load string) bool {
	for _, s := range r.Samples {
		if s.Server == server && s.Load == load {
			return true
		}
	}
	return false
}

// Passed tells whether jobwire reached every bar that was measured.
func (r *report) Passed() bool {
	for _, l := range lines {
		if v := r.judge(l); v.word == missed || v.word == failed {
			return false
		}
	}
	return true
}

// verdict is how jobwire stands against a bar.
type verdict struct {
	word  string
	ratio string
	noisy bool // single runs disagree with the verdict
}

func (v verdict) String() string {
	if v.noisy {
		return v.word + ", within noise"
	}
	return v.word
}

const (
	passed   = "pass"
	missed   = "MISS"
	failed   = "FAILED"
	unjudged = "n/a"
)

func (r *report) judge(l line) verdict {
	mine, ratios := r.value(own.name, l), r.ratios(l)
	v := verdict{word: unjudged}
	if len(ratios) > 0 {
		v.ratio = ratios.cell(2)
	}
	if l.bar == nil || !r.played(own.name, l.load) {
		return v
	}
	if len(mine) < r.runs(own.name, l.load) {
		v.word = failed // a run in which jobwire failed is not one to leave out
		return v
	}
	counts := mine
	if l.against.server != "" {
		counts = ratios
	}
	if len(counts) == 0 {
		return v
	}
	reached := l.bar.reached(counts.median())
	if l.bar.zero {
		reached = l.bar.reached(counts.max())
	}
	v.word = missed
	if reached {
		v.word = passed
	}
	v.noisy = !l.bar.zero && l.bar.reached(counts.min()) != l.bar.reached(counts.max())
	return v
}

// runs is how often a server played a load, well or not.
func (r *report) runs(server, load string) int {
	n := 0
	for _, s := range r.Samples {
		if s.Server == server && s.Load == load {
			n++
		}
	}
	return n
}

// Markdown prints the table, the details, and what failed.
func (r *report) Markdown(w io.Writer) {
	fmt.Fprintf(w, "%s. %s", r.Machine, r.Began.Format("2006-01-02 15:04"))
	if r.Commit != "" {
		fmt.Fprintf(w, ", commit %s", r.Commit)
	}
	fmt.Fprintf(w, ".\nMedian of %d round(s), in brackets lowest and highest. Ratios are taken run by run.\n", r.Rounds)
	for _, l := range loads {
		if n := r.runs(own.name, l.name); n > r.Rounds {
			fmt.Fprintf(w, "Of %s it is the median of %d runs.\n", l.name, n)
		}
	}
	fmt.Fprintln(w)
	if r.Profile {
		fmt.Fprint(w, "**Profiling was on: these figures do not count.**\n\n")
	}
	fmt.Fprint(w, "jobwire runs as shipped, with its data on disk and presence for everyone; lines marked as tuned say what they change.\n\n")
	r.table(w, lines, true)
	fmt.Fprint(w, "\nWhat lies behind it:\n\n")
	r.table(w, details, false)
	for _, c := range r.contenders {
		if c.jobwire && c.name != own.name {
			r.compare(w, c)
		}
	}
	if worst := r.noisiest(); worst.Metrics[otherCores] > quietEnough {
		fmt.Fprintf(w, "\n**The machine was not quiet**: other processes used up to %.1f cores (%s of %s, run %d). "+
			"Figures and ratios may be off; `%s` in the samples tells where.\n",
			worst.Metrics[otherCores], worst.Load, worst.Server, worst.Run+1, otherCores)
	}
	for _, s := range r.Samples {
		if s.Error != "" {
			fmt.Fprintf(w, "\n%s of %s failed in run %d:\n\n    %s\n", s.Load, s.Server, s.Run+1,
				strings.ReplaceAll(s.Error, "\n", "\n    "))
		}
	}
}

// noisiest is the sample during which other processes used most.
func (r *report) noisiest() sample {
	var worst sample
	for _, s := range r.Samples {
		if s.Metrics[otherCores] > worst.Metrics[otherCores] {
			worst = s
		}
	}
	return worst
}

func (r *report) table(w io.Writer, list []line, bars bool) {
	head, rule := "| |", "|---|"
	for _, c := range r.contenders {
		head += " " + c.title + " |"
		rule += "---|"
	}
	head += " ratio |"
	rule += "---|"
	if bars {
		head += " bar for jobwire | |"
		rule += "---|---|"
	}
	fmt.Fprintf(w, "%s\n%s\n", head, rule)
	for _, l := range expanded(list) {
		text, any := "| "+l.name()+" |", false
		for _, c := range r.contenders {
			any = any || r.played(c.name, l.load)
			text += " " + r.value(c.name, l).cell(l.digits) + " |"
		}
		if !any {
			continue
		}
		v := r.judge(l)
		text += " " + v.ratio
		if v.ratio != "" {
			text += " " + l.comparison()
		}
		text += " |"
		switch {
		case bars && l.bar != nil:
			text += fmt.Sprintf(" %s | %s |", l.bar.text, v)
		case bars:
			text += " | |"
		}
		fmt.Fprintln(w, text)
	}
}

// compare sets jobwire beside another binary of it: ratios run by run, their
// median and quartiles. What only one of them played is left out.
func (r *report) compare(w io.Writer, other contender) {
	fmt.Fprintf(w, "\njobwire ÷ %s, run by run:\n\n| | jobwire | %s | median | quartiles | runs |\n|---|---|---|---|---|---|\n", other.title, other.title)
	for _, l := range slices.Concat(expanded(lines), expanded(details)) {
		mine, theirs := r.value(own.name, l), r.value(other.name, l)
		ratios := mine.over(theirs)
		if len(ratios) == 0 {
			continue
		}
		fmt.Fprintf(w, "| %s | %s | %s | %.2f | %.2f–%.2f | %d |\n", l.name(), number(mine.median(), l.digits), number(theirs.median(), l.digits),
			ratios.median(), ratios.quantile(0.25), ratios.quantile(0.75), len(ratios))
	}
}

// machine says what was measured on.
func machine() string {
	model := runtime.GOARCH
	if raw, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for l := range strings.Lines(string(raw)) {
			if key, value, ok := strings.Cut(l, ":"); ok && strings.TrimSpace(key) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	kernel := "Linux"
	var uts unix.Utsname
	if unix.Uname(&uts) == nil {
		kernel += " " + unix.ByteSliceToString(uts.Release[:])
	}
	node := "no Node"
	if out, err := exec.Command("node", "--version").Output(); err == nil {
		node = "Node " + strings.TrimSpace(string(out))
	}
	return fmt.Sprintf("%s, %d cores, %s, %s, %s", model, runtime.NumCPU(), kernel, runtime.Version(), node)
}
