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

	fs           vfs.FS // stands in for the disk, in tests
	beforeCommit func() error
	checkEvery   time.Duration // of the health check; 1 s
	stuckAfter   time.Duration // of a write; 10 s
	closeWait    time.Duration // how long Close waits for calls and for the disk; 5 s
	cacheBytes   int
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

	current  atomic.Pointer[instance] // nil while there is none that works
	full     atomic.Bool              // Options.MaxBytes is reached
	removed  atomic.Int64             // bytes that sweeps have removed since the last compaction
	sweeping atomic.Bool              // a sweep goes on, or has more to do
	health   health

	subsMu sync.Mutex // of changes
	feeds  atomic.Pointer[[]*subscription]

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
	if opts.WriteBehind <= 0 {
		opts.WriteBehind = 500 * time.Millisecond
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	opts.checkEvery = cmp.Or(opts.checkEvery, time.Second)
	opts.stuckAfter = cmp.Or(opts.stuckAfter, 10*time.Second)
	opts.closeWait = cmp.Or(opts.closeWait, 5*time.Second)
	opts.cacheBytes = cmp.Or(opts.cacheBytes, cacheBytes)
	s = &Store{
		limits: limits.WithDefaults(), opts: opts, fs: opts.fs, dir: dir, durable: durable, closing: make(chan struct{}),
	}
	s.health.ended = make(chan struct{})
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
		return nil, errors.Join(fmt.Errorf("%s: %w", dir, err), s.lock.Close())
	}
	s.install(in)
	go s.watch()
	return s, nil
}

// openInstance opens the directory, or makes a new store in it.
func (s *Store) openInstance() (*instance, error) {
	fresh, err := prepare(s.fs, s.dir)
	if err != nil {
		return nil, err
	}
	in, err := newInstance(s, fresh)
	if err != nil {
		if !fresh && !errors.Is(err, ErrDamaged) && !errors.Is(err, errWrite) && isDamage(err) {
			err = fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		return nil, err
	}
	if fresh {
		if err := writeFile(s.fs, s.dir, markerName, markerText); err != nil {
			in.abort()
			return nil, err
		}
	}
	return in, nil
}

// Close writes what is not on the disk yet and closes the directory. When the disk hangs it gives up
// after 5 s.
func (s *Store) Close() (err error) {
	s.closed.Do(func() {
		close(s.closing)
		in := s.current.Swap(nil)
		ctx, cancel := context.WithTimeout(context.Background(), s.opts.closeWait)
		defer cancel()
		if in != nil {
			if err = within(ctx, func() error { return in.close(ctx) }); err != nil {
				in.fail(err)
			}
		}
		_ = within(ctx, func() error { // what it still does for a failed instance
			<-s.health.ended
			untilZero(ctx, &s.health.busy)
			return nil
		})
		err = errors.Join(err, within(ctx, s.lock.Close))
	})
	return err
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

// close ends an instance that works.
func (in *instance) close(ctx context.Context) error {
	if untilZero(ctx, &in.calls); ctx.Err() != nil {
		return ctx.Err()
	}
	close(in.flusher.stop)
	<-in.flusher.ended
	err := in.flusher.flush()
	close(in.commits.stop)
	<-in.commits.ended
	if err != nil || in.isDead() {
		return in.unavailable()
	}
	// What was given out is known now, and a log without content has nothing that could be damaged at rest.
	err = in.protect(func() error {
		if in.s.durable {
			highest := max(in.floor.Load(), in.highest.Load()+1)
			if err := in.db.Set(keyCeiling, encodeNumber(highest), syncWrite); err != nil {
				return err
			}
			if err := in.db.Flush(); err != nil {
				return err
			}
		}
		return in.db.Close()
	})
	if err == nil && in.isDead() {
		err = in.cause
	}
	return err
}

func (s *Store) clock() uint64 { return uint64(max(s.opts.Now().UnixMilli(), 0)) }

// unavailable is the error of calls while there is no instance that works.
func (s *Store) unavailable() error {
	select {
	case <-s.closing:
		return delivery.ErrClosed
	default:
	}
	if cause := s.health.reason(); cause != nil {
		return fmt.Errorf("%w: %w", delivery.ErrStoreUnavailable, cause)
	}
	return delivery.ErrStoreUnavailable
}
