package handlers

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"time"

	"golang.org/x/time/rate"

	"jobwire/internal/auth"
	"jobwire/internal/delivery"
	"jobwire/internal/events"
	"jobwire/internal/realtime"
)

// Audience is what a session asks of presence.
type Audience interface {
	// Arrive counts a socket and names the room in which it hears of others; "" for none.
	Arrive(ctx context.Context, userID, tenant, socketID string) (room string, err error)
	// Welcome sends online_users to a socket that has arrived and is in its room.
	Welcome(ctx context.Context, userID, tenant string, send func(packet []byte)) error
	// OnlineUsers is who is online for that viewer: {users, count}.
	OnlineUsers(ctx context.Context, userID, tenant string) (json.RawMessage, error)
	// Leave ends what Arrive began. It does nothing for a socket that has not arrived.
	Leave(ctx context.Context, userID, tenant, socketID string) error
}

// Replayer is what a session asks of delivery.
type Replayer interface {
	// Open lets a socket join its user's room; every call needs one Leave.
	Open(ctx context.Context, sink delivery.Sink) (*delivery.Replay, error)
	Leave(userID string)
	Confirmed(userID string, id events.ID)
}

// Sessions is the life of a user's socket, from the handshake to the close. It implements [realtime.Lifecycle].
type Sessions struct {
	authenticate func(realtime.Handshake) (auth.Identity, error)
	audience     Audience
	replayer     Replayer
	log          *slog.Logger
	asks         askLimits
}

// NewSessions ties sockets to presence and delivery.
func NewSessions(authenticate func(realtime.Handshake) (auth.Identity, error), audience Audience, replayer Replayer, log *slog.Logger) *Sessions {
	return &Sessions{
		authenticate: authenticate, audience: audience, replayer: replayer, log: log,
		asks: askLimits{now: time.Now, bySession: make(map[*realtime.Session]*rate.Limiter)},
	}
}

// Authenticate answers who the connecting client is.
func (s *Sessions) Authenticate(h realtime.Handshake) (auth.Identity, error) {
	return s.authenticate(h)
}

// Connected greets the socket, shows it who is online and replays what it missed, in that order and before anything newer. A
// socket that cannot get its replay is closed: its client comes back for it.
func (s *Sessions) Connected(ctx context.Context, session *realtime.Session) {
	id := session.Identity()
	replay, err := s.replayer.Open(ctx, sink{session})
	if err != nil {
		s.giveUp(session, "replay", err)
		return
	}
	emit(session, events.Authenticated, greeting{newIdentity(id), replay.Recovered})

	if err := s.welcome(ctx, session); err != nil {
		s.giveUp(session, "presence", err)
	} else if err := replay.Run(ctx); err != nil {
		s.giveUp(session, "replay", err)
	}
}

// welcome makes the socket's user online and shows it who else is. The room comes before the list: who arrives in between is
// announced twice rather than not at all.
func (s *Sessions) welcome(ctx context.Context, session *realtime.Session) error {
	id := session.Identity()
	room, err := s.audience.Arrive(ctx, id.UserID, id.Tenant, session.ID())
	if err != nil {
		return err
	}
	if room != "" {
		session.Join(room)
	}
	return s.audience.Welcome(ctx, id.UserID, id.Tenant, func(packet []byte) {
		session.Emit(realtime.Message{Packet: packet})
	})
}

// Disconnected takes the socket out of presence. It comes after Connected has returned, and so after Arrive.
func (s *Sessions) Disconnected(session *realtime.Session, _ string) {
	s.replayer.Leave(session.UserID())
	id := session.Identity()
	if err := s.audience.Leave(context.Background(), id.UserID, id.Tenant, session.ID()); err != nil {
		s.log.Warn("a socket cannot leave presence", "socket", session.ID(), "error", err)
	}
	s.asks.forget(session)
}

// Confirmed passes a receipt on.
func (s *Sessions) Confirmed(userID string, id events.ID) { s.replayer.Confirmed(userID, id) }

// giveUp closes a socket that cannot go live.
func (s *Sessions) giveUp(session *realtime.Session, what string, err error) {
	if !errors.Is(err, delivery.ErrSinkClosed) && !errors.Is(err, context.Canceled) { // else the client has gone meanwhile
		s.log.Warn("a socket cannot go live", "failed", what, "socket", session.ID(), "error", err)
	}
	session.Close(reasonReplayFailed)
}

// reasonReplayFailed is why a socket was closed that could not be brought up to date.
const reasonReplayFailed = "replay failed"

// sink is a session as delivery sees it.
type sink struct{ *realtime.Session }

func (s sink) Join() { s.Session.JoinUser() }

func (s sink) Emit(packet []byte, id events.ID) bool {
	return s.Session.Emit(realtime.Message{Packet: packet, Place: id, Confirm: !id.IsZero()})
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
	session.Emit(realtime.Message{Packet: events.Encode(name, marshal(payload), events.ID{})})
}
