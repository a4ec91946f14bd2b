package embedded

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"jobwire/internal/delivery"
)

// disk is a disk that fails or hangs on demand.
type disk struct {
	mu   sync.Mutex
	fail error
	hold chan struct{}
	at   chan struct{} // a commit has come
}

func (d *disk) commit() error {
	d.mu.Lock()
	hold, fail := d.hold, d.fail
	d.mu.Unlock()
	if d.at != nil {
		select {
		case d.at <- struct{}{}:
		default:
		}
	}
	if hold != nil {
		<-hold
	}
	return fail
}

// block makes commits wait until release, at the latest until the test ends.
func (d *disk) block(t *testing.T) (release func()) {
	hold := make(chan struct{})
	d.mu.Lock()
	d.hold = hold
	d.mu.Unlock()
	release = sync.OnceFunc(func() { close(hold) })
	t.Cleanup(release)
	return release
}

func (d *disk) set(fail error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail = fail
}

func TestNothingIsAnsweredBeforeItIsOnTheDisk(t *testing.T) {
	d := &disk{at: make(chan struct{}, 1)}
	s := mustOpen(t, t.TempDir(), Options{beforeCommit: d.commit})
	release := d.block(t)
	answers := make(chan error, 4)
	see := func(user string) {
		seen, err := logged(s, user)
		if err == nil && len(seen) != 1 {
			err = fmt.Errorf("%s has %d events", user, len(seen))
		}
		answers <- err
	}
	go func() { _, err := post(s, note("ann")); answers <- err }()
	<-d.at
	// A second one gathers behind the commit, readers wait for what they saw.
	go func() { _, err := post(s, note("bob")); answers <- err }()
	for gathered := false; !gathered; time.Sleep(time.Millisecond) {
		s.mu.Lock()
		gathered = s.top.size() > 0
		s.mu.Unlock()
	}
	go see("ann")
	go see("bob")
	select {
	case err := <-answers:
		t.Fatalf("answered while the commit was under way: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	release()
	for range 4 {
		if err := <-answers; err != nil {
			t.Fatal(err)
		}
	}
}

func TestProgressDoesNotWaitForTheDisk(t *testing.T) {
	d := &disk{at: make(chan struct{}, 1)}
	s := mustOpen(t, t.TempDir(), Options{beforeCommit: d.commit, WriteBehind: time.Hour})
	mustPost(t, s, note("ann")) // and with it a fresh ceiling
	<-d.at
	release := d.block(t)
	held := make(chan error, 1)
	go func() { _, err := post(s, note("ann")); held <- err }()
	<-d.at
	mustPost(t, s, progress("bob", "1"))
	release()
	if err := <-held; err != nil {
		t.Fatal(err)
	}
}

func TestFailingDiskRefusesAndRecovers(t *testing.T) {
	d := &disk{}
	dir := t.TempDir()
	s := mustOpen(t, dir, Options{beforeCommit: d.commit})
	first := mustPost(t, s, note("ann"))
	full := errors.New("no space left on device")
	d.set(full)
	for range 3 {
		if _, err := post(s, note("ann")); !errors.Is(err, full) {
			t.Fatalf("a durable event on a full disk: %v", err)
		}
	}
	if _, err := post(s, progress("ann", "1")); !errors.Is(err, full) {
		t.Fatalf("progress on a disk that is known to be full: %v", err)
	}
	if err := s.Settle(context.Background(), []delivery.Settlement{{UserID: "ann", Confirmed: first}}); !errors.Is(err, full) {
		t.Fatalf("a receipt on a disk that is known to be full: %v", err)
	}
	seen, err := logged(s, "ann")
	if err != nil || len(seen) != 1 || !seen[first] {
		t.Fatalf("what was refused is seen: %v, %v", seen, err)
	}
	d.set(nil)
	second := mustPost(t, s, note("ann"))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, dir, Options{})
	seen, err = logged(s, "ann")
	if err != nil || len(seen) != 2 || !seen[first] || !seen[second] {
		t.Fatalf("after the recovery: %v, %v", seen, err)
	}
}

func TestFailedCommitTakesWhatWasBuiltOnItAlong(t *testing.T) {
	full := errors.New("no space left on device")
	d := &disk{at: make(chan struct{}, 1)}
	s := mustOpen(t, t.TempDir(), Options{beforeCommit: d.commit})
	mustPost(t, s, note("bob")) // from here on the ceiling makes nobody wait
	<-d.at
	d.set(full)
	release := d.block(t)
	answers := make(chan error, 3)
	key := note("ann")
	key.Event.IdempotencyKey = "k"
	go func() { _, err := post(s, key); answers <- err }()
	<-d.at
	go func() { _, err := post(s, key); answers <- err }() // a repeat of what will fail
	go func() { _, err := post(s, note("ann")); answers <- err }()
	select {
	case err := <-answers:
		t.Fatalf("the repeat was answered before the first: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	release()
	for range 3 {
		if err := <-answers; !errors.Is(err, full) {
			t.Fatalf("error %v", err)
		}
	}
	d.set(nil)
	ds, err := s.Publish(context.Background(), []delivery.Entry{key})
	if err != nil || ds[0].Verdict != delivery.VerdictStored {
		t.Fatalf("the retry after the failure: %+v, %v", ds, err)
	}
	if seen, err := logged(s, "ann"); err != nil || len(seen) != 1 {
		t.Fatalf("what was refused is in the log: %v, %v", seen, err)
	}
}

func TestIdsStayAboveForgottenProgress(t *testing.T) {
	for _, ahead := range []time.Duration{0, ceilingAhead / 4 * time.Millisecond, ceilingAhead * time.Millisecond, time.Hour} {
		t.Run(ahead.String(), func(t *testing.T) { forgetProgress(t, ahead) })
	}
}

func forgetProgress(t *testing.T, ahead time.Duration) {
	dir := t.TempDir()
	clock := time.Now()
	s := mustOpen(t, dir, Options{WriteBehind: time.Hour, Now: func() time.Time { return clock }})
	mustPost(t, s, note("ann"))
	clock = clock.Add(ahead)
	seen := mustPost(t, s, progress("ann", "1")) // answered, and perhaps not on the disk
	crashed, err := os.ReadFile(filepath.Join(dir, FileName))
	if err != nil {
		t.Fatal(err)
	}
	other := t.TempDir()
	if err := os.WriteFile(filepath.Join(other, FileName), crashed, 0o600); err != nil {
		t.Fatal(err)
	}
	clock = clock.Add(-time.Hour)
	after := mustOpen(t, other, Options{Now: func() time.Time { return clock }})
	if id := mustPost(t, after, note("ann")); id.Compare(seen) <= 0 {
		t.Fatalf("%s after %s", id, seen)
	}
}

func TestReadyTriesTheDiskAgain(t *testing.T) {
	d := &disk{}
	s := mustOpen(t, t.TempDir(), Options{beforeCommit: d.commit})
	if err := s.Ready(); err != nil {
		t.Fatalf("a new store: %v", err)
	}
	d.set(errors.New("no space left on device"))
	if _, err := post(s, note("ann")); err == nil {
		t.Fatal("an event was stored on a full disk")
	}
	if s.Ready() == nil {
		t.Error("ready on a full disk")
	}
	d.set(nil)
	if err := s.Ready(); err != nil {
		t.Errorf("the disk has room again: %v", err)
	}
	if s.Stats().Failing {
		t.Error("still failing")
	}
}
