package embedded

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
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
	commits     committer
	flusher     flusher
	running     sync.WaitGroup // committer and flusher
	stop        chan struct{}  // closed when nothing will be written any more

	floor   atomic.Uint64 // no place is below this ms: users that were forgotten had places below it
	ceiling atomic.Uint64 // on the disk: places below this ms may be given out
	highest atomic.Uint64 // the highest ms of a place given out
	due     atomic.Uint64 // no deadline on the disk is before it, in ms

	lost     sync.Map      // by name the users of whom something may be on the disk that no feed was told
	calls    atomic.Int64  // of callers that are inside, and of what was left behind in pebble
	dead     chan struct{} // closed by fail
	once     sync.Once
	cause    error // set before dead is closed
	reported sync.Once
}

// openInstance opens the directory, or makes a new store in it. It may hang with the disk.
func (s *Store) openInstance() (*instance, error) {
	fresh, err := prepare(s.fs, s.dir)
	if err != nil {
		return nil, err
	}
	in := &instance{s: s, dead: make(chan struct{}), stop: make(chan struct{})}
	in.users.init(s.opts.cacheBytes)
	in.commits.in, in.commits.wake = in, make(chan struct{}, 1)
	in.flusher.in = in
	if in.fence, err = newFence(in); err != nil {
		return nil, err
	}
	s.fence = in.fence
	err = in.aside(func() (err error) {
		if in.db, err = pebble.Open(s.dir, in.options(fresh)); err != nil {
			return err
		}
		b, err := in.get(keyCeiling)
		switch {
		case err != nil:
			return err
		case b == nil && !fresh:
			return fmt.Errorf("%w: it has no ceiling", ErrDamaged)
		case b == nil:
			// What clients remember of another directory is below the clock.
			now := number(in.clock())
			if old := s.current.Load(); old != nil { // in memory: nor may places come twice
				now = max(now, number(old.floor.Load()), number(old.highest.Load()+1))
			}
			b = new(codec).encode(&now)
			if err := in.db.Set(keyCeiling, b, &pebble.WriteOptions{Sync: s.durable}); err != nil {
				return err
			}
		}
		var ceiling number
		new(codec).decode(b, "the ceiling", &ceiling)
		in.floor.Store(uint64(ceiling))
		in.ceiling.Store(uint64(ceiling))
		return nil
	})
	if !fresh && err != nil && !errors.Is(err, ErrDamaged) && !errors.Is(err, errWrite) && isDamage(err) {
		err = fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if err == nil && fresh {
		err = writeFile(s.fs, s.dir, markerName, markerText, true)
	}
	if err != nil {
		in.fail(err)
		s.bury(in)
		return nil, err
	}
	in.compactions.start()
	return in, nil
}

// isDamage reports whether an error of Open is about what is in the directory, not about reaching it.
func isDamage(err error) bool {
	var errno syscall.Errno
	return errors.Is(err, fs.ErrNotExist) || !errors.As(err, &errno)
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
	in.compactions.ConcurrencyLimitScheduler = pebble.NewConcurrencyLimitSchedulerWithNoPeriodicGrantingForTest()
	o.Experimental.CompactionScheduler = &in.compactions
	o.Experimental.TombstoneDenseCompactionThreshold = 0.7 // a log at its limit is half tombstones
	for i := range o.Levels {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	return o
}

// compactions lets pebble compact only when the directory is open: pebble does not wait for compactions when it cannot be
// opened after all. Its own scheduler grants one at a time, and needs no goroutine, since that limit never changes.
type compactions struct {
	*pebble.ConcurrencyLimitScheduler
	open atomic.Bool
}

// TrySchedule implements pebble.CompactionScheduler.
func (c *compactions) TrySchedule() (bool, pebble.CompactionGrantHandle) {
	if !c.open.Load() {
		return false, nil
	}
	return c.ConcurrencyLimitScheduler.TrySchedule()
}

// start allows compactions. The end of one, even if there was none, grants those that were refused.
func (c *compactions) start() {
	c.open.Store(true)
	if ok, granted := c.TrySchedule(); ok {
		granted.Done()
	}
}

// start makes the instance the store's current one.
func (in *instance) start() {
	in.running.Go(in.commits.run)
	in.running.Go(in.flusher.run)
	in.s.current.Store(in)
}

// close ends an instance that works.
func (in *instance) close(ctx context.Context) error {
	if untilZero(ctx, &in.calls); ctx.Err() != nil {
		return ctx.Err()
	}
	if err := in.flusher.flush(); err != nil {
		return err
	}
	close(in.stop)
	in.running.Wait()
	in.compactions.open.Store(false) // pebble would wait for what the flush below sets off
	return in.protect(func() error {
		if in.s.durable {
			// What was given out is known now, and a log without content has nothing that could be damaged at rest.
			highest := number(max(in.floor.Load(), in.highest.Load()+1))
			if err := in.db.Set(keyCeiling, new(codec).encode(&highest), pebble.Sync); err != nil {
				return err
			}
			if err := in.db.Flush(); err != nil {
				return err
			}
		}
		return in.db.Close()
	})
}

// enter lets a call in, leave ends it.
func (s *Store) enter(ctx context.Context) (in *instance, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	in = s.current.Load()
	in.calls.Add(1)
	select {
	case <-s.closing:
		err = delivery.ErrClosed
	default:
		if !in.isDead() {
			return in, nil
		}
		err = in.unavailable()
	}
	in.leave()
	return nil, err
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
		close(in.dead)
	})
}

// unavailable is the error of calls that the instance's end has met.
func (in *instance) unavailable() error {
	return fmt.Errorf("%w: %w", delivery.ErrStoreUnavailable, in.cause)
}

// protect runs what calls pebble. Panics of pebble and of readers of records become errors, and once the instance has ended
// nothing that pebble says is true.
func (in *instance) protect(fn func() error) (err error) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case damage:
			err = fmt.Errorf("%w: %w", ErrDamaged, p)
		case error:
			err = fmt.Errorf("panic: %w", p)
		default:
			err = fmt.Errorf("panic: %v", p)
		}
		if pebble.IsCorruptionError(err) && !errors.Is(err, ErrDamaged) {
			err = fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		if err == nil && in.isDead() {
			err = in.cause
		}
	}()
	return guarded(fn)
}

// guarded runs fn for protect. Its name in a stack tells pebbleLog that a panic will be caught.
//
//go:noinline
func guarded(fn func() error) error { return fn() }

// aside is protect in a goroutine of its own. When the instance ends first, what may hang there is left behind: fn must
// change nothing that its caller touches after an error.
func (in *instance) aside(fn func() error) error {
	done := make(chan error, 1)
	in.calls.Add(1)
	go func() {
		defer in.leave()
		done <- in.protect(fn)
	}()
	select {
	case err := <-done:
		return err
	case <-in.dead:
		return in.cause
	}
}

// read is aside for what reads the disk: a failure, or a read that hangs, ends the instance, and the caller gets the error to
// return.
func (in *instance) read(fn func() error) error {
	limit := in.s.opts.stuckAfter
	defer time.AfterFunc(limit, func() { in.fail(fmt.Errorf("a read takes longer than %s", limit)) }).Stop()
	if err := in.aside(fn); err != nil {
		in.fail(err)
		return in.unavailable()
	}
	return nil
}

// clock is the time in ms.
func (in *instance) clock() uint64 { return uint64(max(in.s.opts.Now().UnixMilli(), 0)) }

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
	pcs := make([]uintptr, 128)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(1, pcs)])
	for frame, more := frames.Next(); more; frame, more = frames.Next() {
		if strings.HasSuffix(frame.Function, "/embedded.guarded") {
			panic(err)
		}
	}
	select {}
}
