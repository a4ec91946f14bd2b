package embedded

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// flushStep is how many users go to the committer before the flusher waits for it.
	flushStep = 128

	// maxUnwritten bounds the bytes that wait for the flusher: above it, progress waits for the disk like a message.
	maxUnwritten = 32 << 20
)

// flusher writes at a fixed pace what no call waits for: progress and cursors.
type flusher struct {
	in        *instance
	mu        sync.Mutex
	users     []*user // each once, referred to
	unwritten atomic.Int64
	flushing  sync.Mutex // held while a flush is under way
	stop      chan struct{}
	ended     chan struct{}
}

func newFlusher(in *instance) *flusher {
	return &flusher{in: in, stop: make(chan struct{}), ended: make(chan struct{})}
}

// add marks a user as dirty. The caller holds the user's lock.
func (f *flusher) add(u *user) {
	u.dirty = true
	if u.listed {
		return
	}
	u.listed = true
	f.in.users.hold(u)
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
	defer close(f.ended)
	tick := time.NewTicker(f.in.s.opts.WriteBehind)
	defer tick.Stop()
	for {
		select {
		case <-f.in.dead:
			return
		case <-f.stop:
			return
		case <-tick.C:
		}
		if f.flush() != nil {
			return // the instance is over, and has said why
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
	for len(users) > 0 {
		step := users[:min(flushStep, len(users))]
		users = users[len(step):]
		if err := f.write(step); err != nil {
			return err
		}
	}
	if !f.in.s.durable {
		return nil
	}
	// The log is sequential: a record without content makes all before it durable.
	b := f.in.db.NewBatch()
	if err := b.LogData(nil, nil); err != nil {
		return err
	}
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
			b := f.in.db.NewBatch()
			due, err := f.in.encode(u, b)
			if err == nil {
				last = f.in.commits.add(b, false, 0, due)
				u.carried(last)
			}
			if err != nil {
				u.release()
				f.in.fail(err)
				return err
			}
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
