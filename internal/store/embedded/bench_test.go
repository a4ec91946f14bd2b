package embedded

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"jobwire/internal/delivery"
	"jobwire/internal/events"
)

var quiet = slog.New(slog.DiscardHandler)

// processTime is the CPU time that the process has used.
func processTime() time.Duration {
	var r syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// BenchmarkPublish posts events from 64 goroutines to a store that is full to its limits, so that every message has another
// one removed.
func BenchmarkPublish(b *testing.B) {
	data := json.RawMessage(`{"jobId":"job-123456","progress":42,"message":"halfway through the export"}`)
	for _, kind := range []struct {
		name string
		kind events.Kind
	}{{"note", events.Message}, {events.JobProgress, events.Progress}} {
		for _, users := range []int{1, 64, 1000, 10_000} {
			for _, where := range []string{"disk", "memory"} {
				b.Run(fmt.Sprintf("%s/%s/users=%d", where, kind.name, users), func(b *testing.B) {
					limits := delivery.Limits{Messages: min(1000, 200_000/users)}
					open := func() (*Store, error) { return OpenMemory(limits, Options{Logger: quiet}) }
					if where == "disk" {
						open = func() (*Store, error) { return Open(b.TempDir(), limits, Options{Logger: quiet}) }
					}
					s, err := open()
					if err != nil {
						b.Fatal(err)
					}
					defer closeWithin(s, 5*time.Second)
					names := make([]string, users)
					for i := range names {
						names[i] = fmt.Sprint("user", i)
					}
					entry := func() delivery.Entry { return delivery.Entry{Event: events.Event{Name: "note", Data: data}} }
					crowd(8, users, func(i int) {
						for left := limits.Messages; left > 0; {
							entries := make([]delivery.Entry, min(left, 500))
							for k := range entries {
								entries[k] = entry()
							}
							left -= len(entries)
							if _, err := s.Publish(context.Background(), names[i], entries); err != nil {
								b.Error(err)
							}
						}
					})
					jobs := make([]string, 8)
					for i := range jobs {
						jobs[i] = fmt.Sprint("job-", i)
					}
					before := processTime()
					b.ReportAllocs()
					b.ResetTimer()
					crowd(64, b.N, func(i int) {
						e := entry()
						if e.Name, e.Kind = kind.name, kind.kind; kind.kind == events.Progress {
							e.JobID = jobs[i/users%len(jobs)]
						}
						if _, err := s.Publish(context.Background(), names[i%users], []delivery.Entry{e}); err != nil {
							b.Error(err)
						}
					})
					b.StopTimer()
					b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
					b.ReportMetric(float64((processTime()-before).Microseconds())/float64(b.N), "cpu-µs/event")
				})
			}
		}
	}
}

// crowd shares n calls among goroutines.
func crowd(goroutines, n int, call func(i int)) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				call(int(i))
			}
		})
	}
	wg.Wait()
}
