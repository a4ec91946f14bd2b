//go:build linux

package hostile

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// patience bounds every wait for something that has to happen; nothing waits that long when all is well.
const patience = 30 * time.Second

// full says that the promised counts are wanted, not those that fit among the other tests.
func full() bool { return os.Getenv("HOSTILE") == "full" }

// size is a count of a test: a small one, or the promised one.
func size(short, promised int) int {
	if full() {
		return promised
	}
	return short
}

// scratch is a directory for the whole run.
var scratch string

func TestMain(m *testing.M) {
	// Each test has a node of its own, and most of them mostly wait.
	flag.Parse()
	if given := false; !full() {
		flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
		if !given {
			flag.Set("test.parallel", "4")
		}
	}
	var err error
	if scratch, err = os.MkdirTemp("", "jobwire-hostile-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	_ = os.Chmod(scratch, 0o755) // a node may run as another user
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		os.RemoveAll(scratch)
		os.Exit(code)
	}))
}

// program finds the jobwire that is attacked: that of JOBWIRE_BIN, which should carry the race detector, or one built here.
//
// go test takes a result from its cache unless something has changed that a test has read. What the program is made of it
// cannot know; so that is read here, and not before a test runs.
var program = sync.OnceValues(func() (path string, err error) {
	if path = os.Getenv("JOBWIRE_BIN"); path != "" {
		_, err = os.Stat(path)
		return path, err
	}
	path = filepath.Join(scratch, "jobwire")
	if out, err := exec.Command("go", "build", "-race", "-buildvcs=false", "-o", path, "jobwire").CombinedOutput(); err != nil {
		return "", fmt.Errorf("building jobwire: %w\n%s", err, out)
	}
	const ours = "{{with .Module}}{{if .Main}}{{$.Dir}}{{end}}{{end}}"
	dirs, err := exec.Command("go", "list", "-deps", "-f", ours, "jobwire").Output()
	if err != nil {
		return "", fmt.Errorf("listing the packages of jobwire: %w", err)
	}
	for dir := range strings.Lines(string(dirs)) {
		if _, err := os.ReadDir(strings.TrimSpace(dir)); err != nil {
			return "", err
		}
	}
	return path, nil
})
