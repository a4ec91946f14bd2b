package embedded

import (
	"bytes"
	"context"
	"os"

	"jobwire/internal/delivery"
)

// Read implements delivery.Store.
func (s *Bolt) Read(_ context.Context, q delivery.Query) (p delivery.Page, err error) {
	err = s.readUser(q.UserID, func(r *rules) { p = r.page(q) })
	return p, err
}

// Jobs implements delivery.Store.
func (s *Bolt) Jobs(_ context.Context, userID string) (jobs []delivery.Job, err error) {
	err = s.readUser(userID, func(r *rules) { jobs = r.jobs(userID) })
	return jobs, err
}

// readUser runs fn over a snapshot of one user, without holding up others,
// and waits until what it has shown is on the disk.
func (s *Bolt) readUser(name string, fn func(r *rules)) error {
	s.mu.Lock()
	if s.closed || s.db == nil {
		s.mu.Unlock()
		return errClosed
	}
	f := &file{db: s.db}
	defer f.close()
	var wait *group
	snapshot := newTable()
	err := protect(func() {
		f.begin() // now: what is under way to the disk must not vanish between the tables and the file
		switch {
		case unsynced(name, s.top):
			wait = s.group
			notify(s.urgent)
		case unsynced(name, s.under):
			wait = s.carried
		}
		s.under.copyUser(name, snapshot)
		s.top.copyUser(name, snapshot)
	})
	r := s.rules(&view{top: snapshot, file: f})
	s.mu.Unlock()
	if err == nil {
		err = protect(func() { fn(r) })
	}
	f.close() // a commit that must enlarge the file waits for its readers
	if err != nil {
		return err
	}
	return wait.wait()
}

// copyUser copies everything of one user. The source may be nil.
func (t *table) copyUser(name string, to *table) {
	if t == nil {
		return
	}
	prefix := userKey(name, 0)[:len(name)+2]
	t.scan(prefix, func(e entry) bool {
		if !bytes.HasPrefix(e.key, prefix) {
			return false
		}
		to.put(e.key, e.value)
		return true
	})
}

// Sweep implements delivery.Store. It looks for users in what is on the disk,
// without a lock, and takes the lock for each that has something too old.
func (s *Bolt) Sweep(context.Context) (swept delivery.Swept, err error) {
	s.mu.Lock()
	if s.closed || s.db == nil {
		s.mu.Unlock()
		return swept, errClosed
	}
	f := &file{db: s.db}
	defer f.close()
	err = protect(f.begin)
	from, r := s.swept, s.rules(&view{top: newTable(), file: f})
	s.mu.Unlock()
	var users []string
	var at []byte
	if err == nil {
		err = protect(func() { users, at = r.findStale(from) })
	}
	f.close()
	for i, calls := 0, 0; i < len(users) && err == nil; calls++ {
		if calls == sweepCalls {
			at = metaKey(users[i]) // on from here
			break
		}
		var more bool
		_, err = s.change(func(r *rules) { more = r.sweep(users[i], &swept.Dropped) })
		if !more {
			i++
		}
	}
	if err != nil {
		return swept, err
	}
	s.mu.Lock()
	s.swept = at
	s.mu.Unlock()
	swept.More = at != nil
	return swept, nil
}

// Ready says whether events can be stored. After a failed commit it tries
// another one: a node that is given no events until it is ready would not
// find out by itself.
func (s *Bolt) Ready() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return errClosed
	}
	if !s.failing {
		s.mu.Unlock()
		return nil
	}
	s.top.put(keyProbe, []byte{recordFormat})
	trial := s.group
	notify(s.urgent)
	s.mu.Unlock()
	return trial.wait()
}

// BoltStats says how the file does.
type BoltStats struct {
	Commits   uint64 // that reached the disk since the start
	Failures  uint64 // commits that did not
	Unwritten int    // bytes that wait for a commit
	Size      int64  // bytes of the file, free space included; it does not shrink
	Free      int64  // bytes of free space in it
	Failing   bool   // the last commit failed; the next events show whether it goes again
}

// Stats reads the figures.
func (s *Bolt) Stats() BoltStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := BoltStats{Commits: s.commits, Failures: s.failed, Unwritten: s.top.bytes, Failing: s.failing}
	if s.under != nil {
		st.Unwritten += s.under.bytes
	}
	if s.db != nil {
		st.Free = int64(s.db.Stats().FreePageN) * filePageSize
	}
	if info, err := os.Stat(s.path); err == nil {
		st.Size = info.Size()
	}
	return st
}
