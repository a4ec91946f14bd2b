package realtime

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/zishang520/socket.io/v2/socket"

	"jobwire/internal/engine"
	"jobwire/internal/events"
)

// Hub serves Socket.IO to any number of clients and sends messages to users and rooms.
type Hub struct {
	config    Config
	lifecycle Lifecycle
	log       *slog.Logger
	handlers  map[string]rawHandler // complete before the hub serves

	engine  *engine.Server
	io      *socket.Server
	binding *engine.Binding

	rooms     *index
	deadlines *deadlines
	asks      asks
	tokenCost int64 // ns that a message takes from the token bucket
	count     counters
	emissions sync.Pool // of *emission

	base   context.Context // of all handlers; ends when Shutdown gives up on them
	cancel context.CancelFunc
	loops  sync.WaitGroup // of deadlines and asks; they end with base
}

// emission is what an emit needs while it is on its way.
type emission struct {
	members []member // of the room
	frames  [1]*engine.Frame
}

// Message is one Socket.IO packet on its way to clients.
type Message struct {
	Packet  []byte    // from events.Encode; copied by the call that takes it
	Place   events.ID // among what its user is shown; zero for what has none
	Confirm bool      // ask the client for a receipt of the message with that place as its id
}

// New returns a hub that serves nobody yet. Its goroutines end with Shutdown.
func New(config Config, lifecycle Lifecycle) *Hub {
	config = config.WithDefaults()
	h := &Hub{
		config:    config,
		lifecycle: lifecycle,
		log:       config.Logger,
		handlers:  make(map[string]rawHandler),
		rooms:     newIndex(),
		deadlines: newDeadlines(),
		asks:      asks{wake: make(chan struct{}, 1)},
		tokenCost: max(1, int64(float64(time.Second)/config.EventRate)),
	}
	h.base, h.cancel = context.WithCancel(context.Background())
	h.loops.Go(func() { h.deadlines.run(h.base) })
	h.loops.Go(func() { h.asks.run(h.base, config.ReceiptInterval) })
	h.emissions.New = func() any { return new(emission) }
	config.Engine.Refuse = h.overloaded
	h.engine = engine.NewServer(config.Engine, h.accept)
	h.io, h.binding = newLibrary(h)
	return h
}

// ServeHTTP serves polling requests and websocket handshakes at any path. Handshakes beyond MaxUnauthenticated are answered
// 503 with {"code":"too_many_unauthenticated","message":…}.
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
	if len(authorization) > maxAuthorization {
		authorization = authorization[:maxAuthorization]
	}
	s := &Session{hub: h, conn: conn, authorization: strings.Clone(authorization)}
	h.deadlines.set(s, time.Now().Add(h.config.HandshakeTimeout))
	return (*ingress)(s)
}

// EmitUser sends m to the sessions of a user that have not been shown newer, one frame for all of them, or keeps it back for
// them until Live. It returns to how many.
func (h *Hub) EmitUser(userID string, m Message) (sockets int) {
	var room [len(userRoomPrefix) + events.MaxUserIDLen]byte
	return h.emit(append(append(room[:0], userRoomPrefix...), userID...), m, func(to *member, frames []*engine.Frame) bool {
		switch {
		case to.shown == unseen, !m.Place.IsZero() && m.Place.Compare(to.shown) <= 0:
			return false
		case to.open != nil && !m.Confirm:
			return to.open.Send(frames...) == nil
		}
		return to.session.deliver(frames, m.Place, m.Confirm)
	})
}

// UserSockets counts the sessions of a user that have joined the user's room.
func (h *Hub) UserSockets(userID string) int { return h.rooms.count(userRoomPrefix + userID) }

// RoomPacket is a Socket.IO packet for a room.
type RoomPacket struct {
	Packet     []byte // from events.Encode; copied by the call that takes it
	ExceptUser string // whose sessions do not get it; at most one packet of a call names the same user. "" for none
}

// EmitRoom sends packets to the sessions in a room, in order and past what is kept back. They are encoded once, and each session gets
// all that are for it in one write. It returns to how many sessions.
func (h *Hub) EmitRoom(room string, packets []RoomPacket) (sockets int) {
	sessions := h.rooms.sessionsIn(room)
	if len(sessions) == 0 || len(packets) == 0 {
		return 0
	}
	var batch engine.Batch
	except := make(map[string]int) // the places of packets that leave a user out
	for i, p := range packets {
		batch.Add(p.Packet)
		if p.ExceptUser != "" {
			except[p.ExceptUser] = i
		}
	}
	last, deliveries := len(packets), 0
	all := [1]*engine.Frame{batch.Frame(0, last)}
	for _, s := range sessions {
		frames, n := all[:], last
		if i, out := except[s.userID]; out {
			if n--; n == 0 {
				continue
			}
			frames = frames[:0:0]
			if i > 0 {
				frames = append(frames, batch.Frame(0, i))
			}
			if i+1 < last {
				frames = append(frames, batch.Frame(i+1, last))
			}
		}
		if s.send(frames, events.ID{}, false) {
			sockets++
			deliveries += n
		}
	}
	h.count.emits.Add(1)
	h.count.deliveries.Add(uint64(deliveries))
	return sockets
}

// emit calls send for everybody who is in the room now, with m as one frame, and returns how often it was true.
func (h *Hub) emit(room []byte, m Message, send func(to *member, frames []*engine.Frame) bool) (sockets int) {
	e := h.emissions.Get().(*emission)
	e.members = h.rooms.appendMembers(e.members[:0], room)
	if len(e.members) > 0 {
		e.frames[0] = engine.TextFrame(m.Packet)
		for i := range e.members {
			if send(&e.members[i], e.frames[:]) {
				sockets++
			}
		}
		h.count.emits.Add(1)
		h.count.deliveries.Add(uint64(sockets))
	}
	clear(e.members) // sessions must not live on in the pool
	e.frames[0] = nil
	h.emissions.Put(e)
	return sockets
}

// DisconnectUser ends all sessions of a user for good: last, if not nil, is the last packet they get, then Socket.IO's
// DISCONNECT, then the transport closes. It returns how many sessions there were. A CONNECT that is being judged meanwhile
// is not among them: whoever revokes access does so at the lifecycle first.
func (h *Hub) DisconnectUser(userID string, last []byte) (sockets int) {
	var frame *engine.Frame
	if last != nil {
		frame = engine.TextFrame(last)
	}
	for _, s := range h.rooms.sessionsIn(userRoomPrefix + userID) {
		if s.disconnect(frame) {
			sockets++
		}
	}
	return sockets
}

// ReconnectUser closes the connections of a user's sessions, after what is queued. The clients come back by themselves.
func (h *Hub) ReconnectUser(userID string) {
	for _, s := range h.rooms.sessionsIn(userRoomPrefix + userID) {
		s.Close(ReasonMissedEvents)
	}
}

// Shutdown stops accepting, lets the engine close all connections so that clients reconnect by themselves, and waits until
// every Disconnected has returned. When ctx ends first, handlers are told through their context, and ctx's error is returned.
func (h *Hub) Shutdown(ctx context.Context) error {
	defer context.AfterFunc(ctx, h.cancel)()
	err := h.engine.Shutdown(ctx) // the sessions' tasks among them
	h.cancel()
	h.loops.Wait()
	return err
}
