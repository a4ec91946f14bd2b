package embedded

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"jobwire/internal/delivery"
	"jobwire/internal/events"
)

var ctx = context.Background()

func contextWithTimeout(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, d)
}

// wide limits keep everything.
var wide = delivery.Limits{Messages: 1 << 30, MessagesBytes: 1 << 40, Jobs: 1 << 20, JobsBytes: 1 << 40}

func mustOpen(t testing.TB, dir string, opts Options) *Store {
	t.Helper()
	if opts.Logger == nil {
		opts.Logger = quiet
	}
	opts.checkEvery = max(opts.checkEvery, 5*time.Millisecond)
	s, err := Open(dir, wide, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = closeWithin(s, 5*time.Second) })
	return s
}

func note() delivery.Entry {
	return delivery.Entry{Event: events.Event{Name: "note", Data: json.RawMessage(`{"n":1}`)}}
}

func progressOf(job string) delivery.Entry {
	return delivery.Entry{Event: events.Event{
		Name: events.JobProgress, Kind: events.Progress, JobID: job, Data: json.RawMessage(`{"p":1}`),
	}}
}

func post(s *Store, user string, e delivery.Entry) (events.ID, error) {
	ds, err := s.Publish(ctx, user, []delivery.Entry{e})
	if err != nil {
		return events.ID{}, err
	}
	return ds[0].Place, nil
}

func mustPost(t testing.TB, s *Store, user string, e delivery.Entry) events.ID {
	t.Helper()
	id, err := post(s, user, e)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// seen reads all places that a new client would see.
func seen(s *Store, user string) (ids []events.ID, err error) {
	q := delivery.Query{UserID: user, Limit: 500, Bytes: 1 << 20}
	for {
		p, err := s.Read(ctx, q)
		if err != nil {
			return nil, err
		}
		for _, r := range p.Records {
			ids = append(ids, r.Place)
		}
		if q.Next = p.Next; q.Next == nil {
			return ids, nil
		}
	}
}

func expectSeen(t testing.TB, s *Store, user string, want ...events.ID) {
	t.Helper()
	got, err := seen(s, user)
	if err != nil || !slices.Equal(got, want) {
		t.Fatalf("%s sees %v, %v, want %v", user, got, err, want)
	}
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

// returns fails the test when fn hangs.
func returns(t testing.TB, what string, fn func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		fn()
	}()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatalf("%s hangs", what)
	}
}

// faults is a file system that fails or hangs on demand.
type faults struct {
	mu    sync.Mutex
	fail  func(op errorfs.Op) error
	hold  func(op errorfs.Op) bool
	until chan struct{}
	held  int
}

func (f *faults) over(inner vfs.FS) vfs.FS {
	return errorfs.Wrap(inner, errorfs.InjectorFunc(func(op errorfs.Op) error {
		f.mu.Lock()
		fail, hold, until := f.fail, f.hold, f.until
		if hold != nil && hold(op) {
			f.held++
			f.mu.Unlock()
			<-until
			f.mu.Lock()
		}
		f.mu.Unlock()
		if fail != nil {
			return fail(op)
		}
		return nil
	}))
}

// set makes operations fail from now on; nil ends that.
func (f *faults) set(fail func(op errorfs.Op) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = fail
}

// block makes operations hang until release, at the latest until the test ends.
func (f *faults) block(t *testing.T, hold func(op errorfs.Op) bool) (release func()) {
	until := make(chan struct{})
	f.mu.Lock()
	f.hold, f.until, f.held = hold, until, 0
	f.mu.Unlock()
	release = sync.OnceFunc(func() {
		f.mu.Lock()
		f.hold = nil
		f.mu.Unlock()
		close(until)
	})
	t.Cleanup(release)
	return release
}

// holding reports whether something hangs.
func (f *faults) holding() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.held > 0
}

var errDisk = errors.New("no space left on device")

func isSync(op errorfs.Op) bool {
	return op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData
}

func writes(op errorfs.Op) bool {
	return op.Kind.ReadOrWrite() == errorfs.OpIsWrite && op.Kind != errorfs.OpFileClose
}

// hearer is a feed that counts.
type hearer struct {
	mu   sync.Mutex
	told map[string][]events.ID
	prev map[string]events.ID
	bad  []string
	lost map[string]int // by user: how many places it had been told then
}

func newHearer() *hearer {
	return &hearer{told: make(map[string][]events.ID), prev: make(map[string]events.ID), lost: make(map[string]int)}
}

func (h *hearer) Lost(user string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lost[user] = len(h.told[user])
}

func (h *hearer) Deliver(d *delivery.Delivery) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if told := h.told[d.UserID]; len(told) > 0 && d.Place.Compare(told[len(told)-1]) <= 0 {
		h.bad = append(h.bad, fmt.Sprintf("%s after %s", d.Place, told[len(told)-1]))
	}
	h.told[d.UserID] = append(h.told[d.UserID], d.Place)
	if d.Emission != nil {
		d.Emission.Tell(1, false)
	}
	return false
}

func (h *hearer) places(user string) []events.ID {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.told[user])
}

func (h *hearer) Run(string)                 {}
func (h *hearer) Confirmed(delivery.Cursor)  {}
func (h *hearer) Disconnect(_, _ string) int { return 0 }
func (h *hearer) Sockets(string) int         { return 1 }

// closeWithin closes the store, whose disk may hang.
func closeWithin(s *Store, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return s.Close(ctx)
}
