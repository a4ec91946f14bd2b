// Package realtime is the Socket.IO side of the house: the [Hub] owns the Socket.IO library's server, every connected
// [Session], and the rooms they are in.
//
// In flow connections (from package engine) and messages for users and rooms (from delivery and presence); out flow calls to a
// [Lifecycle] (authenticate, connected, disconnected, confirmed) and to the typed handlers of client events ([Handle]). Nothing
// outside sees the library, its callbacks or its []any.
//
// # The way of a packet
//
//	engine reader → ingress (copies, counts, never blocks others) → that session's task → decoder → connect | handler
//	EmitUser → snapshot of the room → one engine.Frame → Conn.Send of each session
//
// The ingress stands before the library. It decodes every packet itself, strictly (codec.go), and lets the library see one
// thing only: a CONNECT to the main namespace that is well formed and is the first of its connection. The library then does
// what it is good at (middleware, CONNECT and CONNECT_ERROR, socket identity); it is told when the connection is gone. Events
// never reach it: it would run each in a goroutine of its own and lose their order.
//
// All packets of one session are handled one at a time, in order, on a goroutine that lives only while there is work: a slow
// handler holds back nobody but its own client.
//
// # What is refused, and how
//
// The namespace is "/". A CONNECT to another one is answered CONNECT_ERROR {"message":"Invalid namespace"}, at most three times
// a connection. A refused CONNECT is answered CONNECT_ERROR {"message":…,"data":{"code":…,"message":…}}, and the connection is
// closed a second later. Everything else that is not allowed closes the connection at once, under a reason that is counted
// ([Stats].Closed): packets that are not Socket.IO 5, events before the CONNECT was answered, a second CONNECT, attachments
// beyond eight or beyond 1 MiB, more events than Config.EventRate allows, and a CONNECT as a binary message, which is answered
// CONNECT_ERROR in msgpack. An ACK that nobody asked for is ignored, and counts as an event against the rate.
//
// # Order
//
// Two emits made one after the other reach every session in that order. Emits made at the same time may reach two sockets in
// different order; who needs one order for a user serializes its emits, as delivery does. An emit reaches those who were in the
// room when it began, and a session that leaves meanwhile drops it: no lock is held while sending.
package realtime

import (
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zishang520/socket.io/v2/socket"

	"jobwire/internal/engine"
	"jobwire/internal/timers"
)

// Hub serves Socket.IO to any number of clients and sends messages to users and rooms.
type Hub struct {
	config    Config
	lifecycle Lifecycle
	log       *slog.Logger
	handlers  map[string]handler // complete before the hub serves

	engine  *engine.Server
	io      *socket.Server
	binding *engine.Binding

	users     *index // a room for every user, by user id
	rooms     *index // those of Session.Join
	deadlines *timers.List[*deadline]
	asks      asks
	tokenCost int64 // ns that a message takes from the token bucket
	count     counters
	emissions sync.Pool // of *emission

	base   context.Context // of all handlers; ends when Shutdown gives up on them
	cancel context.CancelFunc
	loops  sync.WaitGroup // of asks; they end with base
}

// New returns a hub that serves nobody yet. Its goroutines end with Shutdown.
func New(config Config, lifecycle Lifecycle) *Hub {
	config = config.WithDefaults()
	h := &Hub{
		config:    config,
		lifecycle: lifecycle,
		log:       config.Logger,
		handlers:  make(map[string]handler),
		users:     newIndex(func(s *Session) *seat { return &s.user }),
		rooms:     newIndex(func(s *Session) *seat { return &s.other }),
		deadlines: timers.New[*deadline](func() int64 { return time.Now().UnixNano() }),
		asks:      asks{wake: make(chan struct{}, 1)},
		tokenCost: max(1, int64(float64(time.Second)/config.EventRate)),
	}
	h.base, h.cancel = context.WithCancel(context.Background())
	h.loops.Go(func() { h.asks.run(h.base, config.ReceiptInterval) })
	h.emissions.New = func() any { return new(emission) }
	config.Engine.Refuse = h.overloaded
	h.engine = engine.NewServer(config.Engine, h.accept)
	h.io, h.binding = newLibrary(h)
	return h
}

// ServeHTTP serves polling requests and websocket handshakes at any path. Handshakes beyond MaxUnauthenticated are answered 503
// with {"code":"too_many_unauthenticated","message":…}.
func (h *Hub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// Many at a time, or with "sid=" smuggled into their handshakes, get as far as accept, which counts again.
	if h.full() && r.Method == http.MethodGet && !strings.Contains(r.URL.RawQuery, "sid=") {
		h.overloaded(w)
		return
	}
	h.engine.ServeHTTP(w, r)
}

// overloaded answers a handshake beyond MaxUnauthenticated.
func (h *Hub) overloaded(w http.ResponseWriter) {
	h.count.overloaded.Add(1)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Retry-After", "1")
	w.WriteHeader(http.StatusServiceUnavailable)
	_ = json.NewEncoder(w).Encode(map[string]string{
		"code": "too_many_unauthenticated", "message": "Too many connections are waiting to authenticate.",
	})
}

func (h *Hub) full() bool {
	return h.count.unauthenticated.Load() >= int64(h.config.MaxUnauthenticated)
}

// accept is called by the engine for every new connection, before anything is read from it.
func (h *Hub) accept(conn *engine.Conn, r *http.Request) engine.Handler {
	if h.count.unauthenticated.Add(1) > int64(h.config.MaxUnauthenticated) {
		h.count.unauthenticated.Add(-1)
		return nil // which overloaded answers
	}
	authorization := r.Header.Get("Authorization")
	s := &Session{hub: h, conn: conn, authorization: strings.Clone(authorization[:min(len(authorization), maxAuthorization)])}
	s.setDeadline(time.Now().Add(h.config.HandshakeTimeout)) // nobody else has it yet
	return (*ingress)(s)
}

// UserSockets counts the sessions of a user that have joined the user's room.
func (h *Hub) UserSockets(userID string) int { return h.users.count(userID) }

// DisconnectUser ends all sessions of a user for good: last, if not nil, is the last packet they get, then Socket.IO's
// DISCONNECT, then the transport closes. It returns how many sessions there were. A CONNECT that is being judged meanwhile is
// not among them: whoever revokes access does so at the lifecycle first.
func (h *Hub) DisconnectUser(userID string, last []byte) (sockets int) {
	frames := []*engine.Frame{disconnectFrame}
	if last != nil {
		frames = []*engine.Frame{engine.TextFrame(last), disconnectFrame}
	}
	for _, s := range h.users.sessionsIn(userID) {
		if s.conn.Send(frames...) == nil {
			sockets++
		}
		s.Close(ReasonServerDisconnect)
	}
	return sockets
}

var disconnectFrame = engine.TextFrame([]byte{byte(packetDisconnect)})

// ReconnectUser closes the connections of a user's sessions, after what is queued. The clients come back by themselves.
func (h *Hub) ReconnectUser(userID string) {
	for _, s := range h.users.sessionsIn(userID) {
		s.Close(ReasonMissedEvents)
	}
}

// Shutdown stops accepting, lets the engine close all connections so that clients reconnect by themselves, and waits until
// every Disconnected has returned. When ctx ends first, handlers are told through their context, and ctx's error is returned.
func (h *Hub) Shutdown(ctx context.Context) error {
	defer context.AfterFunc(ctx, h.cancel)()
	err := h.engine.Shutdown(ctx) // the sessions' tasks among them
	h.cancel()
	h.deadlines.Stop()
	h.loops.Wait()
	return err
}

// Stats is a snapshot of a hub's counters and gauges. Counters only grow; gauges say so.
type Stats struct {
	Unauthenticated int64 // gauge: connections without a session
	Sessions        int64 // gauge: sessions
	Rooms           int   // gauge: rooms, one per connected user included

	Connected     uint64            // sessions that were opened
	Refused       map[string]uint64 // CONNECTs refused, by code; invalid_namespace among them
	Overloaded    uint64            // handshakes answered 503: Config.MaxUnauthenticated
	Closed        map[string]uint64 // connections that ended, by reason
	Packets       uint64            // messages that clients sent, attachments counted one by one
	Events        uint64            // events for which there was a handler
	UnknownEvents uint64            // events for which there was none
	Emits         uint64            // EmitUser and EmitRoom calls that found a session
	Deliveries    uint64            // messages that EmitUser and EmitRoom handed to sessions
	Panics        uint64            // recovered; each closed its connection

	Engine engine.Stats
}

// counters are the hub's live numbers behind Stats.
type counters struct {
	unauthenticated, sessions              atomic.Int64
	connected, overloaded, packets, events atomic.Uint64
	unknown, emits, deliveries, panics     atomic.Uint64
	refused, closed                        tally
}

// tally counts by name. The names are reasons and codes of the program, never what a client sent.
type tally struct {
	mu sync.Mutex
	by map[string]uint64
}

func (t *tally) add(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.by == nil {
		t.by = make(map[string]uint64)
	}
	t.by[name]++
}

func (t *tally) copy() map[string]uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.by)
}

// Stats returns the hub's numbers. They are read one by one, so they agree with each other only when nothing moves.
func (h *Hub) Stats() Stats {
	n := &h.count
	return Stats{
		Unauthenticated: n.unauthenticated.Load(), Sessions: n.sessions.Load(), Rooms: h.users.size() + h.rooms.size(),
		Connected: n.connected.Load(), Refused: n.refused.copy(), Overloaded: n.overloaded.Load(), Closed: n.closed.copy(),
		Packets: n.packets.Load(), Events: n.events.Load(), UnknownEvents: n.unknown.Load(),
		Emits: n.emits.Load(), Deliveries: n.deliveries.Load(), Panics: n.panics.Load(),
		Engine: h.engine.Stats(),
	}
}
