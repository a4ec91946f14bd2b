//go:build linux || darwin

package embedded

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"testing"

	"jobwire/internal/delivery"
)

const fullDir = "JOBWIRE_FULL_DIR"

// TestFullDiskRefusesAndRecovers lets a child process run into a real limit
// of the operating system on the size of a file.
func TestFullDiskRefusesAndRecovers(t *testing.T) {
	if dir := os.Getenv(fullDir); dir != "" {
		fillUp(t, dir)
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestFullDiskRefusesAndRecovers$")
	cmd.Env = append(os.Environ(), fullDir+"="+t.TempDir())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

func fillUp(t *testing.T, dir string) {
	signal.Ignore(syscall.SIGXFSZ)
	s := mustOpen(t, dir, Options{})
	kept := mustPost(t, s, note("ann"))
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	limit := old
	limit.Cur = 256 << 10
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		t.Fatal(err)
	}
	answered := map[string]int{"ann": 1}
	refused := 0
	for i := 0; refused < 10; i++ {
		user := fmt.Sprint("user", i%50)
		if _, err := post(s, note(user)); err != nil {
			refused++
		} else {
			answered[user]++
		}
		if i > 1_000_000 {
			t.Fatal("the limit was never felt")
		}
	}
	if seen, err := logged(s, "ann"); err != nil || !seen[kept] {
		t.Fatalf("reading on a full disk: %v, %v", seen, err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		mustPost(t, s, note("ann"))
		answered["ann"]++
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := Open(dir, delivery.Limits{}, Options{Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	for user, n := range answered {
		if seen, err := logged(again, user); err != nil || len(seen) < n {
			t.Errorf("%s: %d of %d answered events, %v", user, len(seen), n, err)
		}
	}
}
