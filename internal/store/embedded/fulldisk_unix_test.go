//go:build linux || darwin

package embedded

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"testing"

	"jobwire/internal/delivery"
	"jobwire/internal/events"
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
	kept := mustPost(t, s, "ann", note())
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	limit := old
	limit.Cur = 256 << 10
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		t.Fatal(err)
	}
	answered := map[string][]events.ID{"ann": {kept}}
	refused := 0
	for i := 0; refused < 10; i++ {
		user := fmt.Sprint("user", i%50)
		if id, err := post(s, user, note()); err == nil {
			answered[user] = append(answered[user], id)
		} else if !errors.Is(err, delivery.ErrStoreUnavailable) {
			t.Fatal(err)
		} else {
			refused++
		}
		if i > 1_000_000 {
			t.Fatal("the limit was never felt")
		}
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	// It may have been opened before, and fail once more for what was tried then.
	eventually(t, "the store works again", func() bool { _, err := post(s, "bob", note()); return err == nil })
	for range 100 {
		answered["ann"] = append(answered["ann"], mustPost(t, s, "ann", note()))
	}
	expectAll(t, "with room again", s, answered)
	closeStore(t, s)
	expectAll(t, "opened again", mustOpen(t, dir, Options{}), answered)
}
