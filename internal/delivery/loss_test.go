package delivery_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"jobwire/internal/delivery"
	"jobwire/internal/store/embedded"
)

// lockedBuffer is a log that several goroutines write.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func TestLossIsCountedAndLoggedInOneLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log lockedBuffer
		store := embedded.NewMemory(delivery.Limits{Events: 10, Retention: time.Hour}, nil)
		s := beginOn(t, delivery.Config{Logger: slog.New(slog.NewJSONHandler(&log, nil))}, store, &wire{})
		for i := range 30 {
			id := publish(t, s, event("ann", "note", "", `1`)).ID
			if i == 9 {
				s.Confirmed("ann", id) // only a receipt that is stored counts
				time.Sleep(time.Second)
			}
		}
		publish(t, s, event("bob", "note", "", `"secret"`))
		time.Sleep(2 * time.Hour)
		end(t, s)
		// Ann lost 10 of her 20 unconfirmed ones to the limit, the rest to time.
		if st := s.Stats(); st.Dropped != 31 || st.Lost != 21 {
			t.Errorf("dropped %d, lost %d", st.Dropped, st.Lost)
		}
		lines := bytes.Split(bytes.TrimSpace(log.b.Bytes()), []byte("\n"))
		var first struct {
			Events, Users int
			Worst         string `json:"worst_user"`
		}
		if err := json.Unmarshal(lines[0], &first); err != nil || first.Events != 10 || first.Users != 1 || first.Worst != "ann" {
			t.Errorf("logged %s", lines[0])
		}
		if len(lines) != 2 || bytes.Contains(log.b.Bytes(), []byte("secret")) {
			t.Errorf("logged %s", log.b.Bytes())
		}
	})
}

func FuzzOffset(f *testing.F) {
	for _, s := range []string{"", "0-0", "1-1", "18446744073709551615-18446744073709551615", "1700000000000-0", "-", "00-1", "1-1-1", "\x00"} {
		f.Add(s)
	}
	s := delivery.New(delivery.Config{Logger: quiet}, embedded.NewMemory(delivery.Limits{Events: 5}, nil), &wire{})
	for range 8 {
		if _, err := s.Publish(context.Background(), event("ann", "note", "", `1`)); err != nil {
			f.Fatal(err)
		}
	}
	f.Cleanup(func() { _ = s.Close(context.Background()) })
	f.Fuzz(func(t *testing.T, offset string) {
		k := &sink{user: "ann", offset: offset, has: true}
		recovered, err := s.Attach(context.Background(), k)
		if err != nil || !k.live {
			t.Fatalf("offset %q: live %v, %v", offset, k.live, err)
		}
		rising(t, k.got)
		if len(k.got) != 5 { // nothing is confirmed, so all that is retained is seen in any case
			t.Errorf("offset %q, recovered %v: %d events", offset, recovered, len(k.got))
		}
	})
}
