//go:build linux && hostile

package hostile

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// patience bounds every wait for something that has to happen; nothing waits that long when all is well.
const patience = 30 * time.Second

// full says that the promised counts are wanted, not those that fit between two edits.
var full = os.Getenv("HOSTILE") == "full"

// size is a count of a test: a small one, or the promised one.
func size(short, promised int) int {
	if full {
		return promised
	}
	return short
}

// program is the path of the jobwire that is attacked: JOBWIRE_BIN, which should carry the race detector, or built here.
var program = os.Getenv("JOBWIRE_BIN")

func TestMain(m *testing.M) {
	// Each test has a node of its own, and most of them mostly wait.
	flag.Parse()
	if given := false; !full {
		flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
		if !given {
			flag.Set("test.parallel", "4")
		}
	}
	dir, err := os.MkdirTemp("", "jobwire-hostile-")
	if err == nil && program == "" {
		program = filepath.Join(dir, "jobwire")
		err = build(program)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.RemoveAll(dir)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		os.RemoveAll(dir)
		os.Exit(code)
	}))
}

func build(path string) error {
	if out, err := exec.Command("go", "build", "-race", "-o", path, "jobwire").CombinedOutput(); err != nil {
		return fmt.Errorf("building jobwire: %w\n%s", err, out)
	}
	return nil
}
