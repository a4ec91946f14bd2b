// Command loadgen puts one kind of load on one running server and measures
// what it cost: CPU and memory of the server's process, time to the client's
// socket, and what was lost on the way. It prints JSON lines on standard
// output: {"phase":"measure"} when the measured part begins, {"phase":"restart"}
// when the server is to be started again, whose new process id it then reads
// from standard input, and {"metrics":…} at the end. The bench starts it once
// for every row, server and round.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"jobwire/test/bench/loadgen/sockets"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "loadgen:", err)
		os.Exit(1)
	}
}

// metrics is what a scenario measured, by name; units are part of the names.
type metrics map[string]float64

// scenario is one kind of load. It returns an error when the measurement is
// worthless, not when the server does badly.
type scenario func(context.Context, *target) (metrics, error)

var scenarios = map[string]scenario{
	"memory":   memory,
	"connect":  connect,
	"post":     post,
	"fanout":   fanout,
	"latency":  latency,
	"burst":    burst,
	"presence": presence,
	"arrival":  arrival,
	"storm":    storm,
	"settle":   settle,
}

func run(ctx context.Context, args []string) error {
	t := &target{secret: []byte(os.Getenv("BENCH_JWT_SECRET")), key: os.Getenv("BENCH_API_KEY"), restart: askForRestart}
	fs := flag.NewFlagSet("loadgen", flag.ContinueOnError)
	name := fs.String("scenario", "", strings.Join(slices.Sorted(maps.Keys(scenarios)), ", "))
	dialect := fs.String("dialect", "", "socketio, centrifuge or bare")
	polling := fs.Bool("polling", false, "clients of Socket.IO use HTTP long-polling instead of websocket")
	limit := fs.Duration("limit", 3*time.Minute, "give up after this long")
	fs.StringVar(&t.addr, "addr", "", "the server's host:port, on loopback")
	fs.IntVar(&t.pid, "pid", 0, "the server's process")
	fs.IntVar(&t.n, "n", 0, "how much: connections, events, POSTs, arrivals")
	fs.IntVar(&t.warm, "warm", 0, "how much of the same before measuring")
	fs.IntVar(&t.conns, "conns", 1000, "sockets that listen")
	fs.IntVar(&t.users, "users", 1000, "users the sockets belong to")
	fs.IntVar(&t.workers, "workers", 32, "keep-alive connections that post")
	fs.IntVar(&t.batch, "batch", 0, "events per POST; 0 posts single events")
	fs.IntVar(&t.rate, "rate", 2000, "POSTs a second, open loop")
	fs.DurationVar(&t.rest, "rest", 300*time.Millisecond, "idle time before it is measured")
	fs.BoolVar(&t.presence, "presence", false, "the server tells everyone who comes")
	fs.StringVar(&t.kind, "kind", "progress", "progress, completed or custom events, or jobs: 19 times progress, then completed")
	if err := fs.Parse(args); err != nil {
		return err
	}
	play, ok := scenarios[*name]
	if !ok {
		return fmt.Errorf("no scenario %q", *name)
	}
	if *polling {
		*dialect += "-polling"
	}
	if t.dialect, ok = sockets.Dialects[*dialect]; !ok {
		return fmt.Errorf("no dialect %q", *dialect)
	}
	if len(t.secret) == 0 || t.key == "" || t.pid == 0 || t.n <= 0 || t.conns <= 0 || t.users <= 0 || t.workers <= 0 {
		return errors.New("BENCH_JWT_SECRET, BENCH_API_KEY, -pid, and -n, -conns, -users, -workers above 0 are required")
	}
	if err := raiseFileLimit(t.descriptors(*name)); err != nil {
		return err
	}
	// The pool's thread and the pacer sit in system calls most of the time; two
	// more processors keep the workers from waiting for theirs.
	runtime.GOMAXPROCS(runtime.NumCPU() + 2)
	debug.SetGCPercent(400)

	ctx, cancel := context.WithTimeout(ctx, *limit)
	defer cancel()
	m, err := play(ctx, t)
	if err != nil {
		return fmt.Errorf("%s: %w", *name, err)
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]metrics{"metrics": m})
}

// otherFiles are the descriptors besides sockets: epoll, standard streams, /proc,
// and in a server its store's files.
const otherFiles = 200

// descriptors is how many files a scenario has open at most.
func (t *target) descriptors(scenario string) uint64 {
	n := t.conns
	switch scenario {
	case "memory", "connect", "presence": // here n counts connections
		n += t.n + t.warm // more than enough: memory grows from conns to n
	case "post", "latency", "settle":
		n = t.users
	case "arrival", "storm":
		n = 2 * t.n // who polls has two
	}
	return uint64(n + t.workers + otherFiles)
}

// raiseFileLimit asks for n descriptors.
func raiseFileLimit(n uint64) error {
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return fmt.Errorf("file limit: %w", err)
	}
	if lim.Cur >= n {
		return nil
	}
	lim.Cur, lim.Max = n, max(lim.Max, n)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return fmt.Errorf("file limit: %d descriptors needed (ulimit -n): %w", n, err)
	}
	return nil
}

// askForRestart has the bench, which owns the server's process, end it and start
// it again. It returns when that one listens, with its process id.
func askForRestart() (pid int, err error) {
	if err := json.NewEncoder(os.Stdout).Encode(map[string]string{"phase": "restart"}); err != nil {
		return 0, err
	}
	if _, err := fmt.Fscanln(os.Stdin, &pid); err != nil {
		return 0, fmt.Errorf("the server was not started again: %w", err)
	}
	return pid, nil
}

// measuring tells the bench that the measured part begins, so that it can
// start a profile.
func measuring() {
	_ = json.NewEncoder(os.Stdout).Encode(map[string]string{"phase": "measure"}) // a lost line costs a profile
}
