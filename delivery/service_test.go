package delivery_test

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"testing"

	"jobwire/backend/embedded"
	"jobwire/delivery"
	"jobwire/events"
)

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
}

func (w *wire) Emit(user string, packet []byte, id events.ID, confirm bool) int {
	f := parseFrame(packet)
	if f.id != id {
		panic("the packet carries another id")
	}
	f.confirm = confirm
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

func parseFrame(packet []byte) frame {
	var parts []json.RawMessage
	if err := json.Unmarshal(packet[1:], &parts); err != nil || packet[0] != '2' {
		panic(fmt.Sprintf("not a packet: %q", packet))
	}
	var f frame
	var id string
	_ = json.Unmarshal(parts[0], &f.name)
	f.data = string(parts[1])
	if len(parts) > 2 {
		_ = json.Unmarshal(parts[2], &id)
		f.id, _ = events.ParseID(id)
	}
	return f
}

func event(user, name, job, data string) events.Event {
	return events.Event{UserID: user, Name: name, JobID: job, Data: json.RawMessage(data)}
}

func TestPublishAnswersAndEmits(t *testing.T) {
	w := &wire{sockets: 2}
	s := delivery.New(delivery.Config{}, embedded.NewMemory(delivery.Limits{}, nil), w)
	defer s.Close(context.Background())
	res, err := s.Publish(t.Context(), event("ann", "invoice_ready", "", `{"n":1}`))
	if err != nil || res.Status != delivery.StatusSent || res.Sockets != 2 || res.ID.IsZero() {
		t.Fatalf("result %+v, error %v", res, err)
	}
	got := w.of("ann")
	if len(got) != 1 || got[0] != (frame{"invoice_ready", `{"n":1}`, res.ID, true}) {
		t.Fatalf("emitted %+v", got)
	}
}
