//go:build linux

package hostile

import (
	"bufio"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// mute runs a node whose standard error is a pipe of the test's, at the level that logs each request, and returns the reader
// once the node listens.
func mute(t *testing.T) (*node, *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	cmd := exec.Command(must[string](t)(program()), "--addr=127.0.0.1:0", "--log-level=debug", "--drain=2s")
	cmd.Env = append(os.Environ(), "JOBWIRE_JWT_SECRET="+jwtSecret, "JOBWIRE_API_KEYS=worker="+apiKey, "JOBWIRE_DATA_DIR=memory",
		"GORACE=exitcode=66")
	cmd.Stderr = w
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	n := &node{book: newLogbook(), exited: make(chan struct{}), process: cmd.Process, http: newHTTPClient()}
	go func() {
		n.err = cmd.Wait()
		n.state = cmd.ProcessState
		close(n.exited)
	}()
	t.Cleanup(func() {
		n.http.CloseIdleConnections()
		_ = n.process.Kill()
		<-n.exited
	})
	for lines := bufio.NewReader(r); ; {
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if m := addresses.FindStringSubmatch(line); m != nil && m[1] == "listening" {
			n.addr = m[2]
			return n, r
		}
	}
}

// A log that nobody takes neither holds up requests nor keeps the process from ending, and one that breaks does not end it.
func TestLogsThatNobodyReads(t *testing.T) {
	t.Parallel()
	for name, gone := range map[string]bool{"a reader that stands still": false, "a reader that has gone": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n, r := mute(t)
			if gone {
				r.Close()
			}
			for range 2000 { // more than a pipe holds
				if status, text, err := n.call(http.MethodPost, "/v1/events", `{"no":"event"}`); err != nil || status != http.StatusBadRequest {
					t.Fatal(status, text, err)
				}
			}
			n.terminate(t, patience)
			if n.err != nil {
				t.Errorf("ended with: %v", n.err)
			}
		})
	}
}

// SIGHUP does not end a node.
func TestHangup(t *testing.T) {
	t.Parallel()
	n := start(t)
	if err := n.process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); !strings.Contains(n.book.tail(), "SIGHUP is ignored"); pause() {
		if time.Now().After(deadline) {
			t.Fatal("nothing is logged")
		}
	}
	n.stillServes(t)
}
