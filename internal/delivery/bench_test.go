package delivery_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"jobwire/internal/delivery"
	"jobwire/internal/events"
	"jobwire/internal/store/embedded"
)

type nowhere struct{}

func (nowhere) Emit(string, []byte, events.ID, bool) int { return 1 }

func BenchmarkService(b *testing.B) {
	for _, backend := range []string{"memory", "bolt"} {
		for _, name := range []string{events.JobProgress, "note"} {
			for _, users := range []int{1, 1000} {
				b.Run(fmt.Sprintf("%s/%s/users=%d", backend, name, users), func(b *testing.B) {
					var store delivery.Store = embedded.NewMemory(delivery.Limits{}, nil)
					if backend == "bolt" {
						bolt, err := embedded.Open(b.TempDir(), delivery.Limits{}, embedded.Options{Logger: quiet})
						if err != nil {
							b.Fatal(err)
						}
						defer bolt.Close()
						store = bolt
					}
					s := delivery.New(delivery.Config{Coalesce: 100 * time.Millisecond, Logger: quiet}, store, nowhere{})
					defer s.Close(context.Background())
					var n atomic.Int64
					var wg sync.WaitGroup
					b.ReportAllocs()
					b.ResetTimer()
					for range 64 {
						wg.Go(func() {
							for {
								i := n.Add(1)
								if i > int64(b.N) {
									return
								}
								ev := event(fmt.Sprint("user", i%int64(users)), name, "", `{"jobId":"1","progress":42}`)
								if name == events.JobProgress {
									ev.JobID = fmt.Sprint(i % 7)
								}
								if _, err := s.Publish(context.Background(), ev); err != nil {
									b.Error(err)
								}
							}
						})
					}
					wg.Wait()
					b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
				})
			}
		}
	}
}
