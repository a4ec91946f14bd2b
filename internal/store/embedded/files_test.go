package embedded

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"jobwire/internal/delivery"
	"jobwire/internal/events"
)

func TestSecondProcessIsToldAtOnce(t *testing.T) {
	dir := t.TempDir()
	mustOpen(t, dir, Options{})
	_, err := Open(dir, delivery.Limits{}, Options{Logger: quiet})
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), dir) {
		t.Fatalf("error %v", err)
	}
}

func TestDirectoriesOfOthersAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		want  error
	}{
		"of the version before":       {map[string]string{"jobwire.db": "x"}, ErrFormat},
		"of a later format":           {map[string]string{markerName: "jobwire store, format 4\n"}, ErrFormat},
		"with a marker that is wrong": {map[string]string{markerName: "jobwire stare, format 3\n"}, ErrDamaged},
		"without a marker":            {map[string]string{"000012.sst": "x"}, ErrDamaged},
		"with a marker alone":         {map[string]string{markerName: markerText}, ErrDamaged},
		"with files of others":        {map[string]string{"lost+found": "x", ".gitkeep": ""}, nil},
		"never opened to the end":     {map[string]string{markerName: markerNew, "000012.log": "x", "MANIFEST-000001": "x"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for name, text := range c.files {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			s, err := Open(dir, delivery.Limits{}, Options{Logger: quiet})
			if !errors.Is(err, c.want) {
				t.Fatalf("error %v", err)
			}
			if errors.Is(c.want, ErrDamaged) && !strings.Contains(err.Error(), remedy) {
				t.Errorf("no remedy: %v", err)
			}
			if err == nil {
				mustPost(t, s, "ann", note())
				closeStore(t, s)
				closeStore(t, mustOpen(t, dir, Options{}))
			}
		})
	}
}

// filled makes a directory with some of everything, of which crashed leaves the log as a kill leaves it, and returns what
// each user must see.
func filled(t *testing.T, dir string, crashed bool) map[string][]events.ID {
	t.Helper()
	want := make(map[string][]events.ID)
	work := filepath.Join(t.TempDir(), "work")
	s := mustOpen(t, work, Options{WriteBehind: time.Hour})
	fill := func() {
		for i := range 400 {
			user := fmt.Sprint("user", i%20)
			e := note()
			e.Data = []byte(fmt.Sprintf(`{"n":%d,"x":"%s"}`, i, strings.Repeat("x", 100)))
			want[user] = append(want[user], mustPost(t, s, user, e), mustPost(t, s, user, progressOf(fmt.Sprint(len(want[user])))))
		}
	}
	fill()
	if err := s.current.Load().flusher.flush(); err != nil {
		t.Fatal(err)
	}
	if err := s.current.Load().db.Flush(); err != nil {
		t.Fatal(err)
	}
	fill()
	if err := s.current.Load().flusher.flush(); err != nil {
		t.Fatal(err)
	}
	if !crashed {
		closeStore(t, s)
	}
	copyDir(t, work, dir)
	return want
}

func copyDir(t *testing.T, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	_ = os.Remove(filepath.Join(to, lockName))
}

// use opens a directory and reads and writes everything in it. It returns the first error; what is read without one must be
// right.
func use(t *testing.T, dir string, want map[string][]events.ID) (err error) {
	t.Helper()
	var s *Store
	returns(t, "opening", func() { s, err = Open(dir, wide, Options{Logger: quiet}) })
	if err != nil {
		return err
	}
	returns(t, "using what is damaged", func() {
		defer closeWithin(s, 5*time.Second)
		for i := range 20 {
			user := fmt.Sprint("user", i)
			ids, e := seen(s, user)
			if e == nil && err == nil && !slices.Equal(ids, want[user]) {
				t.Errorf("%s sees %d events of %d, without a word", user, len(ids), len(want[user]))
			}
			jobs, e2 := s.Jobs(ctx, delivery.JobsQuery{UserID: user, Limit: delivery.MaxJobsLimit})
			if e2 == nil && err == nil && len(jobs.Jobs) != len(want[user])/2 {
				t.Errorf("%s has %d jobs, without a word", user, len(jobs.Jobs))
			}
			_, e3 := post(s, user, note())
			err = errors.Join(err, e, e2, e3)
		}
		_, e := s.Sweep(ctx)
		err = errors.Join(err, e)
	})
	return err
}

// TestFlippedByteIsFound flips bytes of every kind of file at rest, of a store that was closed and of one that was killed.
func TestFlippedByteIsFound(t *testing.T) {
	for name, crashed := range map[string]bool{"closed": false, "killed": true} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			want := filled(t, filepath.Join(dir, "whole"), crashed)
			files, err := os.ReadDir(filepath.Join(dir, "whole"))
			if err != nil {
				t.Fatal(err)
			}
			rounds := 25
			if testing.Short() {
				rounds = 4
			}
			for _, f := range files {
				found := 0
				for round := range rounds {
					if f.IsDir() {
						break
					}
					damaged := filepath.Join(dir, fmt.Sprint(f.Name(), round))
					copyDir(t, filepath.Join(dir, "whole"), damaged)
					path := filepath.Join(damaged, f.Name())
					b, err := os.ReadFile(path)
					if err != nil || len(b) == 0 {
						break
					}
					end := len(b)
					if strings.HasSuffix(f.Name(), ".log") {
						// The end of a log was perhaps never written, and its last writes have none after them that would
						// tell that they were.
						end = len(strings.TrimRight(string(b), "\x00")) - 2*32<<10
						if end <= 0 {
							break
						}
					}
					at := rand.IntN(end)
					b[at] ^= 1 << rand.IntN(8)
					if err := os.WriteFile(path, b, 0o600); err != nil {
						t.Fatal(err)
					}
					err = use(t, damaged, want)
					if err != nil {
						found++
					}
					if t.Failed() {
						t.Fatalf("byte %d of the %d of %s", at, len(b), f.Name())
					}
					_ = os.RemoveAll(damaged)
				}
				t.Logf("%s: %d of %d flips are found, and the others do no harm", f.Name(), found, rounds)
			}
		})
	}
}

func TestTruncatedOrMissingFileIsAnError(t *testing.T) {
	dir := t.TempDir()
	want := filled(t, filepath.Join(dir, "whole"), true)
	if err := use(t, copied(t, dir, "as it is"), want); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(filepath.Join(dir, "whole"))
	if err != nil {
		t.Fatal(err)
	}
	lastLog := ""
	for _, f := range files { // in the order of their names
		if strings.HasSuffix(f.Name(), ".log") {
			lastLog = f.Name()
		}
	}
	for _, f := range files {
		info, err := f.Info()
		if err != nil {
			t.Fatal(err)
		}
		harmless := strings.HasPrefix(f.Name(), "OPTIONS-") || f.Name() == notesName ||
			strings.HasSuffix(f.Name(), ".log") && f.Name() != lastLog // whose tables are written
		for _, part := range []float64{-1, 0, 0.5} {
			name := fmt.Sprint(f.Name(), part)
			damaged := copied(t, dir, name)
			path := filepath.Join(damaged, f.Name())
			switch {
			case part < 0:
				err = os.Remove(path)
			case info.Size() == 0:
				continue
			case strings.HasSuffix(path, ".log") && part > 0:
				continue // as a crash may leave it
			default:
				err = os.Truncate(path, int64(float64(info.Size())*part))
			}
			if err != nil {
				t.Fatal(err)
			}
			if strings.HasSuffix(path, ".log") && part == 0 {
				continue // likewise
			}
			err := use(t, damaged, want)
			if t.Failed() {
				t.Fatal(name)
			}
			if !harmless && !errors.Is(err, ErrDamaged) {
				t.Errorf("%s: %v", name, err)
			}
			_ = os.RemoveAll(damaged)
		}
	}
}

func copied(t *testing.T, dir, name string) string {
	t.Helper()
	to := filepath.Join(dir, name)
	copyDir(t, filepath.Join(dir, "whole"), to)
	return to
}

// What is done to the files of a store that runs ends in errors, never in wrong data; when it is undone, the store goes on.
func TestFilesAreTakenAwayWhileRunning(t *testing.T) {
	move := func(from, to string) error { return os.Rename(from, to) }
	for name, c := range map[string]struct {
		take, undo func(dir string) error
	}{
		"the directory": {
			func(dir string) error { return move(dir, dir+".away") },
			func(dir string) error { return errors.Join(os.RemoveAll(dir), move(dir+".away", dir)) },
		},
		"the log": {
			func(dir string) error {
				return eachFile(dir, ".log", func(p string) error { return move(p, p+".away") })
			},
			func(dir string) error {
				return eachFile(dir, ".away", func(p string) error { return move(p, strings.TrimSuffix(p, ".away")) })
			},
		},
		"the tables": {
			func(dir string) error {
				return eachFile(dir, ".sst", func(p string) error { return move(p, p+".away") })
			},
			func(dir string) error {
				return eachFile(dir, ".away", func(p string) error { return move(p, strings.TrimSuffix(p, ".away")) })
			},
		},
		"everything": {func(dir string) error { return eachFile(dir, "", os.Remove) }, nil},
		"the log for good": {
			func(dir string) error { return eachFile(dir, ".log", os.Remove) }, nil,
		},
		"the log, and another is there": {
			func(dir string) error {
				return eachFile(dir, ".log", func(p string) error {
					b, err := os.ReadFile(p)
					return errors.Join(err, os.WriteFile(p+".new", b, 0o600), os.Rename(p+".new", p))
				})
			}, nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			s := mustOpen(t, dir, Options{})
			var want []events.ID
			for range 50 {
				want = append(want, mustPost(t, s, "ann", note()))
			}
			if err := s.current.Load().db.Flush(); err != nil {
				t.Fatal(err)
			}
			want = append(want, mustPost(t, s, "ann", note()))
			if err := c.take(dir); err != nil {
				t.Fatal(err)
			}
			eventually(t, "it is noticed", func() bool { return errors.Is(s.Ready(), delivery.ErrStoreUnavailable) })
			if _, err := post(s, "bob", note()); !errors.Is(err, delivery.ErrStoreUnavailable) {
				t.Errorf("error %v", err)
			}
			if c.undo == nil {
				eventually(t, "it was tried to open", func() bool { return s.health.attempts.Load() > 20 })
				if err := s.Ready(); err == nil {
					t.Error("the store goes on without its data")
				}
				returns(t, "close", func() { _ = closeWithin(s, 5*time.Second) })
				return
			}
			if err := c.undo(dir); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the store works again", func() bool { return s.Ready() == nil })
			want = append(want, mustPost(t, s, "ann", note()))
			got, err := seen(s, "ann")
			if err != nil || len(got) < len(want) {
				t.Fatalf("%d of %d events, %v", len(got), len(want), err)
			}
			for _, id := range want {
				if !slices.Contains(got, id) {
					t.Errorf("%s is gone", id)
				}
			}
		})
	}
}

func eachFile(dir, suffix string, do func(path string) error) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), suffix) && e.Name() != lockName {
			err = errors.Join(err, do(filepath.Join(dir, e.Name())))
		}
	}
	return err
}

// TestDamageWhileRunningIsFound overwrites tables of a store that runs.
func TestDamageWhileRunningIsFound(t *testing.T) {
	for name, damage := range map[string]func(f *os.File, size int64) error{
		"flipped": func(f *os.File, size int64) error {
			b := make([]byte, size)
			if _, err := f.ReadAt(b, 0); err != nil && err != io.EOF {
				return err
			}
			for i := range b {
				b[i] ^= 0x55
			}
			_, err := f.WriteAt(b, 0)
			return err
		},
		"cut off": func(f *os.File, size int64) error { return f.Truncate(size / 4) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s, err := Open(dir, wide, Options{Logger: quiet, cacheBytes: 1, checkEvery: 5 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			defer closeWithin(s, 5*time.Second)
			big := note()
			big.Data = []byte(`"` + strings.Repeat("x", 10_000) + `"`)
			want := make(map[string][]events.ID)
			for i := range 100 {
				user := fmt.Sprint("user", i%10)
				want[user] = append(want[user], mustPost(t, s, user, big))
			}
			if err := s.current.Load().db.Flush(); err != nil {
				t.Fatal(err)
			}
			if err := eachFile(dir, ".sst", func(p string) error {
				f, err := os.OpenFile(p, os.O_RDWR, 0)
				if err != nil {
					return err
				}
				info, err := f.Stat()
				return errors.Join(err, damage(f, info.Size()), f.Close())
			}); err != nil {
				t.Fatal(err)
			}
			failed := false
			for user, ids := range want {
				got, err := seen(s, user)
				if err != nil {
					failed = true
				} else if !slices.Equal(got, ids) {
					t.Errorf("%s sees %d of %d events, without a word", user, len(got), len(ids))
				}
			}
			if !failed {
				t.Fatal("nothing was noticed")
			}
			eventually(t, "damage is looked for", func() bool { return s.health.attempts.Load() > 20 })
			if err := s.Ready(); !errors.Is(err, ErrDamaged) {
				t.Errorf("the store goes on: %v", err)
			}
		})
	}
}
