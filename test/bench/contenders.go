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
)

// Credentials of the bench's servers; they listen on loopback for minutes.
const (
	benchSecret = "bench-only-secret-of-more-than-32-bytes"
	benchKey    = "bench-only-key-of-more-than-24-characters"
)

// contender is one server of the comparison.
type contender struct {
	name, title, dialect string
	debug                bool // offers net/http/pprof
	command              func(*bench, launch) *exec.Cmd
}

// launch is how one server is to be started.
type launch struct {
	addr, debugAddr string
	presence        bool
	dataDir         string // empty: in memory
}

var contenders = []contender{
	{name: "jobwire", title: "jobwire", dialect: "socketio", command: jobwire},
	{name: "node", title: "Node socket.io", dialect: "socketio", command: func(b *bench, l launch) *exec.Cmd {
		cmd := exec.Command("node", "server.js")
		cmd.Dir = filepath.Join(b.dir, "node")
		cmd.Env = append(benchEnv(l), "NODE_ENV=production")
		return cmd
	}},
	{name: "centrifuge", title: "centrifuge", dialect: "centrifuge", debug: true, command: peer("centrifuge")},
	{name: "bare", title: "bare websocket", dialect: "bare", debug: true, command: peer("bare")},
}

func serverNames() []string {
	var names []string
	for _, c := range contenders {
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

// jobwire starts with its defaults, but for the limits that protect it from a
// single address or user, which here is the generator.
func jobwire(b *bench, l launch) *exec.Cmd {
	audience, data := "none", "memory"
	if l.presence {
		audience = "everyone"
	}
	if l.dataDir != "" {
		data = l.dataDir
	}
	args := []string{
		"--addr=" + l.addr, "--data-dir=" + data, "--presence-audience=" + audience,
		"--handshake-rate=0", "--max-sockets-per-user=2000", "--drain=2s",
	}
	if l.debugAddr != "" {
		args = append(args, "--debug-addr="+l.debugAddr)
	}
	cmd := exec.Command(filepath.Join(b.dir, "bin", "jobwire"), args...)
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
	cmd    *exec.Cmd
	log    *os.File
	exited chan struct{}
}

// start runs a contender until it accepts connections. Its output goes to a
// file of its own.
func (b *bench) start(ctx context.Context, c contender, l load, logName string) (*server, error) {
	s := &server{contender: c, exited: make(chan struct{})}
	s.presence = l.presence
	var err error
	if s.addr, err = freeAddr(); err != nil {
		return nil, err
	}
	if b.options.profile && (c.debug || (c.name == "jobwire" && b.jobwireDebug)) {
		if s.debugAddr, err = freeAddr(); err != nil {
			return nil, err
		}
	}
	if l.disk {
		if s.dataDir, err = os.MkdirTemp(b.dir, "data-"); err != nil {
			return nil, err
		}
	}
	if s.log, err = os.Create(filepath.Join(b.results, "logs", logName+".log")); err != nil {
		s.cleanUp()
		return nil, err
	}
	s.cmd = c.command(b, s.launch)
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		s.cleanUp()
		return nil, fmt.Errorf("start %s: %w", c.name, err)
	}
	go func() {
		_ = s.cmd.Wait() // how it ended is in its log
		close(s.exited)
	}()
	if err := s.awaitReady(ctx); err != nil {
		s.stop()
		return nil, fmt.Errorf("%s: %w\n%s", c.name, err, logTail(s.log.Name()))
	}
	return s, nil
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

// stop ends the process and waits for it.
func (s *server) stop() {
	defer s.cleanUp()
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
