package embedded

import (
	"context"
	"hash/maphash"
	"sync"

	"jobwire/internal/events"
)

// user is what is in memory of a user: the record and all jobs. Its lock guards all but the part of its shard.
type user struct {
	name string
	lock chan struct{} // holds a token while it is locked, so that waiting for it can end early
	userRecord
	loaded    bool
	jobs      map[string]*job
	finished  jobList
	running   jobList // and stalled ones
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
	refs       int // of calls and of the list of dirty users
	size       int
	prev, next *user // by the last use; nil while refs is above 0
}

// job is a job's record, in the user's map of jobs and in one of its two lists.
type job struct {
	jobRecord
	name       string
	written    uint64 // the entry among the deadlines that the disk has
	gone       bool   // removed, and to be removed on the disk
	changed    bool   // among the user's changed
	counted    int    // its bytes in the user's unwritten
	prev, next *job   // in the list, by the latest change
	list       *jobList
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

// jobList is a list of jobs by their latest change.
type jobList struct{ oldest, latest *job }

func (l *jobList) push(j *job) {
	j.list, j.prev, j.next = l, l.latest, nil
	if l.latest != nil {
		l.latest.next = j
	} else {
		l.oldest = j
	}
	l.latest = j
}

// unlink takes a job out of its list.
func (j *job) unlink() {
	l := j.list
	if l == nil {
		return
	}
	if j.prev != nil {
		j.prev.next = j.next
	} else {
		l.oldest = j.next
	}
	if j.next != nil {
		j.next.prev = j.prev
	} else {
		l.latest = j.prev
	}
	j.list, j.prev, j.next = nil, nil, nil
}

// add puts a job that was read into the map and its list; jobs come in the order of their latest change.
func (u *user) add(j *job) {
	if u.jobs == nil {
		u.jobs = make(map[string]*job)
	}
	u.jobs[j.name] = j
	u.jobsBytes += j.size()
	u.list(j)
}

// list moves a job to the end of the list that it belongs to.
func (u *user) list(j *job) {
	j.unlink()
	if j.finished() {
		u.finished.push(j)
	} else {
		u.running.push(j)
	}
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

// memory estimates the bytes that the user takes.
func (u *user) memory() int {
	const base, perJob, perEntry = 600, 280, 48
	return base + 2*len(u.name) + len(u.jobs)*perJob + u.jobsBytes + (cap(u.heads)+cap(u.fresh))*perEntry + len(u.replies)*perJob
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
	mu             sync.Mutex
	users          map[string]*user
	bytes          int
	oldest, latest *user // nobody refers to them; by their last use
	_              [64]byte
}

func (c *cache) init(limit int) {
	c.seed, c.limit = maphash.MakeSeed(), limit/shardCount
	for i := range c.shards {
		c.shards[i].users = make(map[string]*user)
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
		sh.users[name] = u
	} else if u.refs == 0 {
		sh.unlink(u)
	}
	u.refs++
	return u
}

// hold refers to a user once more.
func (c *cache) hold(u *user) {
	sh := c.shard(u.name)
	sh.mu.Lock()
	u.refs++
	sh.mu.Unlock()
}

// put gives a reference back, and makes room. The caller holds the user's lock, or size is -1: not known. The user that was
// used last stays, however large it is.
func (c *cache) put(u *user, size int, known bool) {
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
	if (size >= 0 && !known || u.size == 0) && u.by.over() {
		sh.remove(u)
		return
	}
	sh.push(u)
	for sh.bytes > c.limit && sh.oldest != u && sh.oldest.by.over() { // until then the disk shows what was before
		out := sh.oldest
		sh.unlink(out)
		sh.remove(out)
	}
}

func (sh *shard) remove(u *user) {
	delete(sh.users, u.name)
	sh.bytes -= u.size
}

func (sh *shard) push(u *user) {
	u.prev, u.next = sh.latest, nil
	if sh.latest != nil {
		sh.latest.next = u
	} else {
		sh.oldest = u
	}
	sh.latest = u
}

func (sh *shard) unlink(u *user) {
	if u.prev != nil {
		u.prev.next = u.next
	} else {
		sh.oldest = u.next
	}
	if u.next != nil {
		u.next.prev = u.prev
	} else {
		sh.latest = u.prev
	}
	u.prev, u.next = nil, nil
}
