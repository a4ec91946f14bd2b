package embedded

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"jobwire/internal/delivery"
	"jobwire/internal/events"
)

// The child of the kill test publishes into the directory that this variable names and writes a line for every answer.
const crashDir = "JOBWIRE_CRASH_DIR"

func crashChild() bool {
	dir := os.Getenv(crashDir)
	if dir == "" {
		return false
	}
	s, err := Open(dir, wide, Options{Logger: quiet})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	publishForEver(s, func(user, name string, id events.ID) {
		fmt.Fprintf(os.Stdout, "%s %s %s\n", user, name, id) // one write a line: what the parent can read was answered
	}, func(err error) {
		fmt.Println("error", err)
		os.Exit(1)
	})
	return true
}

// publishForEver publishes from several goroutines until the store fails.
func publishForEver(s *Store, answered func(user, name string, id events.ID), failed func(error)) {
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			user := fmt.Sprint("user", w%3)
			for i := 0; ; i++ {
				es := []delivery.Entry{note()}
				switch i % 4 {
				case 1:
					es[0] = progressOf(strconv.Itoa(w))
				case 2:
					es = append(es, note())
				}
				ds, err := s.Publish(ctx, user, es)
				if err != nil {
					failed(err)
					return
				}
				for j, d := range ds {
					answered(user, es[j].Name, d.Place)
				}
			}
		})
	}
	wg.Wait()
}

// TestKilledProcessLosesNothingThatWasAnswered kills a process that publishes, at random moments, and looks for every
// message that was answered. JOBWIRE_KILLS sets how often.
func TestKilledProcessLosesNothingThatWasAnswered(t *testing.T) {
	kills := 5
	if testing.Short() {
		kills = 2
	}
	if v := os.Getenv("JOBWIRE_KILLS"); v != "" {
		kills, _ = strconv.Atoi(v)
	}
	dir := t.TempDir()
	answered := make(map[string][]events.ID)
	highest := make(map[string]events.ID)
	total := 0
	for round := range kills {
		for _, line := range killOne(t, dir, 1+rand.IntN(400)) {
			user, rest, _ := strings.Cut(line, " ")
			name, text, _ := strings.Cut(rest, " ")
			id, err := events.ParseID(text)
			if err != nil {
				t.Fatalf("the child wrote %q", line)
			}
			if name == "note" {
				answered[user] = append(answered[user], id)
				total++
			}
			if id.Compare(highest[user]) > 0 {
				highest[user] = id
			}
		}
		s := mustOpen(t, dir, Options{})
		expectAll(t, fmt.Sprint("round ", round), s, answered)
		for user, id := range highest {
			if next := mustPost(t, s, user, note()); next.Compare(id) <= 0 {
				t.Errorf("round %d: %s after %s", round, next, id)
			}
		}
		closeStore(t, s)
	}
	t.Logf("%d kills, %d answered messages, all there", kills, total)
}

func expectAll(t *testing.T, when string, s *Store, answered map[string][]events.ID) {
	t.Helper()
	for user, ids := range answered {
		got, err := seen(s, user)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.IsSortedFunc(got, events.ID.Compare) {
			t.Errorf("%s: %s sees no order", when, user)
		}
		there := make(map[events.ID]bool)
		for _, id := range got {
			there[id] = true
		}
		for _, id := range ids {
			if !there[id] {
				t.Errorf("%s: %s of %s was answered and is missing", when, id, user)
			}
		}
	}
}

// killOne runs the child until it has answered n times, kills it, and returns all its answers.
func killOne(t *testing.T, dir string, n int) (lines []string) {
	t.Helper()
	limited, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cmd := exec.CommandContext(limited, os.Args[0])
	cmd.Env = append(os.Environ(), crashDir+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	sc := bufio.NewScanner(out)
	for sc.Scan() {
		if strings.HasPrefix(sc.Text(), "error") {
			t.Fatalf("child: %s", sc.Text())
		}
		lines = append(lines, sc.Text())
		if len(lines) == n {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = cmd.Wait() // it was killed
	if len(lines) < n {
		t.Fatalf("the child ended by itself after %d answers", len(lines))
	}
	return lines
}

// TestPowerCutLosesNothingThatWasAnswered takes at random moments what a disk would have after a power cut: what was synced,
// and some of what was not.
func TestPowerCutLosesNothingThatWasAnswered(t *testing.T) {
	cuts := 40
	if testing.Short() {
		cuts = 8
	}
	disk := vfs.NewCrashableMem()
	var mu sync.Mutex
	answered := make(map[string][]events.ID)
	highest := make(map[string]events.ID)
	s := mustOpen(t, "data", Options{fs: disk, WriteBehind: 2 * time.Millisecond})
	done := make(chan struct{})
	go func() {
		defer close(done)
		publishForEver(s, func(user, name string, id events.ID) {
			mu.Lock()
			defer mu.Unlock()
			if name == "note" {
				answered[user] = append(answered[user], id)
			}
			if id.Compare(highest[user]) > 0 {
				highest[user] = id
			}
		}, func(error) {})
	}()
	for cut := range cuts {
		time.Sleep(time.Duration(rand.IntN(10)) * time.Millisecond) // a random moment, which decides nothing
		mu.Lock()
		before, above := make(map[string][]events.ID), make(map[string]events.ID)
		for user, ids := range answered {
			before[user] = slices.Clone(ids)
			above[user] = highest[user]
		}
		mu.Unlock()
		crashed := disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: cut % 3 * 50, RNG: rand.New(rand.NewPCG(uint64(cut), 1))})
		after := mustOpen(t, "data", Options{fs: crashed})
		expectAll(t, fmt.Sprint("cut ", cut), after, before)
		for user, id := range above {
			if next := mustPost(t, after, user, note()); next.Compare(id) <= 0 {
				t.Errorf("cut %d: %s after %s", cut, next, id)
			}
		}
		closeStore(t, after)
		if t.Failed() {
			break
		}
	}
	closeStore(t, s)
	<-done
	t.Logf("%d messages were answered", len(answered["user0"])+len(answered["user1"])+len(answered["user2"]))
}

// TestPowerCutWhileOpening cuts the power before each change of a file that the opening of a new directory, of one that was
// closed and of one that was killed makes.
func TestPowerCutWhileOpening(t *testing.T) {
	for name, c := range map[string]struct{ fill, close bool }{
		"new": {}, "closed": {fill: true, close: true}, "killed": {fill: true},
	} {
		t.Run(name, func(t *testing.T) {
			disk := vfs.NewCrashableMem()
			want := make(map[string][]events.ID)
			if c.fill {
				s := mustOpen(t, "data", Options{fs: disk})
				for i := range 50 {
					user := fmt.Sprint("user", i%3)
					want[user] = append(want[user], mustPost(t, s, user, note()))
				}
				killed := disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))})
				closeStore(t, s)
				if !c.close {
					disk = killed
				}
			}
			every := 1
			if testing.Short() {
				every = 5
			}
			for cut, more := 1, true; more; cut += every {
				// Each time on the same disk, as it was.
				work := disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))})
				var mu sync.Mutex
				var crashed *vfs.MemFS
				n := 0
				hooked := errorfs.Wrap(work, errorfs.InjectorFunc(func(op errorfs.Op) error {
					if writes(op) {
						mu.Lock()
						defer mu.Unlock()
						if n++; n == cut {
							crashed = work.CrashClone(vfs.CrashCloneCfg{
								UnsyncedDataPercent: cut % 3 * 50, RNG: rand.New(rand.NewPCG(uint64(cut), 2)),
							})
						}
					}
					return nil
				}))
				closeStore(t, mustOpen(t, "data", Options{fs: hooked}))
				mu.Lock()
				after := crashed
				more = after != nil
				mu.Unlock()
				if !more {
					t.Logf("%d cuts", cut/every)
					break
				}
				s, err := Open("data", wide, Options{fs: after, Logger: quiet})
				if err != nil {
					t.Fatalf("cut %d: %v", cut, err)
				}
				expectAll(t, fmt.Sprint("cut ", cut), s, want)
				mustPost(t, s, "ann", note())
				closeStore(t, s)
			}
		})
	}
}
