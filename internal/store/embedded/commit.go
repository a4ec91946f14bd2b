package embedded

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

const (
	// roundBytes is about how much one write of the log carries, so that no batch is too large for a memtable.
	roundBytes = 512 << 10

	// ceilingAhead is how many ms of places the ceiling on the disk allows ahead of the clock. It is raised with the writes
	// that come anyway when less than half of it is left.
	ceilingAhead = 10_000
)

// round is one write of the log, and those who wait for it. Its waiters also wait for the end of the instance: a write that
// fails ends it.
type round struct {
	batches []*pebble.Batch
	bytes   int
	sync    bool   // somebody waits for the disk
	ceiling uint64 // places up to this ms were taken
	due     uint64 // the earliest deadline in it; 0 when there is none
	done    chan struct{}
}

// over reports whether the round is on the disk, or there was none.
func (r *round) over() bool {
	if r == nil {
		return true
	}
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

// committer writes batches in the order in which they are added. While one round waits for the disk, the next ones gather.
// It is the only goroutine that writes to pebble, so nobody else can get stuck in there.
type committer struct {
	in    *instance
	mu    sync.Mutex
	queue []*round
	wake  chan struct{}
	begun atomic.Int64  // when the round under way began, in ms; 0 when there is none
	stop  chan struct{} // closed when nothing will be added any more
	ended chan struct{}
	round *pebble.Batch // run's: what a round writes, used again and again

	commits atomic.Uint64 // rounds that were written
	syncs   atomic.Uint64 // of them, those that waited for the disk
}

func newCommitter(in *instance) *committer {
	return &committer{in: in, wake: make(chan struct{}, 1), stop: make(chan struct{}), ended: make(chan struct{})}
}

// add lines a batch up. Batches of one user must be added under its lock.
func (c *committer) add(b *pebble.Batch, sync bool, ceiling, due uint64) *round {
	c.mu.Lock()
	var r *round
	if n := len(c.queue); n > 0 && c.queue[n-1].bytes+b.Len() <= roundBytes {
		r = c.queue[n-1]
	} else {
		r = &round{done: make(chan struct{})}
		c.queue = append(c.queue, r)
	}
	r.batches = append(r.batches, b)
	r.bytes += b.Len()
	r.sync = r.sync || sync
	r.ceiling = max(r.ceiling, ceiling)
	if due != 0 && (r.due == 0 || due < r.due) {
		r.due = due
	}
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
	return r
}

// next returns the round to write; nil when there is none. A write costs the same for many batches, so those who are about to
// add one do so first: at full speed that makes half of the writes out of it, and at rest nobody is there to wait for.
func (c *committer) next() *round {
	for range 2 {
		runtime.Gosched()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.queue) == 0 {
		return nil
	}
	r := c.queue[0]
	c.queue[0] = nil
	c.queue = c.queue[1:]
	return r
}

// run is the committer's goroutine. It ends with stop, when all is written, or with the instance.
func (c *committer) run() {
	defer close(c.ended)
	for stopping := false; !stopping; {
		select {
		case <-c.in.dead:
			return
		case <-c.stop:
			stopping = true
		case <-c.wake:
		}
		for r := c.next(); r != nil; r = c.next() {
			if err := c.write(r); err != nil {
				c.in.fail(err)
				return
			}
		}
	}
}

func (c *committer) write(r *round) error {
	began := time.Now()
	c.begun.Store(began.UnixMilli())
	defer c.begun.Store(0)
	ceiling := c.in.ceiling.Load()
	err := c.in.protect(func() error {
		b := c.round
		if b == nil {
			b = c.in.db.NewBatch()
			c.round = b
		}
		b.Reset()
		for _, part := range r.batches {
			if err := b.Apply(part, nil); err != nil {
				return err
			}
			if err := part.Close(); err != nil {
				return err
			}
		}
		if now := max(c.in.clock(), r.ceiling); r.sync && now+ceilingAhead/2 > ceiling {
			ceiling = now + ceilingAhead
			if err := b.Set(keyCeiling, encodeNumber(ceiling), nil); err != nil {
				return err
			}
		}
		if hook := c.in.s.opts.beforeCommit; hook != nil {
			if err := hook(); err != nil {
				return err
			}
		}
		return c.in.db.Apply(b, &pebble.WriteOptions{Sync: r.sync && c.in.s.durable})
	})
	if err == nil && c.in.isDead() {
		err = c.in.cause // and what pebble says is not true
	}
	if err != nil {
		return err
	}
	c.commits.Add(1)
	if r.sync && c.in.s.durable {
		c.syncs.Add(1)
		if c.in.s.opts.OnSync != nil {
			c.in.s.opts.OnSync(time.Since(began))
		}
	}
	c.in.ceiling.Store(ceiling)
	c.in.expectDue(r.due)
	close(r.done)
	return nil
}
