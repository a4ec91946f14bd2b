//go:build linux

package hostile

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"jobwire/internal/auth"
)

// One set of secrets for all nodes, so that a token outlives a restart.
var (
	jwtSecret = rand.Text() + rand.Text()
	apiKey    = rand.Text() + rand.Text()
)

// node is one running jobwire.
type node struct {
	addr  string // host:port
	debug string // likewise, of the profiles
	book  *logbook
	http  *http.Client // for polling; each of its connections comes from another loopback address

	failing bool // its disk fails: it may complain, and end with another code than 0

	process *os.Process
	exited  chan struct{} // closed when the process has ended; state and err are set then
	state   *os.ProcessState
	err     error
}

// start runs jobwire with the given flags on a free loopback port, and waits until it listens. Without others it keeps its data
// in memory. When the test ends, so does the node: by SIGTERM, with exit code 0, after a life without a race or a panic, or the
// test fails.
func start(t testing.TB, flags ...string) *node {
	t.Helper()
	return startAs(t, os.Getuid(), flags...)
}

// startAs is start for another user, if root starts it.
func startAs(t testing.TB, uid int, flags ...string) *node {
	t.Helper()
	n := launchAs(t, uid, flags...)
	for _, addr := range []struct {
		of  *string
		log chan string
	}{{&n.addr, n.book.listening}, {&n.debug, n.book.profiles}} {
		select {
		case *addr.of = <-addr.log:
		case <-n.exited:
			t.Fatalf("jobwire did not start: %v", n.err)
		case <-time.After(patience):
			t.Fatal("jobwire does not listen")
		}
	}
	return n
}

// ownAddress is a flag for a node that dies and comes back to its port: on 127.0.0.1 somebody else could have it by then.
func ownAddress() string {
	i := ownAddresses.Add(1)
	return fmt.Sprintf("--addr=127.8.%d.%d:0", i/250, 1+i%250)
}

var ownAddresses atomic.Uint32

// launch is start without the wait.
func launch(t testing.TB, flags ...string) *node {
	t.Helper()
	return launchAs(t, os.Getuid(), flags...)
}

func launchAs(t testing.TB, uid int, flags ...string) *node {
	t.Helper()
	flags = append([]string{"--addr=127.0.0.1:0", "--debug-addr=127.0.0.1:0"}, flags...)
	cmd := exec.Command(must[string](t)(program()), lastOnes(flags)...)
	ours := func(variable string) bool {
		return strings.HasPrefix(variable, "JOBWIRE_") || strings.HasPrefix(variable, "GO")
	}
	cmd.Env = append(slices.DeleteFunc(os.Environ(), ours),
		"JOBWIRE_JWT_SECRET="+jwtSecret, "JOBWIRE_API_KEYS=worker="+apiKey, "JOBWIRE_DATA_DIR=memory",
		"GORACE=exitcode=66 halt_on_error=0")
	n := &node{book: newLogbook(), exited: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = n.book, n.book
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if os.Getuid() == 0 && uid != 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}
	}
	started := make(chan error, 1)
	go func() {
		// A child with Pdeathsig dies with the thread that started it.
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			n.err = cmd.Wait()
			n.state = cmd.ProcessState
		}
		close(n.exited)
	}()
	if err := <-started; err != nil {
		t.Fatalf("start jobwire: %v", err)
	}
	n.process = cmd.Process
	n.http = newHTTPClient()
	t.Cleanup(func() {
		n.http.CloseIdleConnections()
		n.stop(t)
		if t.Failed() {
			t.Logf("the log of the node ends with:\n%s", n.book.tail())
		}
	})
	return n
}

// lastOnes drops flags that a later one of the same name replaces: jobwire takes a repeated flag for a mistake.
func lastOnes(flags []string) []string {
	var kept []string
	for i, flag := range flags {
		name, _, _ := strings.Cut(flag, "=")
		replaced := false
		for _, later := range flags[i+1:] {
			replaced = replaced || strings.HasPrefix(later, name+"=")
		}
		if !replaced {
			kept = append(kept, flag)
		}
	}
	return kept
}

// terminate asks the process to end and waits for it, at most for limit.
func (n *node) terminate(t testing.TB, limit time.Duration) {
	t.Helper()
	began := time.Now()
	if err := n.process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("SIGTERM: %v", err)
	}
	select {
	case <-n.exited:
		if took := time.Since(began); took > limit/2 {
			t.Logf("it took %s to end, of %s", took.Round(time.Millisecond), limit)
		}
	case <-time.After(limit):
		t.Errorf("still running %s after SIGTERM; its goroutines:\n%s", limit, n.goroutines())
	}
}

// goroutines makes a process that does not end dump its goroutines, and end.
func (n *node) goroutines() string {
	_ = n.process.Signal(syscall.SIGQUIT)
	<-n.exited
	return n.book.tail()
}

// stop ends the node as an operator does, unless it was killed, and judges its whole life.
func (n *node) stop(t testing.TB) {
	t.Helper()
	select {
	case <-n.exited:
	default:
		n.terminate(t, patience)
	}
	if status, ok := n.state.Sys().(syscall.WaitStatus); ok && status.Signaled() && status.Signal() == syscall.SIGKILL {
		// the test did that
	} else if n.err != nil && !n.failing {
		t.Errorf("jobwire ended with: %v", n.err)
	}
	if alarms := n.book.alarms(); alarms != "" && !(n.failing && !strings.Contains(alarms, "DATA RACE") && !strings.Contains(alarms, "panic: ")) {
		t.Errorf("jobwire complained:\n%s", alarms)
	}
}

// kill ends the process at once.
func (n *node) kill(t testing.TB) {
	t.Helper()
	if err := n.process.Kill(); err != nil {
		t.Errorf("kill: %v", err)
	}
	<-n.exited
}

// alive fails the test when the process has ended.
func (n *node) alive(t testing.TB) {
	t.Helper()
	select {
	case <-n.exited:
		t.Fatalf("jobwire has ended: %v\n%s", n.err, n.book.tail())
	default:
	}
}

// descriptors counts what the process has open.
func (n *node) descriptors(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", n.process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// verifier says which tokens a node accepts.
func verifier() auth.VerifierConfig {
	return auth.VerifierConfig{Secrets: [][]byte{[]byte(jwtSecret)}}
}

// token is a good one of that user.
func token(user string) string {
	text, err := auth.Mint(verifier(), user, "", time.Hour, nil)
	if err != nil {
		panic(err)
	}
	return text
}

// logbook takes in what a node writes: it keeps the end, and everything that must never be there.
type logbook struct {
	listening, profiles chan string // addresses

	mu    sync.Mutex
	rest  []byte
	lines []string // the last ones
	bad   []string
	more  int // lines that still belong to the last alarm
}

func newLogbook() *logbook {
	return &logbook{listening: make(chan string, 1), profiles: make(chan string, 1)}
}

var addresses = regexp.MustCompile(`msg=(listening|"serving profiles") addr=(\S+)`)

// Write implements io.Writer.
func (b *logbook) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rest = append(b.rest, p...)
	for {
		line, rest, whole := bytes.Cut(b.rest, []byte{'\n'})
		if !whole {
			return len(p), nil
		}
		b.line(string(line))
		b.rest = rest
	}
}

func (b *logbook) line(line string) {
	const kept, context = 400, 60
	if b.lines = append(b.lines, line); len(b.lines) > 2*kept {
		b.lines = append([]string(nil), b.lines[kept:]...)
	}
	if m := addresses.FindStringSubmatch(line); m != nil {
		to := b.listening
		if m[1] != "listening" {
			to = b.profiles
		}
		select {
		case to <- m[2]:
		default:
		}
	}
	if strings.Contains(line, "DATA RACE") || strings.Contains(line, "panic") || strings.Contains(line, "level=ERROR") {
		b.more = context
	}
	if b.more > 0 && len(b.bad) < 10*context {
		b.more--
		b.bad = append(b.bad, line)
	}
}

func (b *logbook) tail() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Join(b.lines, "\n")
}

func (b *logbook) alarms() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Join(b.bad, "\n")
}

// sources counts connections, so that each of them can come from another address.
var sources atomic.Uint32

// source is the next of many loopback addresses. The first few are left to tests that want an address of their own.
func source() net.IP {
	i := sources.Add(1) % (200 * 250)
	return net.IPv4(127, 7, byte(10+i/250), byte(1+i%250))
}

// dial opens a TCP connection to the node from an address; nil stands for any.
func (n *node) dial(from net.IP) (net.Conn, error) {
	if from == nil {
		from = source()
	}
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: from}, Timeout: patience}
	return dialer.Dial("tcp", n.addr)
}

// dialNarrow opens a connection that takes in next to nothing before it is read. A receive buffer that is made smaller later
// would take back a window that was promised, and the client's own kernel would stall it.
func (n *node) dialNarrow() (*wire, error) {
	dialer := net.Dialer{
		LocalAddr: &net.TCPAddr{IP: source()}, Timeout: patience,
		Control: func(_, _ string, raw syscall.RawConn) error {
			var failed error
			err := raw.Control(func(fd uintptr) {
				failed = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4<<10)
			})
			return errors.Join(err, failed)
		},
	}
	nc, err := dialer.Dial("tcp", n.addr)
	if err != nil {
		return nil, err
	}
	return newWire(nc), nil
}
