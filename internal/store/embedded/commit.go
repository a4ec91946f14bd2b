package embedded

import (
	"context"
	"runtime"
	"slices"
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

	// flushStep is how many users go to the committer before the flusher waits for it.
	flushStep = 128

	// maxUnwritten bounds the bytes that wait for the flusher: above it, progress waits for the disk like a message.
	maxUnwritten = 32 << 20
)

// batch is what goes to the disk as a whole. Pebble's batches never fail, unless they have an index.
type batch struct{ *pebble.Batch }

func (in *instance) newBatch() batch { return batch{in.db.NewBatch()} }

func (b batch) set(key, value []byte) { _ = b.Set(key, value, nil) }
func (b batch) remove(key []byte)     { _ = b.Delete(key, nil) }

func (b batch) put(key []byte, r stored) {
	c := codecs.Get().(*codec)
	b.set(key, c.encode(r))
	codecs.Put(c)
}

var codecs = sync.Pool{New: func() any { return new(codec) }}

// earlier takes 0 for never.
func earlier(a, b uint64) uint64 {
	if a == 0 || b == 0 {
		return max(a, b)
	}
	return min(a, b)
}

// round is one write of the log, and those who wait for it. Its waiters also wait for the end of the instance: a write that
// fails ends it.
type round struct {
	batches []batch
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

// wait waits for a round.
func (in *instance) wait(ctx context.Context, r *round) error {
	if r.over() {
		return nil
	}
	select {
	case <-r.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-in.dead:
		return in.unavailable()
	}
}

// committer writes batches in the order in which they are added. While one round waits for the disk, the next ones gather.
// It is the only goroutine that writes to pebble, so nobody else can get stuck in there.
type committer struct {
	in    *instance
	mu    sync.Mutex
	queue []*round
	wake  chan struct{}
	turns atomic.Uint64 // of writes that have begun or ended: odd while one is under way
	round batch         // run's: what a round writes, used again and again
}

// add lines a batch up. Batches of one user must be added under its lock.
func (c *committer) add(b batch, sync bool, ceiling, due uint64) *round {
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
	r.due = earlier(r.due, due)
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
	return r
}

// next returns the round to write; nil when there is none. A write costs the same for many batches, so those who are about to
// add one do so first: at full speed that saves a third of the writes, and at rest nobody is there to wait for.
func (c *committer) next() *round {
	runtime.Gosched()
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

// run is the committer's goroutine. It ends when it is stopped and all is written, or with the instance.
func (c *committer) run() {
	c.round = c.in.newBatch()
	for stopping := false; !stopping; {
		select {
		case <-c.in.dead:
			return
		case <-c.in.stop:
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
	in, began := c.in, time.Now()
	c.turns.Add(1)
	defer c.turns.Add(1)
	ceiling, synced := in.ceiling.Load(), r.sync && in.s.durable
	err := in.protect(func() error {
		c.round.Reset()
		for _, part := range r.batches {
			if err := c.round.Apply(part.Batch, nil); err != nil {
				return err
			}
			if err := part.Close(); err != nil {
				return err
			}
		}
		if now := max(in.clock(), r.ceiling); r.sync && now+ceilingAhead/2 > ceiling {
			ceiling = now + ceilingAhead
			c.round.put(keyCeiling, (*number)(&ceiling))
		}
		return in.db.Apply(c.round.Batch, &pebble.WriteOptions{Sync: synced})
	})
	if err != nil {
		return err
	}
	if synced {
		in.s.health.syncs.Add(1)
		if in.s.opts.OnSync != nil {
			in.s.opts.OnSync(time.Since(began))
		}
	}
	in.ceiling.Store(ceiling)
	in.expectDue(r.due)
	r.batches = nil // users remember their latest round, and would keep all that it carried
	close(r.done)
	return nil
}

// flusher writes at a fixed pace what no call waits for: progress and cursors.
type flusher struct {
	in        *instance
	mu        sync.Mutex
	users     []*user // each once, referred to
	unwritten atomic.Int64
	flushing  sync.Mutex // held while a flush is under way
}

// add marks a user as dirty. The caller holds the user's lock.
func (f *flusher) add(u *user) {
	u.dirty = true
	if u.listed {
		return
	}
	u.listed = true
	f.in.users.get(u.name)
	f.mu.Lock()
	f.users = append(f.users, u)
	f.mu.Unlock()
}

// size is how many users are dirty.
func (f *flusher) size() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.users)
}

func (f *flusher) run() {
	tick := time.NewTicker(f.in.s.opts.WriteBehind)
	defer tick.Stop()
	for {
		select {
		case <-f.in.dead:
			return
		case <-f.in.stop:
			return
		case <-tick.C:
			_ = f.flush() // an error is the end of the instance
		}
	}
}

// flush writes all that is dirty now and returns when it is on the disk.
func (f *flusher) flush() error {
	f.flushing.Lock()
	defer f.flushing.Unlock()
	f.mu.Lock()
	users := f.users
	f.users = nil
	f.mu.Unlock()
	if len(users) == 0 {
		return nil
	}
	for step := range slices.Chunk(users, flushStep) {
		if err := f.write(step); err != nil {
			return err
		}
	}
	if !f.in.s.durable {
		return nil
	}
	// The log is sequential: a record without content makes all before it durable.
	b := f.in.newBatch()
	_ = b.LogData(nil, nil)
	return f.in.wait(context.Background(), f.in.commits.add(b, true, 0, 0))
}

func (f *flusher) write(users []*user) error {
	var last *round
	for _, u := range users {
		if err := u.acquire(context.Background(), f.in); err != nil {
			return err
		}
		u.listed = false
		if u.dirty {
			last = f.in.write(u, f.in.newBatch(), false, 0)
		}
		u.release()
	}
	if err := f.in.wait(context.Background(), last); err != nil {
		return err
	}
	for _, u := range users {
		if err := u.acquire(context.Background(), f.in); err != nil {
			return err
		}
		f.in.put(u)
	}
	return nil
}
