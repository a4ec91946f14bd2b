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
)

// places is a store that only gives places: what is left is the price of delivery.
type places struct {
	delivery.Store // for what is not called
	feed           delivery.Feed
	users          map[string]*placesUser
}

type placesUser struct {
	mu   sync.Mutex
	last events.ID
}

func (s *places) Subscribe(feed delivery.Feed) func() { s.feed = feed; return func() {} }
func (s *places) Unfollow(string)                     {}

func (s *places) Follow(context.Context, string) (events.ID, error) { return events.ID{}, nil }

func (s *places) Confirm(context.Context, []delivery.Cursor) error { return nil }

func (s *places) Read(context.Context, delivery.Query) (delivery.Page, error) {
	return delivery.Page{Recovered: true}, nil
}

func (s *places) Stall(context.Context, int) (int, error) { return 0, nil }

func (s *places) Publish(_ context.Context, userID string, entries []delivery.Entry) ([]delivery.Decision, error) {
	u := s.users[userID]
	decisions := make([]delivery.Decision, len(entries))
	for i := range entries {
		e := &entries[i]
		told := new(struct {
			delivery.Delivery
			delivery.Emission
		})
		u.mu.Lock()
		prev := u.last
		u.last.Seq++
		told.Delivery = delivery.Delivery{
			UserID: userID, Place: u.last, Prev: prev, Name: e.Name, Data: e.Data, Kind: e.Kind, JobID: e.JobID, Emission: &told.Emission,
		}
		told.Expect(1)
		run := s.feed.Deliver(&told.Delivery)
		u.mu.Unlock()
		if run {
			s.feed.Run(userID)
		}
		decisions[i].Place = told.Place
		decisions[i].Sockets, decisions[i].Held = told.Wait()
	}
	return decisions, nil
}

type nowhere struct{}

func (nowhere) Reconnect(string)                         {}
func (nowhere) Emit(string, []byte, events.ID, bool) int { return 1 }
func (nowhere) Disconnect(string, string) int            { return 0 }
func (nowhere) Sockets(string) int                       { return 1 }

func BenchmarkPublish(b *testing.B) {
	for _, c := range []struct {
		name     string
		ev       events.Event
		throttle time.Duration
	}{
		{"message", note(`{"jobId":"1","progress":42}`), 100 * time.Millisecond},
		{"progress", progress("1", `{"jobId":"1","progress":42}`), 100 * time.Millisecond},
		{"progress/unthrottled", progress("1", `{"jobId":"1","progress":42}`), 0},
	} {
		for _, users := range []int{1, 1000} {
			b.Run(fmt.Sprintf("%s/users=%d", c.name, users), func(b *testing.B) {
				store := &places{users: make(map[string]*placesUser)}
				hub := newHub()
				s := delivery.New(delivery.Config{Coalesce: c.throttle, SweepEvery: time.Hour, Logger: quiet}, store, nowhere{})
				defer s.Close(context.Background())
				ids := make([]string, users)
				for i := range ids {
					ids[i] = fmt.Sprint("user", i)
					store.users[ids[i]] = new(placesUser)
					if _, err := s.Open(context.Background(), &sink{hub: hub, user: ids[i]}); err != nil {
						b.Fatal(err)
					}
				}
				var n atomic.Int64
				b.ReportAllocs()
				b.SetParallelism(16)
				b.RunParallel(func(pb *testing.PB) {
					ev := c.ev
					for pb.Next() {
						ev.UserID = ids[n.Add(1)%int64(users)]
						if _, err := s.Publish(context.Background(), ev); err != nil {
							b.Error(err)
						}
					}
				})
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
			})
		}
	}
}
