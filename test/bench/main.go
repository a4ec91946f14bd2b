package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// The kernel ends the children when the thread that started them ends: they
// are all started from the main thread, which lives as long as the process.
func init() { runtime.LockOSThread() }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// options are the bench's flags.
type options struct {
	quick, check, profile bool
	rounds                int
	loads, servers        string
	binaries              []otherBinary
	dir                   string
	commit                string
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var o options
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.BoolVar(&o.quick, "quick", false, "one round of smaller loads, those that only explain left out; about two minutes")
	fs.BoolVar(&o.check, "check", false, "exit 1 when a bar is missed")
	fs.BoolVar(&o.profile, "profile", false, "one round with CPU profiles of the servers in results/profiles; its figures do not count")
	fs.IntVar(&o.rounds, "rounds", 3, "how often every row is measured")
	fs.StringVar(&o.loads, "loads", "", "only these, comma-separated: "+strings.Join(loadNames(), " "))
	fs.StringVar(&o.servers, "servers", "", "only these, comma-separated: "+strings.Join(names(o.contenders()), " ")+", and jobwire-NAME of -binary")
	fs.Func("binary", "NAME=PATH: another binary of jobwire, as the server jobwire-NAME; may be repeated", func(text string) error {
		other, err := parseBinary(text)
		o.binaries = append(o.binaries, other)
		return err
	})
	fs.StringVar(&o.dir, "dir", ".", "the bench's own folder, with bin/ and node/")
	fs.StringVar(&o.commit, "commit", "", "the commit that is measured, for the records")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	if o.quick || o.profile {
		o.rounds = 1
	}
	plan, err := selection(o)
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return 2
	}
	b, err := newBench(o, stderr)
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return 1
	}
	began := time.Now()
	b.play(ctx, plan)
	report := newReport(b.samples, o, began)
	report.Markdown(stdout)
	path := filepath.Join(b.results, began.Format("20060102-150405")+".json")
	if err := report.Save(path); err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return 1
	}
	fmt.Fprintln(stderr, "bench: every sample is in", path)
	switch {
	case ctx.Err() != nil:
		return 130
	case o.check && !report.Passed():
		return 1
	}
	return 0
}

// planned is one load and the servers that get it.
type planned struct {
	load
	on []contender
}

// playing are the servers that get the load in that turn of a round, see
// load.further.
func (p planned) playing(turn int) []contender {
	switch {
	case turn == 0:
		return p.on
	case turn >= p.turns:
		return nil
	}
	return slices.DeleteFunc(slices.Clone(p.on), func(c contender) bool { return !p.further(c) })
}

// selection is what the flags ask for, in the order of the tables.
func selection(o options) ([]planned, error) {
	wantLoads, err := pick(o.loads, loadNames())
	if err != nil {
		return nil, err
	}
	wantServers, err := pick(o.servers, names(o.contenders()))
	if err != nil {
		return nil, err
	}
	var plan []planned
	for _, l := range loads {
		if l.extra && o.quick && o.loads == "" {
			continue
		}
		p := planned{load: l}
		for _, c := range o.contenders() {
			if slices.Contains(wantServers, c.name) && l.suits(c) {
				p.on = append(p.on, c)
			}
		}
		if slices.Contains(wantLoads, l.name) && len(p.on) > 0 {
			plan = append(plan, p)
		}
	}
	return plan, nil
}

// pick splits a comma-separated choice; none means all.
func pick(choice string, all []string) ([]string, error) {
	if choice == "" {
		return all, nil
	}
	names := strings.Split(choice, ",")
	for _, n := range names {
		if !slices.Contains(all, n) {
			return nil, fmt.Errorf("no %q among %s", n, strings.Join(all, ", "))
		}
	}
	return names, nil
}
