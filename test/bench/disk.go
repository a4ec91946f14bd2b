package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const (
	diskBatch    = 64              // events that one sync can carry: one of each worker
	diskEvent    = 256             // bytes of one event, about what the generator posts
	diskDuration = 2 * time.Second // how long the disk is measured
)

// measureDisk tells how many events a second the disk under dir can make
// durable when every batch of 64 is appended and synced before the next: the
// most that any store could answer to 64 workers that each wait for theirs.
func measureDisk(dir string) (float64, error) {
	f, err := os.Create(filepath.Join(dir, "sync-limit"))
	if err != nil {
		return 0, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	batch := make([]byte, diskBatch*diskEvent)
	began, batches := time.Now(), 0
	for time.Since(began) < diskDuration {
		if _, err := f.Write(batch); err != nil {
			return 0, fmt.Errorf("disk limit: %w", err)
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return 0, fmt.Errorf("disk limit: %w", err)
		}
		batches++
	}
	return float64(batches*diskBatch) / time.Since(began).Seconds(), nil
}
