package embedded

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"

	"jobwire/internal/delivery"
)

// instance is one opening of the directory, from Open or a recovery to Close or a failure. What is in memory of users
// belongs to it and goes with it.
type instance struct {
	s           *Store
	fence       *fence
	db          *pebble.DB
	compactions compactions
	users       cache
	commits     *committer
	flusher     *flusher

	floor   atomic.Uint64 // no place is below this ms: users that were forgotten had places below it
	ceiling atomic.Uint64 // on the disk: places below this ms may be given out
	highest atomic.Uint64 // the highest ms of a place given out
	due     atomic.Uint64 // no deadline on the disk is before it, in ms

	lost  sync.Map      // by name the users of whom something may be on the disk that no feed was told
	calls atomic.Int64  // of callers that are inside
	dead  chan struct{} // closed by fail
	once  sync.Once
	cause error // set before dead is closed

	started  atomic.Bool // by now the store must be told of a failure
	reported sync.Once
	burial   sync.Once
}

// newInstance opens the directory. It may hang with the disk.
func newInstance(s *Store, fresh bool) (in *instance, err error) {
	in = &instance{s: s, dead: make(chan struct{})}
	in.users.init(s.opts.cacheBytes)
	in.commits = newCommitter(in)
	in.flusher = newFlusher(in)
	if in.fence, err = newFence(s.fs, s.dir, in.fail); err != nil {
		return nil, err
	}
	if err := in.open(fresh); err != nil {
		return nil, err
	}
	err = in.protect(func() (err error) {
		b, closer, err := in.db.Get(keyCeiling)
		switch {
		case errors.Is(err, pebble.ErrNotFound) && fresh:
			// What clients remember of another directory is below the clock.
			in.floor.Store(in.clock())
			return in.db.Set(keyCeiling, encodeNumber(in.clock()), &pebble.WriteOptions{Sync: s.durable})
		case errors.Is(err, pebble.ErrNotFound):
			return fmt.Errorf("%w: it has no ceiling", ErrDamaged)
		case err != nil:
			return err
		}
		in.floor.Store(decodeNumber(b))
		return closer.Close()
	})
	if err == nil && in.isDead() {
		err = in.cause
	}
	if err != nil {
		in.abort()
		return nil, err
	}
	in.ceiling.Store(in.floor.Load())
	in.compactions.start()
	return in, nil
}

// open opens pebble. When the instance ends meanwhile, what hangs in there is left behind.
func (in *instance) open(fresh bool) error {
	opened := make(chan error, 1)
	go func() {
		opened <- in.protect(func() (err error) {
			in.db, err = pebble.Open(in.s.dir, in.options(fresh))
			return err
		})
	}()
	select {
	case err := <-opened:
		if err != nil {
			in.fence.shut.Store(true)
		}
		return err
	case <-in.dead:
	}
	h := &in.s.health
	h.leave(1)
	go func() {
		if <-opened == nil {
			in.abort()
		}
		h.leave(-1)
	}()
	return in.cause
}

// abort closes an instance that was never used.
func (in *instance) abort() {
	in.fence.shut.Store(true)
	_ = in.protect(in.db.Close)
}

func (in *instance) options(fresh bool) *pebble.Options {
	o := &pebble.Options{
		FS:                    in.fence,
		Logger:                pebbleLog{in},
		ErrorIfNotExists:      !fresh,
		DisableWAL:            !in.s.durable,
		FormatMajorVersion:    pebble.FormatTableFormatV6, // tells a damaged log from a torn tail, and checks footers too
		CacheSize:             8 << 20,
		MemTableSize:          8 << 20,
		L0CompactionThreshold: 8,
		LBaseMaxBytes:         16 << 20,
		MaxOpenFiles:          500,
		EventListener: &pebble.EventListener{
			BackgroundError: func(err error) {
				in.fail(err)
				time.Sleep(100 * time.Millisecond) // pebble tries again at once, until it is closed
			},
			DataCorruption: func(info pebble.DataCorruptionInfo) {
				in.fail(fmt.Errorf("%w: %s: %w", ErrDamaged, info.Path, info.Details))
			},
		},
	}
	o.Experimental.CompactionScheduler = &in.compactions
	o.Experimental.TombstoneDenseCompactionThreshold = 0.7 // a log at its limit is half tombstones
	for i := range o.Levels {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	return o
}

// install makes an instance the store's current one.
func (s *Store) install(in *instance) {
	go in.commits.run()
	go in.flusher.run()
	in.started.Store(true)
	s.current.Store(in)
	if in.isDead() { // before it could be told
		s.failed(in)
	}
}

// enter lets a call in, leave ends it.
func (s *Store) enter(ctx context.Context) (*instance, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	in := s.current.Load()
	if in == nil {
		return nil, s.unavailable()
	}
	in.calls.Add(1)
	if in.isDead() || s.current.Load() != in {
		in.leave()
		return nil, s.unavailable()
	}
	return in, nil
}

func (in *instance) leave() { in.calls.Add(-1) }

func (in *instance) isDead() bool {
	select {
	case <-in.dead:
		return true
	default:
		return false
	}
}

// fail ends the instance: from here on nothing of it reaches a file or a feed, and every call fails. It is safe to call from
// everywhere, also from within pebble.
func (in *instance) fail(cause error) {
	in.once.Do(func() {
		in.cause = cause
		close(in.dead) // before the fence begins to lie
		in.fence.shut.Store(true)
		if in.started.Load() {
			in.s.failed(in)
		}
	})
}

// unavailable is the error of calls that the instance's end has met.
func (in *instance) unavailable() error {
	return fmt.Errorf("%w: %w", delivery.ErrStoreUnavailable, in.cause)
}

// guarded runs fn for protect. Its name in a stack tells pebbleLog that a panic will be caught.
//
//go:noinline
func guarded(fn func() error) error { return fn() }

// protect runs what calls pebble. Panics of pebble and of readers of records become errors, and every error but those that
// just say no ends the instance.
func (in *instance) protect(fn func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			switch p := p.(type) {
			case damage:
				err = fmt.Errorf("%w: %w", ErrDamaged, p)
			case error:
				err = fmt.Errorf("panic: %w", p)
			default:
				err = fmt.Errorf("panic: %v", p)
			}
		}
		if pebble.IsCorruptionError(err) && !errors.Is(err, ErrDamaged) {
			err = fmt.Errorf("%w: %w", ErrDamaged, err)
		}
	}()
	return guarded(fn)
}

// read is protect for the calls of others: a failure ends the instance, and the caller gets the error to return.
func (in *instance) read(fn func() error) error {
	if err := in.protect(fn); err != nil {
		in.fail(err)
		return in.unavailable()
	}
	return nil
}

// wait waits for a round. Without a ctx it waits for the outcome, however long that takes.
func (in *instance) wait(ctx context.Context, r *round) error {
	if r.over() {
		return nil
	}
	var cancelled <-chan struct{}
	if ctx != nil {
		cancelled = ctx.Done()
	}
	select {
	case <-r.done:
		return nil
	case <-cancelled:
		return ctx.Err()
	case <-in.dead:
		return in.unavailable()
	}
}

var syncWrite = &pebble.WriteOptions{Sync: true}

// clock is the time in ms.
func (in *instance) clock() uint64 { return in.s.clock() }

// pebbleLog is pebble's logger.
type pebbleLog struct{ in *instance }

// Infof implements pebble.Logger.
func (l pebbleLog) Infof(format string, args ...any) {
	l.in.s.opts.Logger.Debug("pebble", "text", fmt.Sprintf(format, args...))
}

// Errorf implements pebble.Logger.
func (l pebbleLog) Errorf(format string, args ...any) {
	l.in.s.opts.Logger.Debug("pebble", "error", fmt.Sprintf(format, args...))
}

// Fatalf implements pebble.Logger. It must neither end the process nor return. The instance is over; where protect will catch
// it, Fatalf panics, and in a goroutine of pebble's own it stops that goroutine for good, with its locks. What a disk can do
// does not come this far: see fence.
func (l pebbleLog) Fatalf(format string, args ...any) {
	err := fmt.Errorf(format, args...)
	l.in.fail(err)
	if isGuarded() {
		panic(err)
	}
	select {}
}

func isGuarded() bool {
	pcs := make([]uintptr, 128)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs)])
	for {
		frame, more := frames.Next()
		if strings.HasSuffix(frame.Function, "/embedded.guarded") {
			return true
		}
		if !more {
			return false
		}
	}
}
