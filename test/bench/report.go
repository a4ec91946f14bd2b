package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
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
}

func newReport(samples []sample, o options, began time.Time) *report {
	return &report{Machine: machine(), Began: began, Commit: o.commit, Rounds: o.rounds,
		Quick: o.quick, Profile: o.profile, Samples: samples}
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
	mine := r.of("jobwire", l.load, l.metric)
	switch {
	case l.bar == nil || !r.played("jobwire", l.load):
		return verdict{word: unjudged}
	case len(mine) < r.runs("jobwire", l.load):
		return verdict{word: failed} // a run in which jobwire failed is not one to leave out
	case l.bar.zero:
		return pass(mine.max() == 0, "")
	case l.bar.atLeast > 0:
		limit := r.of("jobwire", l.load, diskLimit)
		share := mine.over(limit)
		ok := mine.median() >= l.bar.atLeast || (len(share) > 0 && share.median() >= 0.5)
		return pass(ok, share.cell(2)+" of the disk's")
	}
	theirs := r.of(l.bar.peer, l.source(l.bar.peer), l.metric)
	if len(theirs) == 0 {
		return verdict{word: unjudged}
	}
	ratios := mine.over(theirs)
	if len(ratios) == 0 {
		return verdict{word: unjudged}
	}
	v := pass(ratios.median() <= l.bar.factor, ratios.cell(2))
	v.noisy = ratios.min() <= l.bar.factor && ratios.max() > l.bar.factor
	return v
}

func pass(ok bool, ratio string) verdict {
	if ok {
		return verdict{word: passed, ratio: ratio}
	}
	return verdict{word: missed, ratio: ratio}
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
		if n := r.runs("jobwire", l.name); n > r.Rounds {
			fmt.Fprintf(w, "Of %s it is the median of %d runs.\n", l.name, n)
		}
	}
	fmt.Fprintln(w)
	if r.Profile {
		fmt.Fprint(w, "**Profiling was on: these figures do not count.**\n\n")
	}
	r.table(w, lines, true)
	fmt.Fprint(w, "\nWhat lies behind it:\n\n")
	r.table(w, details, false)
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
	for _, c := range contenders {
		head += " " + c.title + " |"
		rule += "---|"
	}
	if bars {
		head += " bar for jobwire | ratio | |"
		rule += "---|---|---|"
	}
	fmt.Fprintf(w, "%s\n%s\n", head, rule)
	for _, l := range list {
		text, any := "| "+l.title+" |", false
		for _, c := range contenders {
			s := r.of(c.name, l.source(c.name), l.metric)
			any = any || r.played(c.name, l.load)
			text += " " + s.cell(l.digits) + " |"
		}
		if !any {
			continue
		}
		if bars {
			v := r.judge(l)
			text += fmt.Sprintf(" %s | %s | %s |", l.bar.text, v.ratio, v)
		}
		fmt.Fprintln(w, text)
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
