package handlers

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"time"

	"jobwire/internal/auth"
	"jobwire/internal/delivery"
	"jobwire/internal/events"
	"jobwire/internal/realtime"
)

// Audience is what a session asks of presence.
type Audience interface {
	Arrive(userID, tenant, socketID string)
	Leave(userID, tenant, socketID string, clean bool)
	// Room names the room in which a socket hears of others; "" for none.
	Room(userID, tenant string) string
	// Snapshot tells who is online for that viewer; count is exact, users bounded.
	Snapshot(userID, tenant string) (users []string, count int)
	// Welcome sends online_users to a socket that is in its room already.
	Welcome(userID, tenant string, send func(packet []byte))
}

// Replayer is what a session asks of delivery.
type Replayer interface {
	Open(ctx context.Context, sink delivery.Sink) (*delivery.Replay, error)
	Confirmed(userID string, id events.ID)
}

// Sessions is the life of a user's socket, from the handshake to the close.
// It implements [realtime.Lifecycle].
type Sessions struct {
	authenticate func(realtime.Handshake) (auth.Identity, error)
	audience     Audience
	replayer     Replayer
	log          *slog.Logger
	asks         askLimits
}

// NewSessions ties sockets to presence and delivery.
func NewSessions(authenticate func(realtime.Handshake) (auth.Identity, error), audience Audience, replayer Replayer, log *slog.Logger) *Sessions {
	return &Sessions{authenticate: authenticate, audience: audience, replayer: replayer, log: log}
}

// Authenticate answers who the connecting client is.
func (s *Sessions) Authenticate(h realtime.Handshake) (auth.Identity, error) {
	return s.authenticate(h)
}

// Connected greets the socket, shows it who is online and replays what it
// missed, in that order and before anything newer. A socket that cannot get
// its replay is closed: its client comes back for it.
func (s *Sessions) Connected(session *realtime.Session) {
	id := session.Identity()
	session.Hold()
	replay, err := s.replayer.Open(context.Background(), sink{session})
	if err != nil {
		s.giveUp(session, err)
		return
	}
	emit(session, events.Authenticated, greeting{newIdentity(id), replay.Recovered})

	// The room comes before the list: who arrives in between is told twice
	// rather than not at all.
	if room := s.audience.Room(id.UserID, id.Tenant); room != "" {
		session.Join(room)
	}
	s.audience.Arrive(id.UserID, id.Tenant, session.ID())
	s.audience.Welcome(id.UserID, id.Tenant, func(packet []byte) {
		session.Emit(realtime.Message{Packet: packet})
	})

	if err := replay.Run(context.Background()); err != nil {
		s.giveUp(session, err)
	}
}

// Disconnected takes the socket out of presence. Only the client's own
// disconnect is final; everything else may be a reload.
func (s *Sessions) Disconnected(session *realtime.Session, reason string) {
	id := session.Identity()
	s.audience.Leave(id.UserID, id.Tenant, session.ID(), reason == realtime.ReasonClientDisconnect)
	s.asks.forget(session)
}

// Confirmed passes a receipt on.
func (s *Sessions) Confirmed(userID string, id events.ID) { s.replayer.Confirmed(userID, id) }

// giveUp closes a socket that did not get its replay.
func (s *Sessions) giveUp(session *realtime.Session, err error) {
	if !errors.Is(err, delivery.ErrSinkClosed) {
		s.log.Warn("replay failed", "socket", session.ID(), "error", err)
	}
	session.Close(reasonReplayFailed)
}

// reasonReplayFailed is why a socket was closed that could not be brought up to date.
const reasonReplayFailed = "replay failed"

// sink is a session as delivery sees it.
type sink struct{ *realtime.Session }

func (s sink) Emit(packet []byte, id events.ID, confirm bool) bool {
	return s.Session.Emit(realtime.Message{Packet: packet, ID: id, Confirm: confirm})
}

// identity is what a client is told about itself.
type identity struct {
	UserID    string `json:"userId"`
	ExpiresAt string `json:"expiresAt"`
}

func newIdentity(id auth.Identity) identity {
	return identity{UserID: id.UserID, ExpiresAt: id.ExpiresAt.UTC().Format(time.RFC3339)}
}

type greeting struct {
	identity
	// Recovered is false when the client may have missed events since its offset.
	Recovered bool `json:"recovered"`
}

// emit sends one of the server's own, never stored events.
func emit(session *realtime.Session, name string, payload any) {
	data, err := json.Marshal(payload)
	if err != nil {
		panic(err) // the payloads are this file's own structs
	}
	session.Emit(realtime.Message{Packet: events.Encode(name, data, events.ID{})})
}
