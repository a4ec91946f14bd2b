package delivery_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"jobwire/internal/delivery"
	"jobwire/internal/events"
	"jobwire/internal/store/embedded"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.DiscardHandler)

// wire records what is emitted to the rooms of users.
type wire struct {
	mu      sync.Mutex
	sent    map[string][]frame
	sockets int
	onEmit  func(user string, f frame)
}

type frame struct {
	name, data string
	id         events.ID
	confirm    bool
	at         time.Time
}

func (w *wire) Emit(user string, packet []byte, id events.ID, confirm bool) int {
	f := parseFrame(packet, id, confirm)
	w.mu.Lock()
	if w.sent == nil {
		w.sent = make(map[string][]frame)
	}
	w.sent[user] = append(w.sent[user], f)
	n, fn := w.sockets, w.onEmit
	w.mu.Unlock()
	if fn != nil {
		fn(user, f)
	}
	return n
}

func (w *wire) of(user string) []frame {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]frame(nil), w.sent[user]...)
}

// rising fails the test unless the ids of a user's emissions rise.
func rising(t *testing.T, frames []frame) {
	t.Helper()
	for i := 1; i < len(frames); i++ {
		if frames[i-1].id.Compare(frames[i].id) >= 0 {
			t.Fatalf("%s %s was emitted before %s %s", frames[i-1].name, frames[i-1].id, frames[i].name, frames[i].id)
		}
	}
}

func parseFrame(packet []byte, id events.ID, confirm bool) frame {
	var parts []json.RawMessage
	if err := json.Unmarshal(packet[1:], &parts); err != nil || packet[0] != '2' {
		panic(fmt.Sprintf("not a packet: %q", packet))
	}
	f := frame{confirm: confirm, at: time.Now()}
	_ = json.Unmarshal(parts[0], &f.name)
	f.data = string(parts[1])
	if len(parts) > 2 {
		var text string
		_ = json.Unmarshal(parts[2], &text)
		f.id, _ = events.ParseID(text)
	}
	if f.id != id {
		panic(fmt.Sprintf("packet %q was emitted as %s", packet, id))
	}
	return f
}

func event(user, name, job, data string) events.Event {
	return events.Event{UserID: user, Name: name, JobID: job, Data: json.RawMessage(data)}
}

func progress(job string, n int) events.Event {
	return event("ann", events.JobProgress, job, fmt.Sprintf(`{"jobId":%q,"progress":%d}`, job, n))
}

func completed(job string) events.Event {
	return event("ann", events.JobCompleted, job, fmt.Sprintf(`{"jobId":%q}`, job))
}

// begin starts a service in memory. It must be closed by the test, inside of
// its bubble when it has one.
func begin(t *testing.T, cfg delivery.Config, w *wire) *delivery.Service {
	t.Helper()
	return beginOn(t, cfg, embedded.NewMemory(delivery.Limits{}, nil), w)
}

func beginOn(t *testing.T, cfg delivery.Config, store delivery.Store, w *wire) *delivery.Service {
	t.Helper()
	if cfg.Logger == nil {
		cfg.Logger = quiet
	}
	return delivery.New(cfg, store, w)
}

func end(t *testing.T, s *delivery.Service) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := s.Close(ctx); err != nil {
		t.Errorf("close: %v", err)
	}
	if n := s.Stats().Disorder; n != 0 {
		t.Errorf("%d emissions out of order", n)
	}
	if !s.Idle() {
		t.Error("something of a user is left in memory")
	}
}

func publish(t *testing.T, s *delivery.Service, ev events.Event) delivery.Result {
	t.Helper()
	res, err := s.Publish(context.Background(), ev)
	if err != nil {
		t.Fatalf("publish %s: %v", ev.Name, err)
	}
	return res
}
