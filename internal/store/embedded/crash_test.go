package embedded

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"jobwire/internal/delivery"
	"jobwire/internal/events"
)

// The child of the kill test publishes into the directory that this variable
// names and writes a line for every answer.
const crashDir = "JOBWIRE_CRASH_DIR"

func crashChild() bool {
	dir := os.Getenv(crashDir)
	if dir == "" {
		return false
	}
	s, err := Open(dir, delivery.Limits{Events: 1 << 30, Bytes: 1 << 40}, Options{})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			user := fmt.Sprint("user", w%3)
			for i := 0; ; i++ {
				es := []delivery.Entry{note(user)}
				switch i % 4 {
				case 1:
					es[0] = progress(user, strconv.Itoa(w))
				case 2:
					es = append(es, note(user))
				}
				ds, err := s.Publish(context.Background(), es)
				if err != nil {
					fmt.Println("error", err)
					os.Exit(1)
				}
				for j, d := range ds {
					// One write a line: what the parent can read was answered.
					fmt.Fprintf(os.Stdout, "%s %s %s\n", user, es[j].Event.Name, d.ID)
				}
			}
		})
	}
	wg.Wait()
	return true
}

// TestKilledProcessLosesNothingThatWasAnswered kills a process that publishes,
// at random moments, and looks for every durable event that was answered.
// JOBWIRE_KILLS sets how often.
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
		lines := killOne(t, dir, 1+rand.IntN(400))
		for _, line := range lines {
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
		s, err := Open(dir, delivery.Limits{Events: 1 << 30, Bytes: 1 << 40}, Options{Logger: quiet})
		if err != nil {
			t.Fatal(err)
		}
		for user, ids := range answered {
			seen, err := logged(s, user)
			if err != nil {
				t.Fatal(err)
			}
			for _, id := range ids {
				if !seen[id] {
					t.Errorf("round %d: %s of %s was answered and is missing", round, id, user)
				}
			}
			if id := mustPost(t, s, note(user)); id.Compare(highest[user]) <= 0 {
				t.Errorf("round %d: %s after %s", round, id, highest[user])
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d kills, %d answered durable events, all there", kills, total)
}

// killOne runs the child until it has answered n times, kills it, and returns
// all its answers.
func killOne(t *testing.T, dir string, n int) (lines []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0])
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
