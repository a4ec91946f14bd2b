package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"jobwire/test/bench/proc"
)

// Credentials of the bench's servers; they listen on loopback for minutes.
const (
	benchSecret = "bench-only-secret-of-more-than-32-bytes"
	benchKey    = "bench-only-key-of-more-than-24-characters"
)

// contender is one server of the comparison.
type contender struct {
	name, title, dialect string
	jobwire              bool // this repository's binary, or another one of it
	debug                bool // offers net/http/pprof
	command              func(*bench, launch) *exec.Cmd
}

// setup is how jobwire's settings differ from what it is shipped with. The zero
// setup is as shipped: data on disk, presence for everyone.
type setup struct {
	memory bool // keeps its data in memory
	silent bool // tells no user of the others
}

var shipped setup

func (s setup) String() string {
	data, audience := "disk", "everyone"
	if s.memory {
		data = "memory"
	}
	if s.silent {
		audience = "none"
	}
	return data + ", presence " + audience
}

// launch is how one server is to be started.
type launch struct {
	addr, debugAddr string
	presence        bool   // peers that can tell everyone who comes do
	setup           setup  // of jobwire
	dataDir         string // of jobwire, fresh; empty: in memory
	flags           string // further ones of jobwire
}

// own is the binary of this repository.
var own = contender{name: "jobwire", title: "jobwire", dialect: "socketio", jobwire: true, command: func(b *bench, l launch) *exec.Cmd {
	return jobwire(filepath.Join(b.dir, "bin", "jobwire"), l)
}}

var peers = []contender{
	{name: "node", title: "Node socket.io", dialect: "socketio", command: func(b *bench, l launch) *exec.Cmd {
		cmd := exec.Command("node", "server.js")
		cmd.Dir = filepath.Join(b.dir, "node")
		cmd.Env = append(benchEnv(l), "NODE_ENV=production")
		return cmd
	}},
	{name: "centrifuge", title: "centrifuge", dialect: "centrifuge", debug: true, command: peer("centrifuge")},
	{name: "bare", title: "bare websocket", dialect: "bare", debug: true, command: peer("bare")},
}

// otherBinary is another binary of jobwire, say of the commit before.
type otherBinary struct{ name, path string }

// parseBinary reads name=path.
func parseBinary(text string) (otherBinary, error) {
	name, path, _ := strings.Cut(text, "=")
	if name == "" || strings.ContainsAny(name, ", /|") || path == "" {
		return otherBinary{}, fmt.Errorf("%q is not of the form name=path", text)
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return otherBinary{}, err
	}
	if _, err := exec.LookPath(path); err != nil {
		return otherBinary{}, err
	}
	return otherBinary{name, path}, nil
}

// contenders are all servers, jobwire first, in the order of the tables.
func (o options) contenders() []contender {
	list := append([]contender{own}, peers...)
	for _, other := range o.binaries {
		list = append(list, contender{name: "jobwire-" + other.name, title: "jobwire " + other.name, dialect: "socketio", jobwire: true,
			command: func(_ *bench, l launch) *exec.Cmd { return jobwire(other.path, l) }})
	}
	return list
}

func names(list []contender) []string {
	var names []string
	for _, c := range list {
		names = append(names, c.name)
	}
	return names
}

func peer(name string) func(*bench, launch) *exec.Cmd {
	return func(b *bench, l launch) *exec.Cmd {
		cmd := exec.Command(filepath.Join(b.dir, "bin", name))
		cmd.Env = benchEnv(l)
		return cmd
	}
}

// plainEnv is this process's environment without what would tune or configure
// a server behind the bench's back.
func plainEnv() []string {
	return slices.DeleteFunc(os.Environ(), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return strings.HasPrefix(name, "JOBWIRE_") || strings.HasPrefix(name, "BENCH_") ||
			slices.Contains([]string{"GOGC", "GOMEMLIMIT", "GOMAXPROCS", "GODEBUG", "NODE_OPTIONS"}, name)
	})
}

func benchEnv(l launch) []string {
	env := append(plainEnv(), "BENCH_ADDR="+l.addr, "BENCH_DEBUG_ADDR="+l.debugAddr,
		"BENCH_JWT_SECRET="+benchSecret, "BENCH_API_KEY="+benchKey)
	if l.presence {
		env = append(env, "BENCH_PRESENCE=everyone")
	}
	return env
}

// jobwire starts with its defaults, but for the setup and the limits that
// protect it from a single address or user, which here is the generator.
func jobwire(binary string, l launch) *exec.Cmd {
	args := []string{"--addr=" + l.addr, "--handshake-rate=0", "--max-sockets-per-user=2000", "--drain=2s"}
	if l.setup.memory {
		args = append(args, "--data-dir=memory")
	} else {
		args = append(args, "--data-dir="+l.dataDir)
	}
	if l.setup.silent {
		args = append(args, "--presence-audience=none")
	}
	if l.debugAddr != "" {
		args = append(args, "--debug-addr="+l.debugAddr)
	}
	cmd := exec.Command(binary, append(args, strings.Fields(l.flags)...)...)
	cmd.Env = append(plainEnv(), "JOBWIRE_JWT_SECRET="+benchSecret, "JOBWIRE_API_KEYS=bench="+benchKey)
	return cmd
}

// hasFlag tells whether a binary's help names a flag.
func hasFlag(binary, flag string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	help, _ := exec.CommandContext(ctx, binary, "--help").CombinedOutput() // no help, no flag
	return bytes.Contains(help, []byte("--"+flag))
}

// server is a running contender.
type server struct {
	contender
	launch
	bench  *bench
	log    *os.File
	spent  time.Duration // CPU time of its processes that have ended
	cmd    *exec.Cmd
	exited chan struct{} // closed when cmd has ended
}

// start runs a contender until it accepts connections. Its output goes to a
// file of its own.
func (b *bench) start(ctx context.Context, c contender, l load, logName string) (*server, error) {
	s := &server{contender: c, bench: b}
	s.presence, s.setup, s.flags = l.presence && !l.setup.silent, l.setup, l.flags
	var err error
	if s.addr, err = freeAddr(); err != nil {
		return nil, err
	}
	if b.options.profile && (c.debug || (c.jobwire && b.jobwireDebug)) {
		if s.debugAddr, err = freeAddr(); err != nil {
			return nil, err
		}
	}
	if c.jobwire && !l.setup.memory {
		if s.dataDir, err = os.MkdirTemp(b.dir, "data-"); err != nil {
			return nil, err
		}
		if s.dataDir, err = filepath.Abs(s.dataDir); err != nil {
			return nil, err
		}
	}
	if s.log, err = os.Create(filepath.Join(b.results, "logs", logName+".log")); err != nil {
		s.cleanUp()
		return nil, err
	}
	if err := s.launchProcess(ctx); err != nil {
		s.cleanUp()
		return nil, err
	}
	return s, nil
}

// launchProcess starts the process and waits until it listens. When it does
// not, the process has ended.
func (s *server) launchProcess(ctx context.Context) error {
	s.cmd = s.command(s.bench, s.launch)
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", s.name, err)
	}
	s.exited = make(chan struct{})
	go func(cmd *exec.Cmd, exited chan struct{}) {
		_ = cmd.Wait() // how it ended is in its log
		close(exited)
	}(s.cmd, s.exited)
	if err := s.awaitReady(ctx); err != nil {
		s.end()
		return fmt.Errorf("%s: %w\n%s", s.name, err, logTail(s.log.Name()))
	}
	return nil
}

func (s *server) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		conn, err := net.DialTimeout("tcp4", s.addr, time.Second)
		if err == nil {
			conn.Close()
			return nil
		}
		select {
		case <-s.exited:
			return errors.New("ended before it listened")
		case <-ctx.Done():
			return fmt.Errorf("does not listen: %w", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// restart ends the process and starts it again, at the same address and with
// the same data.
func (s *server) restart(ctx context.Context) error {
	s.end()
	s.spent += s.cmd.ProcessState.UserTime() + s.cmd.ProcessState.SystemTime()
	return s.launchProcess(ctx)
}

// cpu is the CPU time of all its processes so far.
func (s *server) cpu() (time.Duration, error) {
	now, err := proc.CPU(s.cmd.Process.Pid)
	return s.spent + now, err
}

// stop ends the process and removes what it leaves behind.
func (s *server) stop() {
	s.end()
	s.cleanUp()
}

// end ends the process and waits for it.
func (s *server) end() {
	_ = s.cmd.Process.Signal(syscall.SIGTERM) // fails only when it has ended
	select {
	case <-s.exited:
	case <-time.After(5 * time.Second):
		_ = s.cmd.Process.Kill()
		<-s.exited
	}
}

func (s *server) cleanUp() {
	if s.log != nil {
		s.log.Close()
	}
	if s.dataDir != "" {
		os.RemoveAll(s.dataDir)
	}
}

// freeAddr is a loopback address nobody listens on.
func freeAddr() (string, error) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer ln.Close()
	return ln.Addr().String(), nil
}

// logTail is the end of a log, for a person to read.
func logTail(path string) string {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(raw)), "\n")
	return strings.Join(lines[max(0, len(lines)-8):], "\n")
}
