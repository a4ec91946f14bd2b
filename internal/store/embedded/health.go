package embedded

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

const (
	// maxAbandoned is how many failed instances may be left behind unclosed, since something in them hangs. Each keeps its
	// memory. Above it the store stays as it is until the process is started again.
	maxAbandoned = 8

	// compactEvery and compactBytes are how often a store is compacted, and after how much has been removed.
	compactEvery, compactBytes = time.Minute, 16 << 20

	// A warning comes at the first, and not again before the store was below the second.
	warnPercent, calmPercent = 80, 50
)

// health watches the store and brings it back.
type health struct {
	mu         sync.Mutex
	cause      error     // why there is no instance that works; nil when there is one
	failed     *instance // the last one
	abandoned  int       // instances that are still being closed
	attempts   int       // since the failure
	failures   uint64
	commits    uint64 // of instances that are gone
	syncs      uint64
	size       int64
	free       int64
	opening    bool
	measuring  bool
	warned     bool
	compacted  time.Time
	compacting bool
	ended      chan struct{}
	busy       atomic.Int64 // goroutines that close and open instances
}

// begin runs fn in a goroutine that Close waits for.
func (h *health) begin(fn func()) {
	h.busy.Add(1)
	go func() {
		defer h.busy.Add(-1)
		fn()
	}()
}

// leave counts instances that are left behind.
func (h *health) leave(n int) {
	h.mu.Lock()
	h.abandoned += n
	h.mu.Unlock()
}

func (h *health) reason() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.cause
}

// failed takes note of an instance that has ended. It is called from everywhere, so it only notes.
func (s *Store) failed(in *instance) {
	s.current.CompareAndSwap(in, nil)
	in.reported.Do(func() {
		h := &s.health
		h.mu.Lock()
		h.failures++
		h.cause = in.cause
		h.failed = in
		h.attempts = 0
		h.mu.Unlock()
		h.begin(func() { s.bury(in) })
		s.opts.Logger.Error("the event store has failed, events are refused until it can be opened again",
			"error", in.cause, "dir", s.dir, "remedy", remedyFor(in.cause))
	})
}

func remedyFor(err error) string {
	if errors.Is(err, ErrDamaged) {
		return "if the disk is sound, " + remedy
	}
	return "see that the disk is there, has room and can be written; the store goes on by itself then"
}

// watch checks the store at a fixed pace, and opens it anew after a failure.
func (s *Store) watch() {
	defer close(s.health.ended)
	tick := time.NewTicker(s.opts.checkEvery)
	defer tick.Stop()
	for {
		select {
		case <-s.closing:
			return
		case <-tick.C:
		}
		if in := s.current.Load(); in != nil {
			s.check(in)
		} else {
			s.recover()
		}
	}
}

// check looks at an instance that works. What may hang with the disk runs beside, one at a time.
func (s *Store) check(in *instance) {
	if begun := in.commits.begun.Load(); begun != 0 && time.Since(time.UnixMilli(begun)) > s.opts.stuckAfter {
		in.fail(fmt.Errorf("a write takes longer than %s", s.opts.stuckAfter))
		return
	}
	h := &s.health
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.measuring {
		return
	}
	h.measuring = true
	in.calls.Add(1)
	go func() {
		defer in.leave()
		s.measure(in)
		h.mu.Lock()
		h.measuring = false
		h.mu.Unlock()
	}()
}

func (s *Store) measure(in *instance) {
	if in.isDead() || s.current.Load() != in {
		return
	}
	switch name, err := in.fence.missing(); {
	case err != nil:
		in.fail(fmt.Errorf("the data directory cannot be read: %w", err))
		return
	case name != "":
		in.fail(fmt.Errorf("%w: the file %s was removed or replaced", ErrDamaged, name))
		return
	}
	var m *pebble.Metrics
	if in.read(func() error { m = in.db.Metrics(); return nil }) != nil {
		return
	}
	size := int64(m.DiskSpaceUsage())
	limit, used := s.opts.MaxBytes, size
	if limit <= 0 && s.durable {
		if disk, err := s.fs.GetDiskUsage(s.dir); err == nil {
			limit, used = int64(disk.TotalBytes), int64(disk.UsedBytes)
		}
	}
	s.full.Store(s.opts.MaxBytes > 0 && size >= s.opts.MaxBytes)
	h := &s.health
	h.mu.Lock()
	h.size, h.free = size, int64(m.Table.ObsoleteSize+m.Table.ZombieSize+m.WAL.ObsoletePhysicalSize)
	warn := !h.warned && limit > 0 && used >= limit/100*warnPercent
	if warn {
		h.warned = true
	} else if used < limit/100*calmPercent {
		h.warned = false
	}
	removed := s.removed.Load()
	compact := !h.compacting && !s.sweeping.Load() && removed > 0 && time.Since(h.compacted) > compactEvery &&
		(s.full.Load() || removed >= max(compactBytes, size/4))
	if compact {
		h.compacting = true
		s.removed.Add(-removed)
	}
	h.mu.Unlock()
	if warn {
		s.opts.Logger.Warn("the event store is running out of space", "dir", s.dir, "used_bytes", used, "limit_bytes", limit)
	}
	if compact {
		in.calls.Add(1)
		go s.compact(in)
	}
}

// recover opens the directory anew, once nothing of the failed instance moves any more: neither a call, which could still
// tell a feed something, nor a change of a file.
func (s *Store) recover() {
	h := &s.health
	h.mu.Lock()
	defer h.mu.Unlock()
	old := h.failed
	if h.opening || old == nil || old.calls.Load() > 0 || !old.fence.quiet() || h.abandoned >= maxAbandoned {
		return
	}
	// Damage is looked for in all of the data, so not each second.
	if h.attempts++; errors.Is(h.cause, ErrDamaged) && h.attempts&(h.attempts-1) != 0 && h.attempts%64 != 0 {
		return
	}
	h.opening = true
	cause := h.cause
	h.begin(func() {
		in, err := s.reopen(old, cause)
		h.mu.Lock()
		h.opening = false
		if err == nil {
			h.cause = nil
		}
		h.mu.Unlock()
		if err != nil {
			s.opts.Logger.Debug("the event store cannot be opened again", "error", err)
			return
		}
		s.opts.Logger.Info("the event store works again", "dir", s.dir)
		s.tellLost(old)
		s.install(in)
		select {
		case <-s.closing:
			if s.current.CompareAndSwap(in, nil) { // Close has come before it
				in.fail(errClosing)
			}
		default:
		}
	})
}

var errClosing = errors.New("the store is closing")

func (s *Store) reopen(old *instance, cause error) (*instance, error) {
	switch name, err := old.fence.missing(); {
	case err != nil:
		return nil, err
	case name != "":
		return nil, fmt.Errorf("%w: the file %s is missing", ErrDamaged, name)
	}
	in, err := s.openInstance()
	if err != nil {
		return nil, err
	}
	if errors.Is(cause, ErrDamaged) {
		// What could not be read may be read again without an error only if all of it can.
		err := in.protect(func() error {
			return in.scan([]byte{0}, []byte{0xff}, func(_, _ []byte) bool { return true })
		})
		if err != nil {
			in.abort()
			return nil, err
		}
	}
	return in, nil
}

// bury closes a failed instance. Something in it may hang for ever; it is left behind then.
func (s *Store) bury(in *instance) {
	h := &s.health
	h.leave(1)
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		<-in.commits.ended
		<-in.flusher.ended
		untilZero(context.Background(), &in.calls)
		h.mu.Lock()
		h.commits += in.commits.commits.Load()
		h.syncs += in.commits.syncs.Load()
		h.mu.Unlock()
		_ = in.protect(in.db.Close)
		h.leave(-1)
	}()
	select {
	case <-closed:
	case <-time.After(s.opts.closeWait):
	}
}

// untilZero waits for a counter of what goes on.
func untilZero(ctx context.Context, n *atomic.Int64) {
	for tick := time.NewTicker(time.Millisecond); n.Load() > 0 && ctx.Err() == nil; <-tick.C {
	}
}

// isDamage reports whether an error of Open is about what is in the directory, not about reaching it.
func isDamage(err error) bool {
	var errno syscall.Errno
	return errors.Is(err, fs.ErrNotExist) || !errors.As(err, &errno)
}

// Ready says whether events can be stored.
func (s *Store) Ready() error {
	if s.current.Load() == nil {
		return s.unavailable()
	}
	return nil
}

// Stats says how the store does.
type Stats struct {
	Commits   uint64 // writes of the log
	Syncs     uint64 // of them, those that waited for the disk
	Failures  uint64 // of the store, each ended by opening the directory anew
	Size      int64  // bytes of the directory; as of the last check
	Free      int64  // of them, bytes that are being given back
	Unwritten int    // users with progress or cursors that are not written yet
	Failing   bool   // events are refused now
}

// Stats reads the figures.
func (s *Store) Stats() Stats {
	h := &s.health
	h.mu.Lock()
	st := Stats{Commits: h.commits, Syncs: h.syncs, Failures: h.failures, Size: h.size, Free: h.free, Failing: h.cause != nil}
	h.mu.Unlock()
	if in := s.current.Load(); in != nil {
		st.Commits += in.commits.commits.Load()
		st.Syncs += in.commits.syncs.Load()
		st.Unwritten = in.flusher.size()
	}
	return st
}
