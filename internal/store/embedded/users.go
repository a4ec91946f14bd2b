package embedded

import (
	"context"
	"errors"
	"hash/maphash"
	"slices"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"jobwire/internal/events"
)

// user is what is in memory of a user: the record and all jobs. Its lock guards all but the part of its shard.
type user struct {
	name string
	lock chan struct{} // holds a token while it is locked, so that waiting for it can end early
	userRecord
	loaded    bool
	jobs      map[string]*job
	finished  list[job] // by the latest change
	running   list[job] // likewise, and stalled ones
	jobsBytes int

	by     *round     // the latest that carries something of the user
	heads  []logEntry // the oldest messages on the disk, as far as they have been looked up
	fresh  []logEntry // the latest messages: what a round carries that is perhaps not applied yet
	groups []*group   // what is on its way to the feeds, in the order of places

	dirty     bool              // something here is not written
	rewrite   bool              // the record has changed beyond what load finds in messages and jobs
	listed    bool              // among the instance's dirty users
	changed   []*job            // jobs to write, removed ones too
	answers   map[string]*reply // idempotency keys that reading the disk might not show yet
	replies   []*reply          // the same and what they replaced, in their order
	unwritten int               // bytes of changed jobs

	// The shard's: guarded by its mutex.
	refs int // of calls and of the list of dirty users
	size int
	idle node[user] // in the shard's list while refs is 0
}

// job is a job's record, in the user's map of jobs and in one of its two lists.
type job struct {
	jobRecord
	name    string
	written uint64    // the entry among the deadlines that the disk has
	gone    bool      // removed, and to be removed on the disk
	changed bool      // among the user's changed
	counted int       // its bytes in the user's unwritten
	order   node[job] // in its list
}

func (j *job) size() int { return len(j.name) + j.dataSize() }

// logEntry is what trimming must know of a message.
type logEntry struct {
	id   events.ID
	at   uint64
	size int
	by   *round // what carries it to the disk; nil when it is there
}

// reply is an idempotency key's answer on its way to the disk, or that it is gone.
type reply struct {
	answer
	key  string
	gone bool
	by   *round // nil while it is not on its way
}

// list keeps what has a node in it in the order in which it was pushed.
type list[T any] struct{ ends node[T] }

// node is an item's place in a list. The list's own node is at both ends, and has no item.
type node[T any] struct {
	item       *T
	prev, next *node[T]
}

func (l *list[T]) init() { l.ends.prev, l.ends.next = &l.ends, &l.ends }

func (l *list[T]) push(n *node[T], item *T) {
	n.unlink()
	n.item, n.prev, n.next = item, l.ends.prev, &l.ends
	n.prev.next, n.next.prev = n, n
}

func (n *node[T]) unlink() {
	if n.next != nil {
		n.prev.next, n.next.prev = n.next, n.prev
		n.prev, n.next = nil, nil
	}
}

// oldest and latest are nil when the list is empty.
func (l *list[T]) oldest() *T { return l.ends.next.item }
func (l *list[T]) latest() *T { return l.ends.prev.item }

// list moves a job to the end of the list that it belongs to.
func (u *user) list(j *job) {
	if j.finished() {
		u.finished.push(&j.order, j)
	} else {
		u.running.push(&j.order, j)
	}
}

// add puts a new job into the map and its list; jobs come in the order of their latest change.
func (u *user) add(j *job) {
	if u.jobs == nil {
		u.jobs = make(map[string]*job)
	}
	u.jobs[j.name] = j
	u.jobsBytes += j.size()
	u.list(j)
}

// known reports whether the store has anything of the user.
func (u *user) known() bool { return !u.last.IsZero() }

// acquire takes the lock, unless ctx or the instance ends before.
func (u *user) acquire(ctx context.Context, in *instance) error {
	select {
	case u.lock <- struct{}{}:
	default:
		select {
		case u.lock <- struct{}{}:
		case <-in.dead:
			return in.unavailable()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if in.isDead() {
		u.release()
		return in.unavailable()
	}
	return nil
}

func (u *user) release() { <-u.lock }

// memory estimates the bytes that the user takes; 0 when the store has nothing of it.
func (u *user) memory() int {
	if !u.known() {
		return 0
	}
	const base, perJob, perEntry = 600, 280, 48
	return base + 2*len(u.name) + len(u.jobs)*perJob + u.jobsBytes + (cap(u.heads)+cap(u.fresh))*perEntry + len(u.replies)*perJob
}

// put ends the use of a locked user.
func (in *instance) put(u *user) {
	in.users.put(u, u.memory())
	u.release()
}

// drop ends the use of a user that is not locked.
func (in *instance) drop(u *user) { in.users.put(u, -1) }

// load reads a user's record and jobs, and from them and the latest message what has happened since the record was written.
// Those who have nothing cost a look into filters.
func (in *instance) load(u *user) error {
	b, err := in.get(userKey(u.name, kindUser))
	if b == nil {
		return err
	}
	new(codec).decode(b, "a user", &u.userRecord)
	var jobs []*job
	prefix := userKey(u.name, kindJob)
	err = in.scan(prefix, past(prefix), func(key, value []byte) bool {
		j := &job{name: string(key[len(prefix):])}
		new(codec).decode(slices.Clone(value), "a job", j)
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
	it, err := in.db.NewIter(&pebble.IterOptions{
		LowerBound: next(messageKey(u.name, u.logged)), UpperBound: past(userKey(u.name, kindMessage)),
	})
	if err != nil {
		return err
	}
	var key, value []byte
	if it.Last() { // a message that the record does not know
		key = slices.Clone(it.Key())
		value, err = it.ValueAndErr()
		value = slices.Clone(value)
	}
	if err := errors.Join(err, it.Close()); err != nil || key == nil {
		return err
	}
	var latest message
	new(codec).decode(value, "a message", &latest)
	u.logged, u.log = trailingID(key), latest.log
	u.last = later(u.last, u.logged)
	return nil
}

func later(a, b events.ID) events.ID {
	if a.Compare(b) < 0 {
		return b
	}
	return a
}

// get reads the value of a key; nil when there is none. The caller may keep it.
func (in *instance) get(key []byte) ([]byte, error) {
	b, closer, err := in.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return slices.Clone(b), closer.Close()
}

// scan calls fn for the keys from lower to below upper, until it returns false. Both slices are the scan's.
func (in *instance) scan(lower, upper []byte, fn func(key, value []byte) bool) (err error) {
	it, err := in.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }() // with the error of a step
	for ok := it.First(); ok; ok = it.Next() {
		value, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		if !fn(it.Key(), value) {
			return nil
		}
	}
	return nil
}

const (
	shardCount = 16

	// cacheBytes bounds the users in memory, apart from those that are in use or have something to write.
	cacheBytes = 64 << 20
)

// cache is the users in memory: one object for each, as long as anybody refers to it.
type cache struct {
	seed   maphash.Seed
	limit  int // bytes of a shard
	shards [shardCount]shard
}

type shard struct {
	mu    sync.Mutex
	users map[string]*user
	bytes int
	idle  list[user] // nobody refers to them; by their last use
	_     [64]byte
}

func (c *cache) init(limit int) {
	c.seed, c.limit = maphash.MakeSeed(), limit/shardCount
	for i := range c.shards {
		c.shards[i].users = make(map[string]*user)
		c.shards[i].idle.init()
	}
}

func (c *cache) shard(name string) *shard { return &c.shards[maphash.String(c.seed, name)%shardCount] }

// get refers to a user.
func (c *cache) get(name string) *user {
	sh := c.shard(name)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	u := sh.users[name]
	if u == nil {
		u = &user{name: name, lock: make(chan struct{}, 1)}
		u.finished.init()
		u.running.init()
		sh.users[name] = u
	}
	u.idle.unlink()
	u.refs++
	return u
}

// put gives a reference back, and makes room. The caller holds the user's lock, or size is -1: not known. The user that was
// used last stays, however large it is.
func (c *cache) put(u *user, size int) {
	sh := c.shard(u.name)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	u.refs--
	if size >= 0 {
		sh.bytes += size - u.size
		u.size = size
	}
	if u.refs > 0 {
		return
	}
	sh.idle.push(&u.idle, u)
	if u.size == 0 && u.by.over() {
		sh.remove(u)
	}
	for sh.bytes > c.limit { // until its round is over, the disk shows what was before
		oldest := sh.idle.oldest()
		if oldest == nil || oldest == u || !oldest.by.over() {
			return
		}
		sh.remove(oldest)
	}
}

func (sh *shard) remove(u *user) {
	u.idle.unlink()
	delete(sh.users, u.name)
	sh.bytes -= u.size
}
