package embedded

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"jobwire/internal/delivery"
	"jobwire/internal/events"
)

// BenchmarkPublish posts events from 64 goroutines. BenchmarkDisk is what the
// same disk does with the same number of bytes and nothing else.
func BenchmarkPublish(b *testing.B) {
	for _, c := range []struct{ name, event string }{
		{"durable", events.JobCompleted}, {"progress", events.JobProgress}, {"custom", "note"},
	} {
		for _, users := range []int{1, 64, 10_000} {
			b.Run(fmt.Sprintf("%s/users=%d", c.name, users), func(b *testing.B) {
				s, err := Open(b.TempDir(), delivery.Limits{}, Options{})
				if err != nil {
					b.Fatal(err)
				}
				defer s.Close()
				data := json.RawMessage(`{"jobId":"job-123456","progress":42,"message":"halfway through the export"}`)
				var n atomic.Int64
				crowd(b, 64, func() {
					i := n.Add(1)
					e := delivery.Entry{Event: events.Event{UserID: fmt.Sprint("user", i%int64(users)), Name: c.event, Data: data}}
					if c.event != "note" {
						e.Event.JobID = fmt.Sprint(i % 1000)
					}
					if _, err := s.Publish(context.Background(), []delivery.Entry{e}); err != nil {
						b.Error(err)
					}
				})
			})
		}
	}
}

// BenchmarkMemory is what the store adds to a POST: a thousand users with eight jobs each, of which either all run on or
// each ends at once.
func BenchmarkMemory(b *testing.B) {
	const users, jobs = 1000, 8
	data := json.RawMessage(`{"jobId":"job-123456","progress":42,"message":"halfway through the export"}`)
	for _, name := range []string{events.JobProgress, events.JobCompleted} {
		b.Run(name, func(b *testing.B) {
			s := NewMemory(delivery.Limits{}, nil)
			entries := make([]delivery.Entry, 1)
			b.ReportAllocs()
			for i := range b.N {
				job := i / users
				if name == events.JobProgress {
					job %= jobs
				}
				entries[0].Event = events.Event{
					UserID: fmt.Sprint("user-", i%users), Name: name, JobID: fmt.Sprint("job-", job), Data: data,
				}
				if _, err := s.Publish(b.Context(), entries); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkDisk(b *testing.B) {
	for _, batch := range []int{1, 64} {
		b.Run(fmt.Sprintf("events=%d", batch), func(b *testing.B) {
			f, err := os.Create(filepath.Join(b.TempDir(), "log"))
			if err != nil {
				b.Fatal(err)
			}
			defer f.Close()
			record := make([]byte, 200*batch)
			b.ResetTimer()
			for range b.N {
				if _, err := f.Write(record); err != nil {
					b.Fatal(err)
				}
				if err := f.Sync(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N*batch)/b.Elapsed().Seconds(), "events/s")
		})
	}
}

// crowd shares b.N calls among n goroutines.
func crowd(b *testing.B, n int, call func()) {
	var left atomic.Int64
	left.Store(int64(b.N))
	var wg sync.WaitGroup
	b.ResetTimer()
	b.ReportAllocs()
	for range n {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				call()
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

// BenchmarkAgainstDisk takes turns with the same disk in slices of 200 ms,
// since a shared disk's speed changes by the second: 64 goroutines that post
// durable events, and a loop that appends as many bytes for 64 of them and
// syncs. vs-disk is the share of the loop's events that were published.
func BenchmarkAgainstDisk(b *testing.B) {
	dir := b.TempDir()
	s := mustOpen(b, dir, Options{})
	f, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	const slice = 200 * time.Millisecond
	record := make([]byte, 64*250)
	var posted, synced atomic.Int64
	b.ResetTimer()
	for range b.N {
		var wg sync.WaitGroup
		end := time.Now().Add(slice)
		for w := range 64 {
			wg.Go(func() {
				for time.Now().Before(end) {
					if _, err := post(s, note(fmt.Sprint("user", w))); err != nil {
						b.Error(err)
						return
					}
					posted.Add(1)
				}
			})
		}
		wg.Wait()
		for end = time.Now().Add(slice); time.Now().Before(end); synced.Add(64) {
			if _, err := f.Write(record); err != nil {
				b.Fatal(err)
			}
			if err := f.Sync(); err != nil {
				b.Fatal(err)
			}
		}
	}
	perSecond := 1 / (slice.Seconds() * float64(b.N))
	b.ReportMetric(float64(posted.Load())*perSecond, "events/s")
	b.ReportMetric(float64(synced.Load())*perSecond, "disk-events/s")
	b.ReportMetric(float64(posted.Load())/float64(synced.Load()), "vs-disk")
}
