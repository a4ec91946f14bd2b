package embedded

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	"go.etcd.io/bbolt"

	"jobwire/internal/delivery"
)

// Options are the knobs of a Bolt store.
type Options struct {
	// WriteBehind is how long progress and receipts may wait before they go
	// to the disk; 200 ms. kill -9 loses at most that much of them.
	WriteBehind time.Duration
	// Now is the clock; time.Now.
	Now func() time.Time
	// Logger takes facts about failing and recovering disks; slog.Default().
	Logger *slog.Logger

	// beforeCommit stands in for a disk that fails, in tests.
	beforeCommit func() error
}

// Bolt is a store in one file. A durable event is on the disk before its
// Publish returns; the calls of many share one commit.
type Bolt struct {
	limits delivery.Limits
	opts   Options
	path   string

	mu      sync.Mutex // guards all below; not held while the disk is written
	db      *bbolt.DB  // nil after a failure, until the file could be opened again
	top     *table     // decided, not on its way to the disk
	under   *table     // on its way; nil when nothing is
	group   *group     // the commit that will carry top
	carried *group     // the commit that carries under; nil when there is none
	floor   uint64     // no id is below this ms
	highest uint64     // the highest ms of an id given out
	ceiling uint64     // on the disk: ids below this ms may be given out
	failing bool       // the last commit failed: nothing is answered before its commit
	armed   bool       // the loop knows that something waits for the write-behind
	closed  bool
	swept   []byte // where the next step of the sweep begins; nil at the start
	commits uint64
	failed  uint64

	urgent chan struct{} // somebody waits for a commit
	dirty  chan struct{} // something waits for the next write-behind
	quit   chan struct{}
	ended  chan struct{} // the commit loop has
}

var _ delivery.Store = (*Bolt)(nil)

// group is one commit and those who wait for it.
type group struct {
	done chan struct{} // closed when err is set
	err  error
}

func newGroup() *group { return &group{done: make(chan struct{})} }

var bucketName = []byte("jobwire")

const (
	// FileName is the name of the store's file in the data directory.
	FileName = "jobwire.db"

	filePageSize = 4096
	fileFormat   = 1

	// lockWait is how long Open waits for another process to let go.
	lockWait = 100 * time.Millisecond

	// maxUnwritten bounds the tables: above it, progress waits for its commit.
	maxUnwritten = 32 << 20

	// ceilingAhead is how many ms of ids a commit allows ahead of the clock.
	// Progress is answered before it is on the disk, so a crash may forget
	// ids that clients have seen. The ceiling keeps new ids above them.
	ceilingAhead = 4000
)

// Errors of Open, wrapped with the path.
var (
	ErrLocked  = errors.New("the data file is in use by another process")
	ErrDamaged = errors.New("the data file is damaged")
	errClosed  = errors.New("the store is closed")
)

// Open opens the store in a directory, and makes both when they do not exist.
// The file is read only where it must be, however large it is: a few pages,
// unless a crash left it with very much free space.
func Open(dir string, limits delivery.Limits, opts Options) (*Bolt, error) {
	if opts.WriteBehind <= 0 {
		opts.WriteBehind = 200 * time.Millisecond
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	s := &Bolt{
		limits: limits.WithDefaults(),
		opts:   opts,
		path:   filepath.Join(dir, FileName),
		top:    newTable(),
		group:  newGroup(),
		urgent: make(chan struct{}, 1),
		dirty:  make(chan struct{}, 1),
		quit:   make(chan struct{}),
		ended:  make(chan struct{}),
	}
	if _, err := os.Stat(s.path); errors.Is(err, os.ErrNotExist) {
		if err := create(s.path); err != nil {
			return nil, fmt.Errorf("new data file %s: %w", s.path, err)
		}
	}
	if err := s.open(); err != nil {
		return nil, fmt.Errorf("%s: %w", s.path, err)
	}
	go s.run()
	return s, nil
}

// open opens the file and takes over what it says about ids.
func (s *Bolt) open() (err error) {
	db, err := openFile(s.path)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = db.Close()
		}
	}()
	f := file{db: db}
	defer f.close()
	defer guard(&err)
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	if b := f.get(keyFormat); !bytes.Equal(b, []byte{fileFormat}) {
		return fmt.Errorf("the file has format %v, this program knows %d", b, fileFormat)
	}
	for _, key := range [][]byte{keyFloor, keyCeiling} {
		if b := f.get(key); b != nil {
			s.floor = max(s.floor, must(decodeMs(b)))
		}
	}
	if s.floor == 0 { // a new file: what clients remember of another one is below it
		s.floor = millis(s.opts.Now())
	}
	s.ceiling = s.floor
	s.highest = max(s.highest, s.floor)
	s.db = db
	return nil
}

func (s *Bolt) rules(v *view) *rules {
	return &rules{space: v, limits: s.limits, now: millis(s.opts.Now()), floor: s.floor}
}

// change runs fn over the current state and keeps what it changed, or nothing
// of it. It returns the commit to wait for before the result may be told;
// nil when there is nothing to wait for.
func (s *Bolt) change(fn func(r *rules)) (wait *group, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errClosed
	}
	if s.db == nil {
		notify(s.urgent) // the loop tries to open it again
		return nil, ErrDamaged
	}
	f := &file{db: s.db}
	defer f.close()
	v := &view{top: s.top, under: s.under, file: f}
	r := s.rules(v)
	if err := protect(func() { fn(r) }); err != nil {
		v.rollback()
		return nil, err
	}
	s.floor = max(s.floor, r.floor)
	s.highest = max(s.highest, r.highest)
	if !r.durable && !s.failing && r.highest < s.ceiling && s.top.bytes < maxUnwritten {
		if len(v.undo) > 0 && !s.armed {
			s.armed = true
			notify(s.dirty)
		}
		return nil, nil
	}
	if s.top.size() == 0 {
		return s.carried, nil // everything decided is on the disk, or on its way
	}
	notify(s.urgent)
	return s.group, nil
}

// protect turns panics about damaged data, and faults of the memory map when
// the file shrinks or its disk fails, into errors.
func protect(fn func()) (err error) {
	defer guard(&err)
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	fn()
	return nil
}

func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// wait waits for a commit; a nil group needs none.
func (g *group) wait() error {
	if g == nil {
		return nil
	}
	<-g.done
	return g.err
}

// Publish implements delivery.Store.
func (s *Bolt) Publish(ctx context.Context, entries []delivery.Entry) ([]delivery.Decision, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	decisions := make([]delivery.Decision, len(entries))
	g, err := s.change(func(r *rules) {
		for i := range entries {
			decisions[i] = r.decide(&entries[i])
		}
	})
	if err == nil {
		err = g.wait()
	}
	if err != nil {
		return nil, err
	}
	return decisions, nil
}

// Settle implements delivery.Store.
func (s *Bolt) Settle(_ context.Context, settlements []delivery.Settlement) error {
	g, err := s.change(func(r *rules) {
		for i := range settlements {
			r.settle(&settlements[i])
		}
	})
	if err != nil {
		return err
	}
	return g.wait()
}

// Due implements delivery.Store.
func (s *Bolt) Due(_ context.Context, limit int) (jobs []delivery.DueJob, first time.Time, err error) {
	_, err = s.change(func(r *rules) {
		var ms uint64
		jobs, ms = r.due(limit)
		first = dueTime(ms)
	})
	return jobs, first, err
}

// Close writes what is not on the disk yet and closes the file.
func (s *Bolt) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	close(s.quit)
	<-s.ended
	err := s.last()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.db != nil {
		err = errors.Join(err, s.db.Close())
		s.db = nil
	}
	return err
}
