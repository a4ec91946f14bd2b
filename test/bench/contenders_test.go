package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestMain lets the test binary be a server of its own, for tests that start
// and end one.
func TestMain(m *testing.M) {
	if addr := os.Getenv("BENCH_TEST_SERVER"); addr != "" {
		for began := time.Now(); time.Since(began) < 50*time.Millisecond; { // CPU time that can be found again
		}
		_ = http.ListenAndServe(addr, http.NotFoundHandler())
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func testBench(t *testing.T) *bench {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "results", "logs"), 0o755); err != nil {
		t.Fatal(err)
	}
	return &bench{options: options{dir: dir}, results: filepath.Join(dir, "results"), progress: io.Discard, aging: make(map[string]aging)}
}

func testServer(_ *bench, l launch) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(plainEnv(), "BENCH_TEST_SERVER="+l.addr)
	return cmd
}

func TestRestartKeepsAddressAndData(t *testing.T) {
	s, err := testBench(t).start(t.Context(), contender{name: "test", jobwire: true, command: testServer}, load{}, "restart")
	if err != nil {
		t.Fatal(err)
	}
	defer s.stop()
	kept := filepath.Join(s.dataDir, "kept")
	if err := os.WriteFile(kept, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	pid, addr := s.cmd.Process.Pid, s.addr
	before, err := s.cpu()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	after, err := s.cpu()
	if err != nil {
		t.Fatal(err)
	}
	if s.cmd.Process.Pid == pid || s.addr != addr {
		t.Errorf("process %d at %s became %d at %s", pid, addr, s.cmd.Process.Pid, s.addr)
	}
	if after < before+20*time.Millisecond {
		t.Errorf("CPU time was %v before the restart and %v after", before, after)
	}
	if _, err := os.Stat(kept); err != nil {
		t.Errorf("the data: %v", err)
	}
	conn, err := net.Dial("tcp4", addr)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	s.stop()
	if _, err := os.Stat(s.dataDir); !os.IsNotExist(err) {
		t.Errorf("the data is left over: %v", err)
	}
}

func TestRestartFailsWhenItDoesNotListen(t *testing.T) {
	s, err := testBench(t).start(t.Context(), contender{name: "test", command: testServer}, load{}, "restart")
	if err != nil {
		t.Fatal(err)
	}
	defer s.stop()
	s.command = func(*bench, launch) *exec.Cmd { return exec.Command("false") }
	if err := s.restart(t.Context()); err == nil || !strings.Contains(err.Error(), "ended before it listened") {
		t.Errorf("a server that does not come back: %v", err)
	}
}

func TestAgedServersAreWaitedFor(t *testing.T) {
	b := testBench(t)
	c, l := contender{name: "test", jobwire: true, command: testServer}, load{name: "later", aged: true}
	started := func(name string) *server {
		s, err := b.start(t.Context(), c, l, name)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s, ripe := started("ripens"), time.Now().Add(200*time.Millisecond)
	b.aging["ripens"] = aging{server: s, ripe: ripe}
	got, err := b.take(t.Context(), c, l, "ripens")
	if got != s || err != nil || time.Now().Before(ripe) {
		t.Errorf("%p, %v, %v early; want %p", got, err, time.Until(ripe), s)
	}
	s.stop()

	b.aging["failed"] = aging{err: os.ErrClosed}
	if _, err := b.take(t.Context(), c, l, "failed"); err != os.ErrClosed {
		t.Errorf("a server that could not be aged: %v", err)
	}

	interrupted, cancel := context.WithCancel(t.Context())
	cancel()
	taken, left := started("taken"), started("left")
	b.aging["taken"] = aging{server: taken, ripe: time.Now().Add(time.Hour)}
	b.aging["left"] = aging{server: left, ripe: time.Now().Add(time.Hour)}
	if _, err := b.take(interrupted, c, l, "taken"); err == nil {
		t.Error("an interrupt is not noticed")
	}
	b.stopAging()
	for _, s := range []*server{taken, left} {
		select {
		case <-s.exited:
		default:
			t.Errorf("%s goes on", s.log.Name())
		}
	}
}

func TestSetups(t *testing.T) {
	t.Setenv("JOBWIRE_PRESENCE_AUDIENCE", "tenant")
	for name, c := range map[string]struct {
		launch   launch
		with     []string
		without  []string
		describe string
	}{
		"as shipped": {launch{dataDir: "/data"}, []string{"--data-dir=/data"}, []string{"--presence-audience"}, "disk, presence everyone"},
		"silent":     {launch{dataDir: "/data", setup: silentSetup}, []string{"--data-dir=/data", "--presence-audience=none"}, nil, "disk, presence none"},
		"tuned":      {launch{setup: tunedSetup}, []string{"--data-dir=memory", "--presence-audience=none"}, nil, "memory, presence none"},
		"with flags": {launch{dataDir: "/data", flags: "--ping-interval=4s"}, []string{"--ping-interval=4s"}, nil, "disk, presence everyone"},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := jobwire("/bin/jobwire", c.launch)
			line := strings.Join(cmd.Args, " ")
			for _, flag := range c.with {
				if !slices.Contains(cmd.Args, flag) {
					t.Errorf("no %s in %s", flag, line)
				}
			}
			for _, flag := range c.without {
				if strings.Contains(line, flag) {
					t.Errorf("%s in %s", flag, line)
				}
			}
			if got := c.launch.setup.String(); got != c.describe {
				t.Errorf("it says %q", got)
			}
			if slices.ContainsFunc(cmd.Env, func(kv string) bool { return strings.HasPrefix(kv, "JOBWIRE_PRESENCE") }) {
				t.Error("the caller's environment tunes it")
			}
		})
	}
}
