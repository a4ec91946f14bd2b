// Package embedded is the store without a service beside the process: on the disk or in memory, both over pebble, an LSM
// tree. In memory it is the same store over a file system in memory, without a log.
//
// Whoever reads it begins with publish.go: a call locks its user, decides about its entries, hands what must be on the disk
// to the committer (commit.go), and tells the feeds when it is. What is decided about is in memory: the user's record and all
// its jobs (users.go); the data of messages stays on the disk.
//
// An [instance] is one opening of the directory. A failed write, damage, a missing file or a disk that hangs ends it:
// everything decided on top of what the disk has is forgotten with it, every call fails at once, and the store opens the
// directory anew (health.go).
//
// Locks, in the order in which they are taken: a user's lock; then one of the mutexes of a shard, the committer, the list of
// dirty users. No two of the latter at once, and none while the disk is waited for. A user's lock is held while its records
// are read, never while a commit is waited for.
package embedded

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"jobwire/internal/delivery"
)

// Options are the knobs of a store.
type Options struct {
	// WriteBehind is how long progress and receipts may wait before they go to the disk; 500 ms. kill -9 loses at most that
	// much of them.
	WriteBehind time.Duration
	// MaxBytes is how large the directory may grow before events are refused; 0 for no bound but the disk's.
	MaxBytes int64
	// Now is the clock; time.Now.
	Now func() time.Time
	// Logger takes facts about the disk; slog.Default().
	Logger *slog.Logger
	// OnSync is told how long each write to the disk took. It must not block.
	OnSync func(time.Duration)

	// For tests.
	fs         vfs.FS        // stands in for the disk
	checkEvery time.Duration // of the health check; 1 s
	stuckAfter time.Duration // of a write or a read; 10 s
	cacheBytes int
}

// Store is a store in a directory, or in memory. A message is on the disk before its Publish returns; the calls of many
// share one write.
type Store struct {
	limits  delivery.Limits
	opts    Options
	fs      vfs.FS
	dir     string
	durable bool // there is a disk
	lock    io.Closer

	fence    *fence                   // the latest that changed the directory, also for an instance that did not open; Open's, then watch's
	current  atomic.Pointer[instance] // the latest that worked; while it is dead there is none that works
	unclosed atomic.Int64             // instances that have ended and are not closed yet
	health   health
	ended    chan struct{} // closed when health is not watched any more

	audience   atomic.Pointer[audience]
	audienceMu sync.Mutex // of changes

	closing chan struct{}
	closed  sync.Once
}

var _ delivery.Store = (*Store)(nil)

// Open opens the store in a directory, and makes both when they do not exist.
func Open(dir string, limits delivery.Limits, opts Options) (*Store, error) {
	if opts.fs == nil {
		opts.fs = vfs.Default
	}
	return open(dir, limits, opts, true)
}

// OpenMemory opens an empty store that keeps nothing over its end.
func OpenMemory(limits delivery.Limits, opts Options) (*Store, error) {
	opts.fs = vfs.NewMem()
	return open("data", limits, opts, false)
}

func open(dir string, limits delivery.Limits, opts Options, durable bool) (s *Store, err error) {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	opts.WriteBehind = cmp.Or(opts.WriteBehind, 500*time.Millisecond)
	opts.Logger = cmp.Or(opts.Logger, slog.Default())
	opts.checkEvery = cmp.Or(opts.checkEvery, time.Second)
	opts.stuckAfter = cmp.Or(opts.stuckAfter, 10*time.Second)
	opts.cacheBytes = cmp.Or(opts.cacheBytes, cacheBytes)
	s = &Store{
		limits: limits.WithDefaults(), opts: opts, fs: opts.fs, dir: dir, durable: durable,
		closing: make(chan struct{}), ended: make(chan struct{}),
	}
	s.audience.Store(new(audience))
	if err := s.fs.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	if s.lock, err = s.fs.Lock(s.fs.PathJoin(dir, lockName)); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", dir, ErrLocked, err)
	}
	in, err := s.openInstance()
	if err != nil {
		if errors.Is(err, ErrDamaged) {
			err = fmt.Errorf("%w; %s", err, remedy)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		return nil, errors.Join(fmt.Errorf("%s: %w", dir, err), s.unlock(ctx))
	}
	in.start()
	go s.watch(in)
	return s, nil
}

// Close writes what is not on the disk yet and closes the directory. When ctx ends before, the disk hangs perhaps: Close gives up
// and leaves behind what still waits for it.
func (s *Store) Close(ctx context.Context) (err error) {
	s.closed.Do(func() {
		close(s.closing)
		_ = within(ctx, func() error { <-s.ended; return nil }) // no other instance begins
		in := s.current.Load()
		if !in.isDead() {
			err = within(ctx, func() error { return in.close(ctx) })
		}
		if err != nil {
			in.fail(err)
		}
		if in.isDead() {
			s.failed(in)
		}
		err = errors.Join(err, s.unlock(ctx))
	})
	return err
}

// unlock gives the directory back, when nothing of the store moves any more or ctx ends.
func (s *Store) unlock(ctx context.Context) error {
	untilZero(ctx, &s.unclosed)
	return within(ctx, s.lock.Close)
}

// within runs what may hang with the disk, and leaves it behind when ctx ends.
func within(ctx context.Context, fn func() error) error {
	done := make(chan error, 1)
	go func() { done <- fn() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("the disk does not answer: %w", ctx.Err())
	}
}

// untilZero waits for a counter of what goes on.
func untilZero(ctx context.Context, n *atomic.Int64) {
	for tick := time.NewTicker(time.Millisecond); n.Load() > 0 && ctx.Err() == nil; <-tick.C {
	}
}

// Ready says whether events can be stored.
func (s *Store) Ready() error {
	in, err := s.enter(context.Background())
	if err == nil {
		in.leave()
	}
	return err
}

// Stats says how the store does.
type Stats struct {
	Syncs     uint64 // writes of the log that waited for the disk
	Failures  uint64 // of the store, each ended by opening the directory anew
	Size      int64  // bytes of the directory; as of the last check
	Free      int64  // of them, bytes that are being given back
	Unwritten int    // users with progress or cursors that are not written yet
	Failing   bool   // events are refused now
}

// Stats reads the figures.
func (s *Store) Stats() Stats {
	h, in := &s.health, s.current.Load()
	return Stats{
		Syncs: h.syncs.Load(), Failures: h.failures.Load(), Size: h.size.Load(), Free: h.free.Load(),
		Unwritten: in.flusher.size(), Failing: in.isDead(),
	}
}

// Backup makes a copy of the store in a directory that does not exist yet, while the store goes on. The copy is a data
// directory, and holds whatever was answered before Backup began. On the same file system it takes little space at first.
func (s *Store) Backup(ctx context.Context, dir string) error {
	in, err := s.enter(ctx)
	if err != nil {
		return err
	}
	defer in.leave()
	if !s.durable {
		return errors.New("a store in memory has nothing to copy")
	}
	if err := in.flusher.flush(); err != nil { // progress and cursors
		return err
	}
	// Errors of the copy are no failure of the store.
	err = in.protect(func() error { return in.db.Checkpoint(dir, pebble.WithFlushedWAL()) })
	if err == nil {
		err = writeFile(s.fs, dir, markerName, markerText, true)
	}
	switch {
	case in.isDead():
		return in.unavailable()
	case err != nil:
		return fmt.Errorf("backup to %s: %w", dir, err)
	}
	return nil
}
