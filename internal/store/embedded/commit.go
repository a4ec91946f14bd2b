package embedded

import (
	"fmt"
	"time"

	"go.etcd.io/bbolt"
)

// freelistLimit is the number of free pages up to which a commit writes the
// list of them. With the list in the file, opening it reads a few pages; a
// list that is too long costs every commit more than it is worth, and then a
// crash makes the next start walk through the pages in use. 64 MiB of free
// space make a list of 128 KiB.
const freelistLimit = 16 << 10

// run is the commit loop. While one commit waits for the disk, everything
// that is decided meanwhile gathers for the next.
func (s *Bolt) run() {
	defer close(s.ended)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-s.quit:
			return
		case <-s.dirty:
			timer.Reset(s.opts.WriteBehind)
			continue
		case <-timer.C:
		case <-s.urgent:
		}
		s.commit()
	}
}

// commit moves what is decided to the disk and tells those who wait.
func (s *Bolt) commit() {
	s.mu.Lock()
	s.armed = false
	if s.db == nil {
		s.reopen()
	}
	if s.top.size() == 0 {
		s.group.finish(nil)
		s.group = newGroup()
		s.mu.Unlock()
		return
	}
	ceiling := s.raiseCeiling()
	s.under, s.carried = s.top, s.group
	s.top, s.group = newTable(), newGroup()
	db := s.db
	s.mu.Unlock()

	err := s.write(db, s.under, false)

	s.mu.Lock()
	done := s.carried
	s.under, s.carried = nil, nil
	if err != nil {
		s.failed++
		s.fail(err)
	} else {
		s.commits++
		s.ceiling = ceiling
		if s.failing {
			s.failing = false
			s.opts.Logger.Info("the data file can be written again")
		}
	}
	s.mu.Unlock()
	done.finish(err)
}

func (g *group) finish(err error) {
	g.err = err
	close(g.done)
}

// raiseCeiling adds a higher ceiling to what will be committed, when less
// than half of it is left. It returns the ceiling that holds after the commit.
func (s *Bolt) raiseCeiling() uint64 {
	ms := max(millis(s.opts.Now()), s.highest)
	if ms+ceilingAhead/2 < s.ceiling {
		return s.ceiling
	}
	s.top.put(keyCeiling, encodeMs(ms+ceilingAhead))
	return ms + ceilingAhead
}

// write commits a table. The table does not change any more.
func (s *Bolt) write(db *bbolt.DB, t *table, last bool) (err error) {
	if s.opts.beforeCommit != nil {
		if err := s.opts.beforeCommit(); err != nil {
			return err
		}
	}
	if db == nil {
		return ErrDamaged
	}
	var tx *bbolt.Tx
	defer func() {
		if err != nil && tx != nil {
			// After a failed Commit it is a no-op; after a panic it frees bbolt's locks.
			_ = protect(func() { _ = tx.Rollback() })
		}
	}()
	failed := protect(func() {
		db.NoFreelistSync = !last && db.Stats().FreePageN > freelistLimit
		if tx, err = db.Begin(true); err != nil {
			return
		}
		b := tx.Bucket(bucketName)
		t.scan(nil, func(e entry) bool {
			if e.value == nil {
				err = b.Delete(e.key)
			} else {
				err = b.Put(e.key, e.value)
			}
			return err == nil
		})
		if err == nil {
			err = tx.Commit()
		}
	})
	if failed != nil {
		err = failed
	}
	return err
}

// fail forgets everything that was decided on top of a failed commit, and
// tells all who wait for it. What the file holds is the truth again. It is
// opened anew, because after a failed fsync nobody knows which of its pages
// the kernel still has; its ceiling keeps new ids above those of what is
// forgotten here. Called with mu held.
func (s *Bolt) fail(cause error) {
	if !s.failing {
		s.opts.Logger.Error("the data file cannot be written, events are refused", "error", cause)
	}
	s.failing = true
	s.top = newTable()
	s.group.finish(fmt.Errorf("the commit before it failed: %w", cause))
	s.group = newGroup()
	if s.db != nil {
		_ = protect(func() { _ = s.db.Close() })
		s.db = nil
	}
	s.reopen()
}

// reopen opens the file again after a failure. While it cannot be opened,
// every call fails, and each makes the loop try once more. Called with mu held.
func (s *Bolt) reopen() {
	if err := s.open(); err != nil {
		s.opts.Logger.Error("the data file cannot be opened again", "error", err)
	}
}

// last commits what is left when the store closes: with the list of free
// pages, and with the ceiling at what was really given out.
func (s *Bolt) last() error {
	s.mu.Lock()
	db, t, g := s.db, s.top, s.group
	if s.highest > 0 {
		t.put(keyCeiling, encodeMs(s.highest+1))
	}
	s.mu.Unlock()
	var err error
	if t.size() > 0 {
		err = s.write(db, t, true)
	}
	g.finish(err)
	return err
}
