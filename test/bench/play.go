package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// runLimit bounds one run of the generator.
const runLimit = 4 * time.Minute

// sample is what one run of the generator measured.
type sample struct {
	Run     int                `json:"run"` // of this load, from 0: round after round, turn after turn
	Load    string             `json:"load"`
	Server  string             `json:"server"`
	Metrics map[string]float64 `json:"metrics,omitempty"`
	Error   string             `json:"error,omitempty"`
}

// bench plays loads and keeps their samples.
type bench struct {
	options
	results      string // folder for results, logs and profiles
	jobwireDebug bool   // jobwire offers net/http/pprof
	progress     io.Writer
	samples      []sample
	aging        map[string]aging // started for later loads of this turn, by the name of their run
}

func newBench(o options, progress io.Writer) (*bench, error) {
	b := &bench{options: o, results: filepath.Join(o.dir, "results"), progress: progress, aging: make(map[string]aging)}
	for _, sub := range []string{"logs", "profiles"} {
		if err := os.MkdirAll(filepath.Join(b.results, sub), 0o755); err != nil {
			return nil, err
		}
	}
	if o.profile {
		b.jobwireDebug = hasFlag(filepath.Join(o.dir, "bin", "jobwire"), "debug-addr")
	}
	return b, nil
}

// play runs all rounds, and in each the turns. The servers of one load follow
// each other directly, and every run begins with another of them, so that a
// drift of the machine hits all alike.
func (b *bench) play(ctx context.Context, plan []planned) {
	defer b.stopAging()
	for round := range b.rounds {
		for turn := range b.turns(plan) {
			run := func(p planned) int { return round*max(p.turns, 1) + turn }
			for _, p := range plan {
				for _, c := range p.playing(turn) {
					b.age(ctx, c, p.load, run(p))
				}
			}
			for i, p := range plan {
				on := p.playing(turn)
				for j := range on {
					if ctx.Err() != nil {
						return
					}
					c := on[(i+j+run(p))%len(on)]
					fmt.Fprintf(b.progress, "round %d/%d  %-22s %-11s", round+1, b.rounds, p.name, c.name)
					b.sample(ctx, c, p.load, run(p))
				}
			}
		}
	}
}

// settledIn is how long after its first user jobwire takes those who come fast
// for the same users coming back after a start.
const settledIn = 31 * time.Second

// aging is a server on its way to settledIn, or why there is none.
type aging struct {
	server *server
	ripe   time.Time
	err    error
}

// age starts a server that is to have run for a while when its load comes, and
// shows it a first user. It idles meanwhile.
func (b *bench) age(ctx context.Context, c contender, l load, run int) {
	if !l.aged || !c.jobwire || ctx.Err() != nil {
		return
	}
	name := runName(c, l, run)
	s, err := b.start(ctx, c, l, name)
	if err == nil {
		if _, err = b.generate(ctx, s, load{args: "-scenario arrival -n 1"}, name); err != nil {
			s.stop()
		}
	}
	b.aging[name] = aging{s, time.Now().Add(settledIn), err}
}

// take is the server for a run, for the caller to stop.
func (b *bench) take(ctx context.Context, c contender, l load, name string) (*server, error) {
	a, ok := b.aging[name]
	if !ok {
		return b.start(ctx, c, l, name)
	}
	delete(b.aging, name)
	if a.err != nil {
		return nil, a.err
	}
	select {
	case <-time.After(time.Until(a.ripe)):
		return a.server, nil
	case <-ctx.Done():
		a.server.stop()
		return nil, ctx.Err()
	}
}

func (b *bench) stopAging() {
	for _, a := range b.aging {
		if a.err == nil {
			a.server.stop()
		}
	}
}

// runName names what is kept of a run.
func runName(c contender, l load, run int) string {
	return fmt.Sprintf("%s-%s-%d", l.name, c.name, run+1)
}

// sample runs a load once and keeps what it measured, or how it failed.
func (b *bench) sample(ctx context.Context, c contender, l load, run int) {
	s := sample{Run: run, Load: l.name, Server: c.name}
	var err error
	s.Metrics, err = b.once(ctx, c, l, run)
	switch {
	case ctx.Err() != nil:
		fmt.Fprintln(b.progress, " interrupted")
		return
	case err != nil:
		s.Error = err.Error()
		fmt.Fprintf(b.progress, " failed: %v\n", err)
	default:
		fmt.Fprintf(b.progress, " %s\n", summary(s.Metrics))
	}
	b.samples = append(b.samples, s)
}

// turns is how many turns a round has.
func (b *bench) turns(plan []planned) int {
	turns := 1
	for _, p := range plan {
		if !b.quick && !b.profile {
			turns = max(turns, p.turns)
		}
	}
	return turns
}

// once starts a server, loads it, and ends it.
func (b *bench) once(ctx context.Context, c contender, l load, run int) (map[string]float64, error) {
	name := runName(c, l, run)
	s, err := b.take(ctx, c, l, name)
	if err != nil {
		return nil, err
	}
	defer s.stop()
	metrics, err := b.generate(ctx, s, l, name)
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, logTail(s.log.Name()))
	}
	select {
	case <-s.exited:
		return nil, fmt.Errorf("the server ended under load\n%s", logTail(s.log.Name()))
	default:
	}
	if l.diskLimit && s.dataDir != "" {
		if metrics[diskLimit], err = measureDisk(s.dataDir); err != nil {
			return nil, err
		}
	}
	return metrics, nil
}

// generate runs the generator against s and returns its metrics. A load without
// a name is not profiled.
func (b *bench) generate(ctx context.Context, s *server, l load, name string) (map[string]float64, error) {
	ctx, cancel := context.WithTimeout(ctx, runLimit)
	defer cancel()
	args := append([]string{"-addr", s.addr, "-pid", strconv.Itoa(s.cmd.Process.Pid), "-dialect", s.dialect},
		l.arguments(b.options)...)
	cmd := exec.CommandContext(ctx, filepath.Join(b.dir, "bin", "loadgen"), args...)
	cmd.Env = append(plainEnv(), "BENCH_JWT_SECRET="+benchSecret, "BENCH_API_KEY="+benchKey)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	in, err := cmd.StdinPipe() // closed by Wait, or when there is no answer
	if err != nil {
		return nil, err
	}
	others, err := startOthers(s)
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start loadgen: %w", err)
	}
	var metrics map[string]float64
	var profiled chan error
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var msg struct {
			Phase   string             `json:"phase"`
			Metrics map[string]float64 `json:"metrics"`
		}
		if err := json.Unmarshal(lines.Bytes(), &msg); err != nil {
			complaint.WriteString(lines.Text() + "\n")
			continue
		}
		if msg.Phase == "measure" && b.options.profile && l.name != "" {
			profiled = make(chan error, 1)
			go func() { profiled <- b.takeProfile(ctx, s, name) }()
		}
		if msg.Phase == "restart" {
			if err := s.restart(ctx); err != nil {
				complaint.WriteString(err.Error() + "\n")
				in.Close()
			} else {
				fmt.Fprintln(in, s.cmd.Process.Pid) // a generator that is gone has said why
			}
		}
		if msg.Metrics != nil {
			metrics = msg.Metrics
		}
	}
	err = cmd.Wait()
	if profiled != nil {
		if perr := <-profiled; perr != nil {
			fmt.Fprintf(b.progress, " (no profile: %v)", perr)
		}
	}
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s", bytes.TrimSpace(append(complaint.Bytes(), err.Error()...)))
	case metrics == nil:
		return nil, errors.New("the generator measured nothing")
	}
	metrics[otherCores], err = others.stop(cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime())
	return metrics, err
}

// summary is one run's metrics on one line of progress.
func summary(m map[string]float64) string {
	text := ""
	for _, l := range slices.Concat(lines, details) {
		for _, metric := range []string{l.metric, l.againstMetric()} {
			if v, ok := m[metric]; ok && !strings.Contains(text, " "+metric+"=") {
				text += " " + metric + "=" + strconv.FormatFloat(v, 'f', l.digits, 64)
			}
		}
	}
	if v := m[otherCores]; v > quietEnough {
		text += fmt.Sprintf(" (others: %.1f cores)", v)
	}
	return text
}
