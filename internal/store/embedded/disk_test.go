package embedded

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"jobwire/internal/delivery"
	"jobwire/internal/events"
)

func TestNothingIsAnsweredBeforeItIsOnTheDisk(t *testing.T) {
	var f faults
	s := mustOpen(t, "data", Options{fs: f.over(vfs.NewMem())})
	feed := newHearer()
	s.Subscribe(feed)
	release := f.block(t, isSync)
	answers := make(chan error, 8)
	see := func(user string) {
		ids, err := seen(s, user)
		if err == nil && len(ids) != 1 {
			err = fmt.Errorf("%s has %d events", user, len(ids))
		}
		answers <- err
	}
	go func() { _, err := post(s, "ann", note()); answers <- err }()
	eventually(t, "a write is under way", f.holding)
	go func() { _, err := post(s, "bob", note()); answers <- err }() // gathers behind it
	in := s.current.Load()
	eventually(t, "another one is lined up", func() bool {
		in.commits.mu.Lock()
		defer in.commits.mu.Unlock()
		return len(in.commits.queue) > 0
	})
	go see("ann")
	go see("bob")
	go func() { _, err := s.Jobs(ctx, delivery.JobsQuery{UserID: "ann", Limit: 1}); answers <- err }()
	if place, err := s.Follow(ctx, "ann"); err != nil || !place.IsZero() {
		t.Errorf("the place %s was given before its event, %v", place, err)
	}
	select {
	case err := <-answers:
		t.Fatalf("answered while the write was under way: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	if told := append(feed.places("ann"), feed.places("bob")...); len(told) > 0 {
		t.Fatalf("told before it is on the disk: %v", told)
	}
	release()
	for range 5 {
		if err := <-answers; err != nil {
			t.Error(err)
		}
	}
}

func TestProgressDoesNotWaitForTheDisk(t *testing.T) {
	var f faults
	s := mustOpen(t, "data", Options{fs: f.over(vfs.NewMem()), WriteBehind: time.Hour})
	mustPost(t, s, "ann", note()) // and with it a fresh ceiling
	mustPost(t, s, "bob", progressOf("1"))
	release := f.block(t, isSync)
	held := make(chan error, 1)
	go func() { _, err := post(s, "ann", note()); held <- err }()
	eventually(t, "a write is under way", f.holding)
	returns(t, "progress", func() { mustPost(t, s, "bob", progressOf("1")) })
	returns(t, "a new job", func() { mustPost(t, s, "bob", progressOf("2")) })
	release()
	if err := <-held; err != nil {
		t.Fatal(err)
	}
}

// What must survive is on the disk when its call returns, though it is progress.
func TestProgressThatMustSurviveWaitsForTheDisk(t *testing.T) {
	with := func(job string, change func(*events.Event)) delivery.Entry {
		e := progressOf(job)
		change(&e.Event)
		return e
	}
	for name, c := range map[string]struct {
		entry delivery.Entry
		waits bool
	}{
		"of the current attempt": {with("1", func(e *events.Event) { e.Attempt, e.HasAttempt = 1, true }), false},
		"of a higher attempt":    {with("1", func(e *events.Event) { e.Attempt, e.HasAttempt = 2, true }), true},
		"that sets a watch":      {with("1", func(e *events.Event) { e.StaleAfter = time.Minute }), true},
		"that renews a watch":    {with("watched", func(e *events.Event) { e.StaleAfter = time.Minute }), false},
		"that reopens its job":   {with("stalled", func(*events.Event) {}), true},
	} {
		t.Run(name, func(t *testing.T) {
			now := time.Now()
			s := mustOpen(t, "data", Options{fs: vfs.NewMem(), WriteBehind: time.Hour, Now: func() time.Time { return now }})
			mustPost(t, s, "ann", with("1", func(e *events.Event) { e.Attempt, e.HasAttempt = 1, true }))
			mustPost(t, s, "ann", with("stalled", func(e *events.Event) { e.StaleAfter = time.Second }))
			now = now.Add(2 * time.Second)
			if n, err := s.Stall(ctx, 1); n != 1 || err != nil {
				t.Fatal(n, err)
			}
			mustPost(t, s, "ann", with("watched", func(e *events.Event) { e.StaleAfter = time.Minute }))
			before := s.Stats().Syncs
			mustPost(t, s, "ann", c.entry)
			if waited := s.Stats().Syncs > before; waited != c.waits {
				t.Errorf("waited for the disk: %v, want %v", waited, c.waits)
			}
		})
	}
}

func TestWriteBehindReachesTheDisk(t *testing.T) {
	disk := vfs.NewCrashableMem()
	s := mustOpen(t, "data", Options{fs: disk, WriteBehind: time.Millisecond})
	one := mustPost(t, s, "ann", note())
	at := mustPost(t, s, "ann", progressOf("1"))
	if err := s.Confirm(ctx, []delivery.Cursor{{UserID: "ann", Confirmed: one}}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all is written", func() bool { return s.Stats().Unwritten == 0 })
	in := s.current.Load()
	in.flusher.flushing.Lock() // what was taken from the list is on the disk too
	crashed := disk.CrashClone(vfs.CrashCloneCfg{})
	in.flusher.flushing.Unlock()
	after := mustOpen(t, "data", Options{fs: crashed})
	expectSeen(t, after, "ann", one, at)
	if confirmed, _, err := after.Cursor(ctx, "ann"); err != nil || confirmed != one {
		t.Errorf("cursor %s, %v", confirmed, err)
	}
}

func TestCloseWritesWhatIsLeft(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir, Options{WriteBehind: time.Hour})
	one := mustPost(t, s, "ann", note())
	at := mustPost(t, s, "ann", progressOf("1"))
	closeStore(t, s)
	if _, err := post(s, "ann", note()); !errors.Is(err, delivery.ErrClosed) {
		t.Fatalf("a closed store: %v", err)
	}
	expectSeen(t, mustOpen(t, dir, Options{}), "ann", one, at)
}

// Every way in which writing can fail ends in errors, nothing wrong is told or kept, and the store goes on when it can.
func TestFailingDiskRefusesAndRecovers(t *testing.T) {
	for name, broken := range map[string]func(op errorfs.Op) bool{
		"every write":   writes,
		"every sync":    isSync,
		"the log":       func(op errorfs.Op) bool { return writes(op) && strings.HasSuffix(op.Path, ".log") },
		"the manifest":  func(op errorfs.Op) bool { return writes(op) && strings.Contains(op.Path, "MANIFEST") },
		"the tables":    func(op errorfs.Op) bool { return writes(op) && strings.HasSuffix(op.Path, ".sst") },
		"new files":     func(op errorfs.Op) bool { return op.Kind == errorfs.OpCreate || op.Kind == errorfs.OpReuseForWrite },
		"the directory": func(op errorfs.Op) bool { return op.Kind == errorfs.OpList },
	} {
		t.Run(name, func(t *testing.T) {
			var f faults
			disk := vfs.NewMem()
			var logged bytes.Buffer
			s := mustOpen(t, "data", Options{fs: f.over(disk), Logger: slog.New(slog.NewTextHandler(&logged, nil))})
			feed := newHearer()
			s.Subscribe(feed)
			first := mustPost(t, s, "ann", note())
			answered := map[string][]events.ID{"ann": {first}}
			f.set(func(op errorfs.Op) error {
				if broken(op) {
					return errDisk
				}
				return nil
			})
			big := note()
			big.Data = []byte(`"` + strings.Repeat("x", 60_000) + `"`) // soon fills a memtable
			eventually(t, "the failure is felt", func() bool {
				id, err := post(s, "bob", big)
				if err == nil {
					answered["bob"] = append(answered["bob"], id)
				} else if !errors.Is(err, delivery.ErrStoreUnavailable) {
					t.Fatalf("error %v", err)
				}
				return err != nil
			})
			returns(t, "a call to a failed store", func() {
				for _, call := range []func() error{
					s.Ready,
					func() error { _, err := post(s, "ann", progressOf("1")); return err },
					func() error { _, err := seen(s, "ann"); return err },
					func() error { _, err := s.Follow(ctx, "ann"); return err },
					func() error { _, err := s.Sweep(ctx); return err },
					func() error { _, err := s.Stall(ctx, 1); return err },
					func() error { return s.Confirm(ctx, []delivery.Cursor{{UserID: "ann", Confirmed: first}}) },
				} {
					if err := call(); s.Stats().Failing && !errors.Is(err, delivery.ErrStoreUnavailable) {
						t.Errorf("error %v", err)
					}
				}
			})
			f.set(nil)
			// It may have been opened meanwhile, and fail once more for what was tried before.
			eventually(t, "the store works again", func() bool {
				second, err := post(s, "ann", note())
				if err == nil {
					answered["ann"] = append(answered["ann"], second)
				}
				return err == nil
			})
			for user, want := range answered {
				got, err := seen(s, user)
				if err != nil {
					t.Fatal(err)
				}
				there := make(map[events.ID]bool)
				for _, id := range got {
					there[id] = true
				}
				for _, id := range want {
					if !there[id] {
						t.Errorf("%s of %s was answered and is gone", id, user)
					}
				}
			}
			if st := s.Stats(); st.Failures == 0 || st.Failing {
				t.Errorf("stats %+v", st)
			}
			for _, bad := range feed.bad {
				t.Error(bad)
			}
			returns(t, "close", func() { _ = closeWithin(s, 5*time.Second) })
			if n := strings.Count(logged.String(), "level=ERROR"); n == 0 || n > int(s.Stats().Failures) || !strings.Contains(logged.String(), "remedy=") {
				t.Errorf("%d failures are logged as\n%s", s.Stats().Failures, logged.String())
			}
		})
	}
}

// Opening flushes the log that a crash has left, removes it, and only then makes the next one.
func TestOpeningEndsBetweenTwoLogs(t *testing.T) {
	var f faults
	mem := vfs.NewMem()
	s := mustOpen(t, "data", Options{fs: f.over(mem)})
	want := mustPost(t, s, "ann", note())
	f.set(func(op errorfs.Op) error {
		if writes(op) {
			return errDisk
		}
		return nil
	})
	_ = closeWithin(s, 5*time.Second)
	isLog := func(name string) bool { return strings.HasSuffix(name, ".log") }
	logs := func() bool {
		names, err := mem.List("data")
		return err != nil || slices.ContainsFunc(names, isLog)
	}
	if !logs() {
		t.Fatal("there is no log")
	}
	f.set(func(op errorfs.Op) error {
		if op.Kind != errorfs.OpCreate || !isLog(op.Path) {
			return nil
		}
		for deadline := time.Now().Add(time.Minute); logs() && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond)
		}
		return errDisk
	})
	if _, err := Open("data", wide, Options{fs: f.over(mem), Logger: quiet}); err == nil || logs() {
		t.Fatalf("error %v, logs %v", err, logs())
	}
	f.set(nil)
	s = mustOpen(t, "data", Options{fs: mem})
	expectSeen(t, s, "ann", want)
}

// An attempt to open the directory again that fails half way has changed it: that is no damage.
func TestFailedRecoveryDoesNotStopTheNext(t *testing.T) {
	for allowed, opened := 0, false; !opened; allowed++ {
		var f faults
		s := mustOpen(t, "data", Options{fs: f.over(vfs.NewMem())})
		want := mustPost(t, s, "ann", note())
		f.set(func(op errorfs.Op) error {
			if writes(op) {
				return errDisk
			}
			return nil
		})
		if _, err := post(s, "ann", note()); !errors.Is(err, delivery.ErrStoreUnavailable) {
			t.Fatal(err)
		}
		var done, failed atomic.Int64
		f.set(func(op errorfs.Op) error {
			if writes(op) && done.Add(1) > int64(allowed) {
				failed.Store(1)
				return errDisk
			}
			return nil
		})
		eventually(t, "an attempt", func() bool { return failed.Load() > 0 || s.Ready() == nil })
		opened = failed.Load() == 0
		f.set(nil)
		eventually(t, fmt.Sprintf("the store works again after %d writes", allowed), func() bool { return s.Ready() == nil })
		if ids, err := seen(s, "ann"); err != nil || len(ids) == 0 || ids[0] != want {
			t.Errorf("after %d writes ann sees %v, %v, want %s first", allowed, ids, err, want)
		}
		_ = closeWithin(s, 5*time.Second)
	}
}

func TestFailedWriteTakesWhatWasBuiltOnItAlong(t *testing.T) {
	var f faults
	s := mustOpen(t, "data", Options{fs: f.over(vfs.NewMem()), checkEvery: time.Hour})
	feed := newHearer()
	s.Subscribe(feed)
	mustPost(t, s, "ann", note())
	release := f.block(t, isSync)
	f.set(func(op errorfs.Op) error {
		if isSync(op) {
			return errDisk
		}
		return nil
	})
	keyed := note()
	keyed.IdempotencyKey = "k"
	end := delivery.Entry{Event: events.Event{Name: events.JobCompleted, Kind: events.Completed, JobID: "1", Data: []byte(`{}`)}}
	answers := make(chan error, 5)
	publish := func(e delivery.Entry) { _, err := post(s, "ann", e); answers <- err }
	go publish(keyed)
	eventually(t, "a write is under way", f.holding)
	go publish(keyed) // a repeat of what will fail
	go publish(end)
	go publish(progressOf("2")) // would be told after what will fail
	in := s.current.Load()
	u := in.users.get("ann")
	eventually(t, "all are decided", func() bool {
		u.lock <- struct{}{}
		defer u.release()
		return len(u.groups) == 3
	})
	in.drop(u)
	go publish(progressOf("1")) // ignored, perhaps for what will fail
	select {
	case err := <-answers:
		t.Fatalf("answered before the first: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	release()
	for range 5 {
		if err := <-answers; !errors.Is(err, delivery.ErrStoreUnavailable) {
			t.Errorf("error %v", err)
		}
	}
	if told := feed.places("ann"); len(told) != 1 {
		t.Errorf("told %v", told)
	}
}

func TestHangingDiskHoldsUpNobodyForEver(t *testing.T) {
	var f faults
	s := mustOpen(t, "data", Options{fs: f.over(vfs.NewMem()), stuckAfter: 300 * time.Millisecond})
	first := mustPost(t, s, "ann", note())
	release := f.block(t, writes)
	returns(t, "a message", func() {
		if _, err := post(s, "ann", note()); !errors.Is(err, delivery.ErrStoreUnavailable) {
			t.Errorf("error %v", err)
		}
	})
	if err := s.Ready(); err == nil {
		t.Error("ready")
	}
	release()
	eventually(t, "the store works again", func() bool {
		ids, err := seen(s, "ann")
		return err == nil && len(ids) > 0 && ids[0] == first
	})
}

func TestCloseGivesUpOverAHangingDisk(t *testing.T) {
	var f faults
	s := mustOpen(t, "data", Options{fs: f.over(vfs.NewMem()), stuckAfter: time.Hour})
	mustPost(t, s, "ann", note())
	release := f.block(t, writes)
	answered := make(chan error, 1)
	go func() { _, err := post(s, "ann", note()); answered <- err }()
	eventually(t, "a write hangs", f.holding)
	returns(t, "close", func() {
		if err := closeWithin(s, 50*time.Millisecond); err == nil {
			t.Error("closed without an error over a disk that hangs")
		}
	})
	if err := <-answered; !errors.Is(err, delivery.ErrStoreUnavailable) {
		t.Errorf("error %v", err)
	}
	release()
}

func TestCallsEndWithTheirContext(t *testing.T) {
	var f faults
	s := mustOpen(t, "data", Options{fs: f.over(vfs.NewMem()), stuckAfter: time.Hour})
	mustPost(t, s, "ann", note())
	release := f.block(t, isSync)
	held := make(chan error, 1)
	go func() { _, err := post(s, "ann", note()); held <- err }()
	eventually(t, "a write is under way", f.holding)
	short, cancel := contextWithTimeout(20 * time.Millisecond)
	defer cancel()
	if _, err := s.Read(short, delivery.Query{UserID: "ann", Limit: 1, Bytes: 1}); !errors.Is(err, short.Err()) || err == nil {
		t.Errorf("a replay that waits: %v", err)
	}
	in := s.current.Load()
	u := in.users.get("ann")
	u.lock <- struct{}{}
	locked, cancelLocked := contextWithTimeout(20 * time.Millisecond)
	defer cancelLocked()
	if _, err := s.Publish(locked, "ann", []delivery.Entry{note()}); !errors.Is(err, locked.Err()) || err == nil {
		t.Errorf("a message that waits for another: %v", err)
	}
	u.release()
	in.drop(u)
	release()
	if err := <-held; err != nil {
		t.Error(err)
	}
}

func TestPlacesStayAboveForgottenProgress(t *testing.T) {
	for _, ahead := range []time.Duration{0, ceilingAhead / 4 * time.Millisecond, ceilingAhead * time.Millisecond, time.Hour} {
		t.Run(ahead.String(), func(t *testing.T) {
			disk := vfs.NewCrashableMem()
			clock := time.Now()
			s := mustOpen(t, "data", Options{fs: disk, WriteBehind: time.Hour, Now: func() time.Time { return clock }})
			mustPost(t, s, "ann", note())
			clock = clock.Add(ahead)
			told := mustPost(t, s, "ann", progressOf("1")) // answered, and perhaps not on the disk
			crashed := disk.CrashClone(vfs.CrashCloneCfg{})
			clock = clock.Add(-time.Hour)
			after := mustOpen(t, "data", Options{fs: crashed, Now: func() time.Time { return clock }})
			if id := mustPost(t, after, "ann", note()); id.Compare(told) <= 0 {
				t.Fatalf("%s after %s", id, told)
			}
		})
	}
}

// A user whose data is all gone but whose removal is still on its way must not come back from the disk.
func TestForgottenUserStaysForgotten(t *testing.T) {
	var f faults
	clock := time.Now()
	s, err := Open("data", delivery.Limits{Retention: time.Minute}, Options{
		fs: f.over(vfs.NewMem()), Now: func() time.Time { return clock }, Logger: quiet, cacheBytes: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer closeStore(t, s)
	mustPost(t, s, "ann", note())
	clock = clock.Add(time.Hour)
	release := f.block(t, isSync)
	swept := make(chan error, 1)
	go func() { _, err := s.Sweep(ctx); swept <- err }()
	eventually(t, "the sweep writes", f.holding)
	for i := range 100 {
		if place, err := s.Follow(ctx, fmt.Sprint("user", i)); err != nil || !place.IsZero() {
			t.Fatal(place, err)
		}
	}
	if place, err := s.Follow(ctx, "ann"); err != nil || !place.IsZero() {
		t.Errorf("the user is back at %s, %v", place, err)
	}
	release()
	if err := <-swept; err != nil {
		t.Error(err)
	}
}

func TestFullStoreRefuses(t *testing.T) {
	clock := time.Now()
	s, err := Open(t.TempDir(), delivery.Limits{Retention: time.Minute, Messages: 1 << 20, MessagesBytes: 1 << 30}, Options{
		MaxBytes: 40 << 20, Logger: quiet, checkEvery: 5 * time.Millisecond, Now: func() time.Time { return clock },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer closeStore(t, s)
	keyed := note()
	keyed.IdempotencyKey = "k"
	kept := mustPost(t, s, "ann", keyed)
	big := note()
	noise := make([]byte, 60_000)
	eventually(t, "the store is full", func() bool {
		for i := range noise {
			noise[i] = 'a' + byte(rand.IntN(26))
		}
		big.Data = []byte(`"` + string(noise) + `"`)
		_, err := post(s, "bob", big)
		if err != nil && !errors.Is(err, delivery.ErrStoreFull) {
			t.Fatalf("error %v", err)
		}
		return err != nil
	})
	if _, err := post(s, "ann", progressOf("1")); !errors.Is(err, delivery.ErrStoreFull) {
		t.Errorf("progress: %v", err)
	}
	ds, err := s.Publish(ctx, "ann", []delivery.Entry{keyed})
	if err != nil || ds[0].Verdict != delivery.Repeated || ds[0].Place != kept {
		t.Errorf("a repeat: %+v, %v", ds, err)
	}
	expectSeen(t, s, "ann", kept)
	clock = clock.Add(time.Hour)
	for more := true; more; {
		swept, err := s.Sweep(ctx)
		if err != nil {
			t.Fatal(err)
		}
		more = swept.More
	}
	eventually(t, "the space is given back", func() bool { _, err := post(s, "ann", note()); return err == nil })
}

func TestBackupHoldsWhatWasAnswered(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, filepath.Join(dir, "data"), Options{})
	var mu sync.Mutex
	answered := make(map[string][]events.ID)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			user := fmt.Sprint("user", w%3)
			for {
				select {
				case <-stop:
					return
				default:
				}
				id, err := post(s, user, note())
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				answered[user] = append(answered[user], id)
				mu.Unlock()
			}
		})
	}
	at := mustPost(t, s, "ann", progressOf("1"))
	for n := range 3 {
		eventually(t, "there is something to copy", func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(answered["user0"]) > 200*(n+1)
		})
		mu.Lock()
		before := make(map[string]int)
		for user, ids := range answered {
			before[user] = len(ids)
		}
		mu.Unlock()
		copyDir := filepath.Join(dir, fmt.Sprint("copy", n))
		if err := s.Backup(ctx, copyDir); err != nil {
			t.Fatal(err)
		}
		copied := mustOpen(t, copyDir, Options{})
		expectSeen(t, copied, "ann", at)
		for user, n := range before {
			ids, err := seen(copied, user)
			if err != nil {
				t.Fatal(err)
			}
			there := make(map[events.ID]bool)
			for _, id := range ids {
				there[id] = true
			}
			mu.Lock()
			for _, id := range answered[user][:n] {
				if !there[id] {
					t.Errorf("%s of %s is not in the copy", id, user)
				}
			}
			mu.Unlock()
		}
		closeStore(t, copied)
	}
	close(stop)
	wg.Wait()
	if err := s.Backup(ctx, filepath.Join(dir, "copy0")); !errors.Is(err, os.ErrExist) {
		t.Errorf("a copy over another one: %v", err)
	}
	if err := s.Ready(); err != nil {
		t.Error(err)
	}
}

func TestRunningOutOfSpaceIsToldOnce(t *testing.T) {
	var logged lockedBuffer
	s, err := Open(t.TempDir(), wide, Options{
		MaxBytes: 40 << 20, checkEvery: 2 * time.Millisecond, Logger: slog.New(slog.NewTextHandler(&logged, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer closeStore(t, s)
	warnings := func() int { return strings.Count(logged.String(), "level=WARN") }
	eventually(t, "it is told", func() bool {
		if _, err := post(s, "ann", noise()); err != nil && !errors.Is(err, delivery.ErrStoreFull) {
			t.Fatal(err)
		}
		return warnings() > 0
	})
	checked := s.Stats().Size
	eventually(t, "it is full", func() bool { _, err := post(s, "ann", noise()); return errors.Is(err, delivery.ErrStoreFull) })
	if st := s.Stats(); st.Size < checked || warnings() != 1 {
		t.Errorf("%d warnings, %d bytes after %d", warnings(), st.Size, checked)
	}
}

// lockedBuffer is a log that is written and read at once.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestUsersInMemoryAreBounded(t *testing.T) {
	const limit = 1 << 20
	s, err := OpenMemory(wide, Options{Logger: quiet, cacheBytes: limit, WriteBehind: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer closeStore(t, s)
	big := progressOf("1")
	big.Data = []byte(`"` + strings.Repeat("x", 10_000) + `"`)
	for i := range 1000 {
		mustPost(t, s, fmt.Sprint("user", i), big)
	}
	inMemory := func() (bytes, users int) {
		in := s.current.Load()
		for i := range in.users.shards {
			sh := &in.users.shards[i]
			sh.mu.Lock()
			bytes += sh.bytes
			users += len(sh.users)
			sh.mu.Unlock()
		}
		return bytes, users
	}
	eventually(t, "what is written makes room", func() bool { bytes, _ := inMemory(); return bytes <= limit })
	_, before := inMemory()
	for i := range 1000 {
		if _, err := s.Follow(ctx, fmt.Sprint("nobody", i)); err != nil {
			t.Fatal(err)
		}
	}
	if _, users := inMemory(); users != before {
		t.Errorf("%d users who have nothing are kept", users-before)
	}
	for i := range 1000 {
		jobs, err := s.Jobs(ctx, delivery.JobsQuery{UserID: fmt.Sprint("user", i), Limit: 1})
		if err != nil || len(jobs.Jobs) != 1 || string(jobs.Jobs[0].Progress) != string(big.Data) {
			t.Fatalf("user%d: %d jobs, %v", i, len(jobs.Jobs), err)
		}
	}
}

func TestAskingWhenNothingIsDueCostsNothing(t *testing.T) {
	now := time.Now()
	s := mustOpen(t, "data", Options{fs: vfs.NewMem(), Now: func() time.Time { return now }})
	watched := progressOf("1")
	watched.StaleAfter = time.Minute
	mustPost(t, s, "ann", watched)
	if n, err := s.Stall(ctx, 10); n != 0 || err != nil { // the first look after the opening
		t.Fatal(n, err)
	}
	if allocs := testing.AllocsPerRun(100, func() { _, _ = s.Stall(ctx, 10) }); allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
	now = now.Add(time.Hour)
	if n, err := s.Stall(ctx, 10); n != 1 || err != nil {
		t.Errorf("%d stalled, %v", n, err)
	}
}

// A read that fails once is no damage: the store looks through all of its data and goes on.
func TestReadThatFailsOnceEndsNothing(t *testing.T) {
	var f faults
	s, err := Open("data", wide, Options{fs: f.over(vfs.NewMem()), Logger: quiet, cacheBytes: 1, checkEvery: 5 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer closeStore(t, s)
	want := make(map[string]events.ID)
	for i := range 50 {
		user := fmt.Sprint("user", i)
		want[user] = mustPost(t, s, user, note())
	}
	if err := s.current.Load().db.Flush(); err != nil {
		t.Fatal(err)
	}
	f.set(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileReadAt && strings.HasSuffix(op.Path, ".sst") || op.Kind == errorfs.OpOpen && strings.HasSuffix(op.Path, ".sst") {
			return errDisk
		}
		return nil
	})
	eventually(t, "it is felt", func() bool {
		for user := range want {
			if _, err := seen(s, user); errors.Is(err, delivery.ErrStoreUnavailable) {
				return true
			}
		}
		return false
	})
	f.set(nil)
	eventually(t, "the store works again", func() bool { return s.Ready() == nil })
	for user, id := range want {
		expectSeen(t, s, user, id)
	}
}

func TestDirectoryThatCannotBeOpenedIsAnError(t *testing.T) {
	for _, broken := range []func(errorfs.Op) bool{
		writes, isSync, func(op errorfs.Op) bool { return op.Kind == errorfs.OpList },
		func(op errorfs.Op) bool { return writes(op) && strings.Contains(op.Path, "MANIFEST") },
		func(op errorfs.Op) bool { return writes(op) && strings.HasSuffix(op.Path, ".log") },
	} {
		var f faults
		disk := f.over(vfs.NewMem())
		for range 2 { // new, and with something in it
			f.set(func(op errorfs.Op) error {
				if broken(op) {
					return errDisk
				}
				return nil
			})
			returns(t, "opening", func() {
				if s, err := Open("data", wide, Options{fs: disk, Logger: quiet}); !errors.Is(err, errDisk) {
					t.Errorf("error %v", err)
					if err == nil {
						_ = closeWithin(s, 5*time.Second)
					}
				}
			})
			f.set(nil)
			s := mustOpen(t, "data", Options{fs: disk})
			mustPost(t, s, "ann", note())
			closeStore(t, s)
		}
	}
}

// What a failed write has left on the disk is told to no feed. So the feeds are told whom they must have come back, before
// anything newer of that user, and a repeat of the key that is answered then is not the last that its sockets hear of it.
func TestUntoldEventsAreToldAsLost(t *testing.T) {
	var f faults
	s := mustOpen(t, "data", Options{fs: f.over(vfs.NewMem()), Logger: slog.New(slog.DiscardHandler), checkEvery: time.Millisecond})
	feed := newHearer()
	defer s.Subscribe(feed)()
	mustPost(t, s, "ann", note())
	mustPost(t, s, "bob", note())
	f.set(func(op errorfs.Op) error {
		if isSync(op) {
			return errDisk
		}
		return nil
	})
	keyed := note()
	keyed.IdempotencyKey = "once"
	if _, err := post(s, "ann", keyed); !errors.Is(err, delivery.ErrStoreUnavailable) {
		t.Fatalf("error %v", err)
	}
	f.set(nil)
	eventually(t, "the store works again", func() bool {
		_, err := post(s, "ann", keyed)
		return err == nil
	})
	feed.mu.Lock()
	defer feed.mu.Unlock()
	if at, lost := feed.lost["ann"]; !lost || at != 1 || len(feed.lost) != 1 {
		t.Errorf("told as lost: %v, want ann after 1", feed.lost)
	}
}

// noise is a large message that does not shrink.
func noise() delivery.Entry {
	text := make([]byte, 60_000)
	for i := range text {
		text[i] = 'a' + byte(rand.IntN(26))
	}
	e := note()
	e.Data = []byte(`"` + string(text) + `"`)
	return e
}

func TestSpaceOfWhatWasSweptIsGivenBack(t *testing.T) {
	now := time.Now()
	s, err := Open(t.TempDir(), delivery.Limits{Retention: time.Hour, MessagesBytes: 1 << 30}, Options{
		Logger: quiet, Now: func() time.Time { return now }, checkEvery: 20 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer closeStore(t, s)
	for i := range 1000 {
		mustPost(t, s, fmt.Sprint("user", i%10), noise())
	}
	eventually(t, "the size is known", func() bool { return s.Stats().Size > 40<<20 })
	now = now.Add(2 * time.Hour)
	for more := true; more; {
		swept, err := s.Sweep(ctx)
		if err != nil {
			t.Fatal(err)
		}
		more = swept.More
	}
	// What is left are logs that are used again.
	eventually(t, "the space is given back", func() bool { st := s.Stats(); return st.Size-st.Free < 10<<20 })
}

// A disk that hangs on reads holds up no call for ever either: neither those that read nor, when nobody does, the next ones.
// A read that is left behind fills its page when nobody looks at it any more.
func TestReadThatIsLeftBehindTouchesNothing(t *testing.T) {
	var f faults
	s, err := Open("data", wide, Options{
		fs: f.over(vfs.NewMem()), Logger: quiet, cacheBytes: 1, stuckAfter: 200 * time.Millisecond, checkEvery: time.Hour,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = closeWithin(s, 5*time.Second) }()
	big := note()
	big.Data = []byte(`"` + strings.Repeat("x", 100_000) + `"`)
	for range 30 {
		mustPost(t, s, "ann", big)
	}
	if err := s.current.Load().db.Flush(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Follow(ctx, "ann"); err != nil { // loaded
		t.Fatal(err)
	}
	reads := 0
	release := f.block(t, func(op errorfs.Op) bool {
		if op.Kind == errorfs.OpFileReadAt && strings.HasSuffix(op.Path, ".sst") {
			reads++
		}
		return reads > 10
	})
	time.AfterFunc(time.Second, release) // the test itself must not be what the read waits for
	page, err := s.Read(ctx, delivery.Query{UserID: "ann", Limit: 100, Bytes: 10 << 20})
	if !errors.Is(err, delivery.ErrStoreUnavailable) || len(page.Records) > 0 {
		t.Errorf("%d records, error %v", len(page.Records), err)
	}
	eventually(t, "the read ends", func() bool { return s.current.Load().calls.Load() == 0 })
}

func TestDiskThatHangsOnReadsIsNoticed(t *testing.T) {
	reads := func(op errorfs.Op) bool { return op.Kind.ReadOrWrite() == errorfs.OpIsRead }
	tables := func(op errorfs.Op) bool { return reads(op) && strings.HasSuffix(op.Path, ".sst") }
	for name, hangs := range map[string]func(op errorfs.Op) bool{"all": reads, "of tables": tables} {
		t.Run(name, func(t *testing.T) {
			var f faults
			s, err := Open("data", wide, Options{
				fs: f.over(vfs.NewMem()), Logger: quiet, cacheBytes: 1, checkEvery: 5 * time.Millisecond, stuckAfter: 200 * time.Millisecond,
			})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { returns(t, "close", func() { _ = closeWithin(s, 5*time.Second) }) }()
			var users []string
			want := make(map[string]events.ID)
			for i := range 50 {
				users = append(users, fmt.Sprint("user", i))
				want[users[i]] = mustPost(t, s, users[i], note())
			}
			if err := s.current.Load().db.Flush(); err != nil {
				t.Fatal(err)
			}
			release := f.block(t, hangs)
			calls := map[string]func(user string) error{
				"a message": func(user string) error { _, err := post(s, user, note()); return err },
				"a replay":  func(user string) error { _, err := seen(s, user); return err },
				"jobs":      func(user string) error { _, err := s.Jobs(ctx, delivery.JobsQuery{UserID: user, Limit: 1}); return err },
				"a sweep":   func(string) error { _, err := s.Sweep(ctx); return err },
			}
			if name == "all" {
				calls = nil // and still
			}
			var wg sync.WaitGroup
			for what, call := range calls {
				for _, user := range users {
					wg.Go(func() {
						if err := call(user); err != nil && !errors.Is(err, delivery.ErrStoreUnavailable) {
							t.Errorf("%s: %v", what, err)
						}
					})
				}
			}
			returns(t, "a call", wg.Wait)
			eventually(t, "it is noticed", func() bool { return errors.Is(s.Ready(), delivery.ErrStoreUnavailable) })
			if err := s.Ready(); err == nil || !strings.Contains(err.Error(), "a read takes longer than 200ms") {
				t.Errorf("error %v", err)
			}
			failures := s.Stats().Failures
			returns(t, "a call afterwards", func() {
				if _, err := seen(s, "ann"); !errors.Is(err, delivery.ErrStoreUnavailable) {
					t.Errorf("error %v", err)
				}
			})
			release()
			eventually(t, "the store works again", func() bool { return s.Ready() == nil })
			if n := s.Stats().Failures; n != 1 {
				t.Errorf("%d failures, %d before it answered", n, failures)
			}
			for user, id := range want {
				if ids, err := seen(s, user); err != nil || len(ids) == 0 || ids[0] != id {
					t.Errorf("%s sees %v, %v, want %s first", user, ids, err, id)
				}
			}
		})
	}
}
