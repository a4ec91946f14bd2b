package embedded

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"jobwire/internal/delivery"
	"jobwire/internal/events"
)

var quiet = slog.New(slog.DiscardHandler)

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
	for page := 0; page*filePageSize < len(whole); page += 1 + page/8 {
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

// Opening reads the whole file when its list of free pages is not in it.
func TestListOfFreePagesIsInTheFile(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir, Options{})
	for i := range 100 {
		mustPost(t, s, note(fmt.Sprint("user", i)))
	}
	b, err := os.ReadFile(filepath.Join(dir, FileName)) // as a crash would leave it
	if err != nil {
		t.Fatal(err)
	}
	for page := range 2 {
		head := b[page*filePageSize+pageHeader:]
		if list := binary.NativeEndian.Uint64(head[32:]); list == math.MaxUint64 {
			t.Errorf("head page %d names no list", page)
		}
	}
	if st := s.Stats(); st.Commits == 0 || st.Size != int64(len(b)) || st.Failing || st.Failures != 0 {
		t.Errorf("stats %+v", st)
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
