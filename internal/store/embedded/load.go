package embedded

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"

	"jobwire/internal/events"
)

// lock returns a user, loaded and locked; put gives it back. Waiting for another call ends with ctx.
func (in *instance) lock(ctx context.Context, name string) (*user, error) {
	u := in.users.get(name)
	if err := u.acquire(ctx, in); err != nil {
		in.drop(u)
		return nil, err
	}
	if !u.loaded {
		if err := in.read(func() error { return in.load(u) }); err != nil {
			u.release()
			in.drop(u)
			return nil, err
		}
		u.loaded = true
	}
	return u, nil
}

// put ends the use of a locked user.
func (in *instance) put(u *user) {
	in.users.put(u, u.memory(), u.known())
	u.release()
}

// drop ends the use of a user that is not locked.
func (in *instance) drop(u *user) { in.users.put(u, -1, true) }

// load reads a user's record and jobs, and from them and the latest message what has happened since the record was written.
// Those who have nothing cost a look into filters.
func (in *instance) load(u *user) error {
	b, closer, err := in.db.Get(userKey(u.name, kindUser))
	if errors.Is(err, pebble.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	u.userRecord = decodeUser(b)
	if err := closer.Close(); err != nil {
		return err
	}
	var jobs []*job
	prefix := userKey(u.name, kindJob)
	err = in.scan(prefix, past(prefix), func(key, value []byte) bool {
		j := &job{name: string(key[len(prefix):]), jobRecord: decodeJob(value)}
		j.written = j.indexed
		jobs = append(jobs, j)
		return true
	})
	if err != nil {
		return err
	}
	slices.SortFunc(jobs, func(a, b *job) int { return a.last.Compare(b.last) })
	for _, j := range jobs {
		u.add(j)
		u.last = later(u.last, j.last)
	}
	return in.loadLog(u)
}

// loadLog looks whether there is a message that the record does not know.
func (in *instance) loadLog(u *user) (err error) {
	it, err := in.db.NewIter(&pebble.IterOptions{
		LowerBound: next(messageKey(u.name, u.logged)), UpperBound: past(userKey(u.name, kindMessage)),
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	if !it.Last() {
		return it.Error()
	}
	value, err := it.ValueAndErr()
	if err != nil {
		return err
	}
	u.logged, u.log = trailingID(it.Key()), decodeMessage(value).log
	u.last = later(u.last, u.logged)
	return nil
}

func later(a, b events.ID) events.ID {
	if a.Compare(b) < 0 {
		return b
	}
	return a
}

// scan calls fn for the keys from lower to below upper, until it returns false. Both slices are the scan's.
func (in *instance) scan(lower, upper []byte, fn func(key, value []byte) bool) (err error) {
	it, err := in.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for ok := it.First(); ok; ok = it.Next() {
		value, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		if !fn(it.Key(), value) {
			return nil
		}
	}
	return it.Error()
}

// raise sets n to at least to.
func raise(n *atomic.Uint64, to uint64) {
	for old := n.Load(); old < to && !n.CompareAndSwap(old, to); old = n.Load() {
	}
}
