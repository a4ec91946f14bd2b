package embedded

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"jobwire/internal/delivery"
)

const (
	// maxAbandoned is how many failed instances may be left behind unclosed, since something in them hangs. Each keeps its
	// memory. Above it the store stays as it is until the process is started again.
	maxAbandoned = 8

	// compactEvery and compactBytes are how often a store is compacted, and after how much has been removed.
	compactEvery, compactBytes = time.Minute, 16 << 20

	// compactStep is about how much one compaction of a store as a whole covers: others must get their turn in between.
	compactStep = 32 << 20

	// A warning comes at the first, and not again before the store was below the second.
	warnPercent, calmPercent = 80, 50
)

// health is what watch and others know of the store beside its current instance.
type health struct {
	syncs    atomic.Uint64
	failures atomic.Uint64
	attempts atomic.Int64 // to open the directory since the failure
	size     atomic.Int64
	free     atomic.Int64
	full     atomic.Bool  // Options.MaxBytes is reached
	warned   bool         // watch's
	turn     uint64       // watch's: the committer's when it was looked at last
	looks    int          // watch's: how often it was the same
	removed  atomic.Int64 // bytes that sweeps have removed since the last compaction
	sweeping atomic.Bool  // a sweep goes on, or has more to do
	compact  atomic.Int64 // ns: not before; math.MaxInt64 while one goes on
}

// watch checks the store at a fixed pace, and opens it anew after a failure. It may hang with the disk, but only over an
// instance that has ended.
func (s *Store) watch(in *instance) {
	defer close(s.ended)
	tick := time.NewTicker(s.opts.checkEvery)
	defer tick.Stop()
	for dead := in.dead; ; {
		select {
		case <-s.closing:
			return
		case <-dead:
			s.failed(in)
			dead = nil
		case <-tick.C:
			if dead != nil {
				s.check(in)
			} else if again := s.recover(in); again != nil {
				in, dead = again, again.dead
			}
		}
	}
}

// failed takes note of an instance that has ended, and closes it.
func (s *Store) failed(in *instance) {
	in.reported.Do(func() {
		s.health.failures.Add(1)
		s.health.attempts.Store(0)
		advice := "see that the disk is there, has room and can be written; the store goes on by itself then"
		if errors.Is(in.cause, ErrDamaged) {
			advice = "if the disk is sound, " + remedy
		}
		s.opts.Logger.Error("the event store has failed, events are refused until it can be opened again",
			"error", in.cause, "dir", s.dir, "remedy", advice)
		s.bury(in)
	})
}

// bury closes an instance that has ended, once nobody is in it any more. Something in it may hang for ever.
func (s *Store) bury(in *instance) {
	s.unclosed.Add(1)
	go func() {
		defer s.unclosed.Add(-1)
		in.running.Wait()
		untilZero(context.Background(), &in.calls)
		if in.db != nil {
			_ = in.protect(in.db.Close)
		}
	}()
}

// check looks at an instance that works.
func (s *Store) check(in *instance) {
	// Looks are counted, not the time: a process that was stopped, or a clock that jumped, is no disk that hangs.
	if turn := in.commits.turns.Load(); turn != s.health.turn {
		s.health.turn, s.health.looks = turn, 0
	} else if s.health.looks++; turn%2 == 1 && time.Duration(s.health.looks)*s.opts.checkEvery > s.opts.stuckAfter {
		in.fail(fmt.Errorf("a write takes longer than %s", s.opts.stuckAfter))
		return
	}
	var m *pebble.Metrics
	var disk vfs.DiskUsage
	if in.read(func() error {
		if err := in.fence.missing(); err != nil {
			return err
		}
		disk, _ = s.fs.GetDiskUsage(s.dir)
		m = in.db.Metrics()
		return nil
	}) != nil {
		return
	}
	h, size := &s.health, int64(m.DiskSpaceUsage())
	h.size.Store(size)
	h.free.Store(int64(m.Table.ObsoleteSize + m.Table.ZombieSize + m.WAL.ObsoletePhysicalSize))
	h.full.Store(s.opts.MaxBytes > 0 && size >= s.opts.MaxBytes)

	limit, used := s.opts.MaxBytes, size
	if limit <= 0 && s.durable {
		limit, used = int64(disk.TotalBytes), int64(disk.UsedBytes)
	}
	switch {
	case used < limit/100*calmPercent:
		h.warned = false
	case !h.warned && limit > 0 && used >= limit/100*warnPercent:
		h.warned = true
		s.opts.Logger.Warn("the event store is running out of space", "dir", s.dir, "used_bytes", used, "limit_bytes", limit)
	}
	removed, now := h.removed.Load(), time.Now().UnixNano()
	if now > h.compact.Load() && !h.sweeping.Load() && removed > 0 && (h.full.Load() || removed >= max(compactBytes, size/4)) {
		h.removed.Add(-removed)
		h.compact.Store(math.MaxInt64)
		in.calls.Add(1)
		go s.compact(in)
	}
}

// compact gives the space of what a sweep has removed back. Pebble does that with what is written later, and perhaps nothing
// is: a store may be full, or its users may be gone.
func (s *Store) compact(in *instance) {
	defer in.leave()
	defer func() { s.health.compact.Store(time.Now().Add(compactEvery).UnixNano()) }()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-s.closing:
		case <-in.dead:
		case <-ctx.Done():
		}
		cancel()
	}()
	err := in.protect(func() error {
		levels, err := in.db.SSTables()
		if err != nil {
			return err
		}
		var ends [][]byte
		size := uint64(0)
		for _, table := range levels[len(levels)-1] {
			if size += table.Size; size >= compactStep {
				ends = append(ends, table.Largest.UserKey)
				size = 0
			}
		}
		start := []byte{0}
		for _, end := range append(ends, []byte{0xff}) {
			if bytes.Compare(start, end) >= 0 {
				continue
			}
			if err := in.db.Compact(ctx, start, end, false); err != nil {
				return err
			}
			start = end
		}
		return nil
	})
	if err != nil && ctx.Err() == nil {
		in.fail(err)
	}
}

// recover opens the directory anew, once nothing of the failed instance moves any more: neither a call, which could still
// tell a feed something, nor a change of a file.
func (s *Store) recover(old *instance) *instance {
	if old.calls.Load() > 0 || !s.fence.quiet() || s.unclosed.Load() >= maxAbandoned {
		return nil
	}
	// Damage is looked for in all of the data, so not each second.
	damaged := errors.Is(old.cause, ErrDamaged)
	if n := s.health.attempts.Add(1); damaged && n&(n-1) != 0 && n%64 != 0 {
		return nil
	}
	in, err := s.reopen(damaged)
	if err != nil {
		s.opts.Logger.Debug("the event store cannot be opened again", "error", err)
		return nil
	}
	select {
	case <-s.closing: // and perhaps closed
		in.fail(delivery.ErrClosed)
		s.bury(in)
		return nil
	default:
	}
	s.opts.Logger.Info("the event store works again", "dir", s.dir)
	// Before the next instance takes calls: nothing newer may be delivered, or confirmed, first.
	s.each(func(feed delivery.Feed) {
		old.lost.Range(func(name, _ any) bool { feed.Lost(name.(string)); return true })
	})
	in.start()
	return in
}

func (s *Store) reopen(damaged bool) (*instance, error) {
	if !s.durable { // nothing was kept that could be opened
		s.fs = vfs.NewMem()
		if err := s.fs.MkdirAll(s.dir, 0o700); err != nil {
			return nil, err
		}
	} else if err := s.fence.missing(); err != nil {
		return nil, err
	}
	in, err := s.openInstance()
	if err != nil || !damaged {
		return in, err
	}
	// What could not be read may be read again without an error only if all of it can.
	err = in.protect(func() error {
		return in.scan([]byte{0}, []byte{0xff}, func(_, _ []byte) bool { return true })
	})
	if err != nil {
		in.fail(err)
		s.bury(in)
	}
	return in, err
}
