package delivery_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"jobwire/internal/delivery"
	"jobwire/internal/events"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// wait waits, at most as long as ctx lasts. It takes no timer for no time: in a bubble, the race detector crashes when a timer
// ends as it begins.
func wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func sleep(d time.Duration) { _ = wait(context.Background(), d) }

var quiet = slog.New(slog.DiscardHandler)

// frame is what a client gets: one packet.
type frame struct {
	name, data string
	id         events.ID // the trailing id; zero when there is none
	offset     string    // what the client takes for its offset; "" when it keeps the old one
	place      events.ID // as emitted; a replay does not tell that of state
	receipt    bool
	at         time.Time
	page       *delivery.JobsPage // the answer to a question for jobs: a frame of its own in the order of what a socket gets
}

func parseFrame(packet []byte, place events.ID, receipt bool) frame {
	var args []json.RawMessage
	if err := json.Unmarshal(packet[1:], &args); err != nil || packet[0] != '2' || len(args) < 2 || len(args) > 3 {
		panic(fmt.Sprintf("not the packet of an event: %q", packet))
	}
	f := frame{data: string(args[1]), place: place, receipt: receipt, at: time.Now()}
	_ = json.Unmarshal(args[0], &f.name)
	_ = json.Unmarshal(args[len(args)-1], &f.offset) // as socket.io-client does it: the last argument, if it is a string
	if len(args) == 3 {
		f.id, _ = events.ParseID(f.offset)
	}
	if f.offset != "" && f.id.IsZero() || f.receipt != (f.id != events.ID{}) || f.receipt && f.id != place {
		panic(fmt.Sprintf("packet %q was emitted at place %s, receipt %v", packet, place, receipt))
	}
	return f
}

// hub is the sockets of one process. It remembers what was emitted to each user.
type hub struct {
	mu      sync.Mutex
	emitted map[string][]frame
	rooms   map[string][]*sink
	closed  []string
	onEmit  func(user string, f frame) // called without lock
}

var _ delivery.Emitter = (*hub)(nil)

func newHub() *hub {
	return &hub{emitted: make(map[string][]frame), rooms: make(map[string][]*sink)}
}

func (h *hub) Emit(user string, packet []byte, place events.ID, receipt bool) int {
	f := parseFrame(packet, place, receipt)
	h.mu.Lock()
	h.emitted[user] = append(h.emitted[user], f)
	room := slices.Clone(h.rooms[user])
	fn := h.onEmit
	h.mu.Unlock()
	for _, k := range room {
		k.room(f)
	}
	if fn != nil {
		fn(user, f)
	}
	return len(room)
}

// then sets what happens at an emission.
func (h *hub) then(onEmit func(user string, f frame)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.onEmit = onEmit
}

func (h *hub) Disconnect(user, reason string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = append(h.closed, user+": "+reason)
	return len(h.rooms[user])
}

// Reconnect is not expected: no store here loses what it has stored.
func (h *hub) Reconnect(user string) { panic("the sockets of " + user + " must come back") }

func (h *hub) Sockets(user string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.rooms[user])
}

// sink is a socket with a queue that its client reads.
type sink struct {
	hub          *hub
	user, offset string
	has          bool
	onFrame      func(f frame)        // called without lock, for what is sent to the client, in order
	onLive       func(upTo events.ID) // called when the replay is over
	onSkip       func(f frame)        // called for what is left out since the replay has shown it

	mu     sync.Mutex
	joined bool
	live   bool
	gone   bool
	upTo   events.ID
	held   []frame
	got    []frame // what was sent to the client, in order
	queued int     // bytes that it has not read
	most   int     // the most that ever waited for it
}

var _ delivery.Sink = (*sink)(nil)

func (k *sink) UserID() string         { return k.user }
func (k *sink) Offset() (string, bool) { return k.offset, k.has }

func (k *sink) Join() {
	k.hub.mu.Lock()
	defer k.hub.mu.Unlock()
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.gone {
		return
	}
	k.joined = true
	k.hub.rooms[k.user] = append(k.hub.rooms[k.user], k)
}

// leave takes the socket out of its room.
func (k *sink) leave() {
	k.hub.mu.Lock()
	defer k.hub.mu.Unlock()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.gone = true
	k.hub.rooms[k.user] = slices.DeleteFunc(k.hub.rooms[k.user], func(other *sink) bool { return other == k })
}

func (k *sink) Emit(packet []byte, id events.ID) bool {
	f := parseFrame(packet, id, !id.IsZero())
	k.mu.Lock()
	if k.gone {
		k.mu.Unlock()
		return false
	}
	k.take(f)
	k.mu.Unlock()
	if k.onFrame != nil {
		k.onFrame(f)
	}
	return true
}

// take queues a frame. The lock is held.
func (k *sink) take(f frame) {
	k.got = append(k.got, f)
	k.queued += len(f.name) + len(f.data)
	k.most = max(k.most, k.queued)
}

// room is told of what is emitted to the user.
func (k *sink) room(f frame) {
	k.mu.Lock()
	then := k.onFrame
	switch {
	case k.gone:
		then = nil
	case !k.live:
		k.held = append(k.held, f)
		then = nil
	case f.place.Compare(k.upTo) <= 0:
		then = k.onSkip
	default:
		k.take(f)
	}
	k.mu.Unlock()
	if then != nil {
		then(f)
	}
}

func (k *sink) Live(upTo events.ID) {
	k.mu.Lock()
	held := k.held
	k.live, k.upTo, k.held = true, upTo, nil
	k.mu.Unlock()
	if k.onLive != nil {
		k.onLive(upTo)
	}
	for _, f := range held {
		k.room(f)
	}
}

func (k *sink) Buffered() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.queued
}

// read lets the client read so many bytes.
func (k *sink) read(n int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.queued = max(0, k.queued-n)
}

func (k *sink) frames() []frame {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.got)
}

// names is what frames say, in short.
func names(frames []frame) string {
	var b strings.Builder
	for i, f := range frames {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(strings.TrimPrefix(f.name, "job_") + f.data)
	}
	return b.String()
}

func event(user, name, job, data string) events.Event {
	return events.Event{UserID: user, Name: name, Kind: events.KindOf(name), JobID: job, Data: json.RawMessage(data)}
}

func note(data string) events.Event           { return event("ann", "note", "", data) }
func progress(job, data string) events.Event  { return event("ann", events.JobProgress, job, data) }
func completed(job, data string) events.Event { return event("ann", events.JobCompleted, job, data) }

func attempt(n uint32, ev events.Event) events.Event {
	ev.Attempt, ev.HasAttempt = n, true
	return ev
}

func keyed(key string, ev events.Event) events.Event {
	ev.IdempotencyKey = key
	return ev
}

func watched(after time.Duration, ev events.Event) events.Event {
	ev.StaleAfter = after
	return ev
}

// world is a service on a reference of its own. Its test closes it, inside of its bubble when it has one.
type world struct {
	*testing.T
	*delivery.Service
	ref   *reference
	store *handle
	hub   *hub
}

func begin(t *testing.T, cfg delivery.Config) *world {
	return beginOn(t, cfg, newReference())
}

func beginOn(t *testing.T, cfg delivery.Config, ref *reference) *world {
	if cfg.Logger == nil {
		cfg.Logger = quiet
	}
	w := &world{T: t, ref: ref, store: ref.open(), hub: newHub()}
	w.Service = delivery.New(cfg, w.store, w.hub)
	return w
}

// end closes the service, and checks that nothing of a user is left.
func (w *world) end() {
	w.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := w.Close(ctx); err != nil {
		w.Errorf("close: %v", err)
	}
	w.store.kill()
	if n := w.Stats().Disorder.Load(); n != 0 {
		w.Errorf("%d deliveries out of order", n)
	}
}

// idle fails the test when something of a user is left in memory, or a follow is not taken back.
func (w *world) idle() {
	w.Helper()
	if left := w.Idle(); left != "" {
		w.Errorf("left in memory: %s", left)
	}
	w.ref.mu.Lock()
	defer w.ref.mu.Unlock()
	if len(w.store.follows) > 0 || w.store.unfollow > 0 {
		w.Errorf("followed: %v; unfollowed in vain: %d times", w.store.follows, w.store.unfollow)
	}
}

func (w *world) publish(ev events.Event) delivery.Result {
	w.Helper()
	res, err := w.Publish(context.Background(), ev)
	if err != nil {
		w.Errorf("publish %s: %v", ev.Name, err)
	}
	return res
}

// socket is one that has not connected yet.
func (w *world) socket(user string) *sink { return &sink{hub: w.hub, user: user} }

// connect opens a socket and runs its replay.
func (w *world) connect(k *sink) *delivery.Replay {
	w.Helper()
	r, err := w.Open(context.Background(), k)
	if err == nil {
		err = r.Run(context.Background())
	}
	if err != nil {
		w.Errorf("connect: %v", err)
		return new(delivery.Replay)
	}
	return r
}

// bye closes a socket.
func (w *world) bye(k *sink) {
	k.leave()
	w.Leave(k.user)
}
