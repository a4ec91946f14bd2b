package embedded

import (
	"context"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
)

// Backup makes a copy of the store in a directory that does not exist yet, while the store goes on. The copy is a data
// directory, and holds whatever was answered before Backup began. On the same file system it takes little space at first.
func (s *Store) Backup(ctx context.Context, dir string) error {
	in, err := s.enter(ctx)
	if err != nil {
		return err
	}
	defer in.leave()
	if !s.durable {
		return errors.New("a store in memory has nothing to copy")
	}
	if err := in.flusher.flush(); err != nil { // progress and cursors
		return err
	}
	// Errors of the copy are no failure of the store.
	err = in.protect(func() error { return in.db.Checkpoint(dir, pebble.WithFlushedWAL()) })
	if err == nil {
		err = writeFile(s.fs, dir, markerName, markerText)
	}
	if in.isDead() {
		return in.unavailable()
	}
	if err != nil {
		return fmt.Errorf("backup to %s: %w", dir, err)
	}
	return nil
}
