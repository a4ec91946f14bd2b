package embedded

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"jobwire/delivery"
	"jobwire/events"
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

func mustOpen(t testing.TB, dir string, opts Options) *Bolt {
	t.Helper()
	if opts.Logger == nil {
		opts.Logger = quiet
	}
	s, err := Open(dir, delivery.Limits{Events: 100_000, Bytes: 1 << 30}, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func note(user string) delivery.Entry {
	return delivery.Entry{Event: events.Event{UserID: user, Name: "note", Data: json.RawMessage(`{"text":"` + strings.Repeat("n", 100) + `"}`)}}
}

func progress(user, job string) delivery.Entry {
	return delivery.Entry{Event: events.Event{UserID: user, Name: events.JobProgress, JobID: job, Data: json.RawMessage(`{}`)}}
}

func post(s delivery.Store, e delivery.Entry) (events.ID, error) {
	ds, err := s.Publish(context.Background(), []delivery.Entry{e})
	if err != nil {
		return events.ID{}, err
	}
	return ds[0].ID, nil
}

func mustPost(t testing.TB, s delivery.Store, e delivery.Entry) events.ID {
	t.Helper()
	id, err := post(s, e)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// logged reads all ids that a client without offset would see.
func logged(s delivery.Store, user string) (map[events.ID]bool, error) {
	seen := make(map[events.ID]bool)
	for q := (&delivery.Query{UserID: user, Limit: 500, Bytes: 1 << 20}); q != nil; {
		p, err := s.Read(context.Background(), *q)
		if err != nil {
			return nil, err
		}
		for _, r := range p.Records {
			seen[r.ID] = true
		}
		q = p.Next
	}
	return seen, nil
}

func TestSecondProcessIsToldAtOnce(t *testing.T) {
	dir := t.TempDir()
	mustOpen(t, dir, Options{})
	begin := time.Now()
	_, err := Open(dir, delivery.Limits{}, Options{})
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), dir) {
		t.Fatalf("error %v", err)
	}
	if took := time.Since(begin); took > 2*time.Second {
		t.Fatalf("told after %s", took)
	}
}

// filled makes a store with some of everything and returns its file.
func filled(t *testing.T) []byte {
	t.Helper()
	dir := t.TempDir()
	s := mustOpen(t, dir, Options{})
	for i := range 400 {
		user := fmt.Sprint("user", i%20)
		mustPost(t, s, note(user))
		mustPost(t, s, progress(user, fmt.Sprint(i)))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, FileName))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// use opens a file and reads and writes everything in it.
func use(t *testing.T, content []byte) error {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, FileName), content, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Open(dir, delivery.Limits{}, Options{Logger: quiet})
	if err != nil {
		return err
	}
	defer s.Close()
	var first error
	keep := func(err error) {
		if first == nil {
			first = err
		}
	}
	for i := range 20 {
		user := fmt.Sprint("user", i)
		seen, err := logged(s, user)
		keep(err)
		if err == nil && first == nil && len(seen) != 40 {
			keep(fmt.Errorf("%s has %d events: lost without a word", user, len(seen)))
			t.Error(first)
		}
		_, err = s.Jobs(context.Background(), user)
		keep(err)
		_, err = post(s, note(user))
		keep(err)
	}
	_, err = s.Sweep(context.Background())
	keep(err)
	return first
}

func TestTruncatedFileIsAnError(t *testing.T) {
	whole := filled(t)
	if err := use(t, whole); err != nil {
		t.Fatal(err)
	}
	var lengths []int
	for page := 0; page*filePageSize < len(whole); page += 1 + page/8 { // the first ones matter most
		n := page * filePageSize
		lengths = append(lengths, n, n+1, n+filePageSize-1)
	}
	lengths = append(lengths, 15, 16, 79, 80, 100, len(whole)-1)
	if testing.Short() {
		lengths = append(lengths[:9], lengths[len(lengths)-9:]...)
	}
	refused := 0
	for _, n := range lengths {
		if n > len(whole) {
			continue
		}
		err := use(t, whole[:n])
		if err != nil {
			refused++
			if !errors.Is(err, ErrDamaged) {
				t.Errorf("cut to %d of %d bytes: %v", n, len(whole), err)
			}
		}
	}
	if refused < len(lengths)/2 {
		t.Errorf("only %d of %d truncated files were refused", refused, len(lengths))
	}
}

func TestDamagedPagesDoNotEndTheProcess(t *testing.T) {
	whole := filled(t)
	noise := make([]byte, filePageSize)
	for i := range noise {
		noise[i] = byte(i*7 + i>>8)
	}
	refused := 0
	for page := 0; page*filePageSize < len(whole); page++ {
		for _, with := range [][]byte{make([]byte, filePageSize), noise} {
			b := append([]byte(nil), whole...)
			copy(b[page*filePageSize:], with)
			if err := useDamaged(t, b); err != nil {
				refused++
			}
		}
	}
	if refused == 0 {
		t.Error("no damage was noticed")
	}
}

// useDamaged is use for files in which events may be missing without a word:
// bbolt has no checksums. All that matters is that the process goes on.
func useDamaged(t *testing.T, content []byte) (err error) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, FileName), content, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Open(dir, delivery.Limits{}, Options{Logger: quiet})
	if err != nil {
		return err
	}
	for i := range 20 {
		user := fmt.Sprint("user", i)
		_, e1 := logged(s, user)
		_, e2 := s.Jobs(context.Background(), user)
		_, e3 := post(s, note(user))
		err = errors.Join(err, e1, e2, e3)
	}
	return errors.Join(err, s.Close())
}

func TestFileThatShrinksWhileInUseIsAnError(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir, Options{})
	for i := range 200 {
		mustPost(t, s, note(fmt.Sprint("user", i)))
	}
	if err := os.Truncate(filepath.Join(dir, FileName), 2*filePageSize); err != nil {
		t.Fatal(err)
	}
	failed := false
	for i := range 200 {
		if _, err := logged(s, fmt.Sprint("user", i)); err != nil {
			failed = true
		}
	}
	if !failed {
		t.Error("no read failed")
	}
}

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

func (d *disk) set(fail error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail = fail
}

func TestNothingIsAnsweredBeforeItIsOnTheDisk(t *testing.T) {
	d := &disk{hold: make(chan struct{}), at: make(chan struct{}, 1)}
	s := mustOpen(t, t.TempDir(), Options{beforeCommit: d.commit})
	answers := make(chan error, 3)
	go func() { _, err := post(s, note("ann")); answers <- err }()
	<-d.at
	// A second one gathers behind the commit, a reader waits for what it saw.
	go func() { _, err := post(s, note("bob")); answers <- err }()
	go func() {
		seen, err := logged(s, "ann")
		if err == nil && len(seen) != 1 {
			err = fmt.Errorf("%d events", len(seen))
		}
		answers <- err
	}()
	select {
	case err := <-answers:
		t.Fatalf("answered while the commit was under way: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	close(d.hold)
	for range 3 {
		if err := <-answers; err != nil {
			t.Fatal(err)
		}
	}
}

func TestProgressDoesNotWaitForTheDisk(t *testing.T) {
	d := &disk{at: make(chan struct{}, 1)}
	s := mustOpen(t, t.TempDir(), Options{beforeCommit: d.commit, WriteBehind: time.Hour})
	mustPost(t, s, note("ann")) // and with it a fresh ceiling
	d.mu.Lock()
	d.hold = make(chan struct{})
	d.mu.Unlock()
	<-d.at
	held := make(chan error, 1)
	go func() { _, err := post(s, note("ann")); held <- err }()
	<-d.at
	mustPost(t, s, progress("bob", "1"))
	close(d.hold)
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
	d.mu.Lock()
	d.hold, d.fail = make(chan struct{}), full
	d.mu.Unlock()
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
	close(d.hold)
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

func TestWriteBehindReachesTheDisk(t *testing.T) {
	d := &disk{at: make(chan struct{}, 1)}
	s := mustOpen(t, t.TempDir(), Options{beforeCommit: d.commit, WriteBehind: time.Millisecond})
	mustPost(t, s, note("ann"))
	<-d.at
	mustPost(t, s, progress("ann", "1"))
	select {
	case <-d.at:
	case <-time.After(5 * time.Second):
		t.Fatal("the progress was never written")
	}
}

func TestCloseWritesWhatIsLeft(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir, Options{WriteBehind: time.Hour})
	mustPost(t, s, note("ann"))
	id := mustPost(t, s, progress("ann", "1"))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := post(s, note("ann")); err == nil {
		t.Fatal("a closed store took an event")
	}
	s = mustOpen(t, dir, Options{})
	if seen, err := logged(s, "ann"); err != nil || !seen[id] {
		t.Fatalf("%v, %v", seen, err)
	}
}
