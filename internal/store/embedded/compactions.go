package embedded

import (
	"bytes"
	"context"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// compactions lets pebble run one compaction at a time, and none before the directory is open: pebble does not wait for
// those when it cannot be opened after all.
type compactions struct {
	db       pebble.DBForCompaction
	granting sync.Mutex // held while db is asked
	mu       sync.Mutex // guards all below
	open     bool
	running  bool
	refused  bool // one was refused since grant last asked
}

// Register implements pebble.CompactionScheduler.
func (c *compactions) Register(_ int, db pebble.DBForCompaction) { c.db = db }

// Unregister implements pebble.CompactionScheduler.
func (c *compactions) Unregister() {
	c.mu.Lock()
	c.open = false
	c.mu.Unlock()
	c.granting.Lock()
	defer c.granting.Unlock()
}

// start allows compactions, when the directory is open.
func (c *compactions) start() {
	c.mu.Lock()
	c.open = true
	c.mu.Unlock()
	c.grant()
}

// TrySchedule implements pebble.CompactionScheduler. Pebble's locks are held.
func (c *compactions) TrySchedule() (bool, pebble.CompactionGrantHandle) {
	return c.claim(), c
}

func (c *compactions) claim() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.open || c.running {
		c.refused = true
		return false
	}
	c.running, c.refused = true, false
	return true
}

// free ends what claim began, and reports whether another one was refused meanwhile.
func (c *compactions) free() (refused bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running = false
	return c.refused
}

// grant runs what waits for its turn.
func (c *compactions) grant() {
	c.granting.Lock()
	defer c.granting.Unlock()
	for c.claim() {
		if waiting, _ := c.db.GetWaitingCompaction(); waiting && c.db.Schedule(c) {
			return
		}
		if !c.free() {
			return
		}
	}
}

// Done implements pebble.CompactionGrantHandle. None of pebble's locks is held.
func (c *compactions) Done() {
	c.free()
	c.grant()
}

// UpdateGetAllowedWithoutPermission implements pebble.CompactionScheduler.
func (c *compactions) UpdateGetAllowedWithoutPermission() {}

// Started implements pebble.CompactionGrantHandle.
func (c *compactions) Started() {}

// MeasureCPU implements pebble.CompactionGrantHandle.
func (c *compactions) MeasureCPU(pebble.CompactionGoroutineKind) {}

// CumulativeStats implements pebble.CompactionGrantHandle.
func (c *compactions) CumulativeStats(pebble.CompactionGrantHandleStats) {}

// compactStep is about how much one compaction of a store as a whole covers: others must get their turn in between.
const compactStep = 32 << 20

// compact gives the space of what a sweep has removed back. Pebble does that with what is written later, and perhaps nothing
// is: a store may be full, or its users may be gone.
func (s *Store) compact(in *instance) {
	defer in.leave()
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
	h := &s.health
	h.mu.Lock()
	h.compacting, h.compacted = false, time.Now()
	h.mu.Unlock()
}
