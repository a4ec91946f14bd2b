// Package server is the little server behind the conformance tests: the real engine and the real hub with the handlers that the
// protocols' own test suites expect, so that those can be pointed at it too (cmd).
//
//	/engine.io/   an Engine.IO server that sends every message back
//	/socket.io/   a Socket.IO server without tokens: "auth" with the CONNECT payload once connected; "message" is sent back
//	              as "message-back", "message-with-ack" acknowledged with its arguments
//
// It has the main namespace only, as jobwire has.
package server

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"jobwire/internal/auth"
	"jobwire/internal/engine"
	"jobwire/internal/events"
	"jobwire/internal/realtime"
)

// What the test suites expect of a server.
const (
	PingInterval   = 300 * time.Millisecond
	PingTimeout    = 200 * time.Millisecond
	MaxPayload     = 1_000_000
	ConnectTimeout = time.Second
)

// Server is an http.Handler for both paths.
type Server struct {
	mux  *http.ServeMux
	echo *engine.Server
	hub  *realtime.Hub
}

// New returns a running server.
func New(log *slog.Logger) *Server {
	settings := engine.Config{PingInterval: PingInterval, PingTimeout: PingTimeout, MaxPayload: MaxPayload, Logger: log}
	s := &Server{
		mux: http.NewServeMux(),
		echo: engine.NewServer(settings, func(c *engine.Conn, _ *http.Request) engine.Handler {
			return echo{c}
		}),
		hub: realtime.New(realtime.Config{
			HandshakeTimeout:  ConnectTimeout,
			MaxSocketsPerUser: 1 << 20, // everybody is the same user
			NoRecovery:        true,    // the suites expect no pid
			Engine:            settings,
			Logger:            log,
		}, lifecycle{}),
	}
	realtime.HandleInOrder(s.hub, "message", func(_ context.Context, to *realtime.Session, in realtime.Args, _ func(any, error)) {
		to.Send(packet("2", "", append([]json.RawMessage{[]byte(`"message-back"`)}, in.Values...), in.Attachments)...)
		answer(to, in, realtime.Args{})
	})
	realtime.HandleInOrder(s.hub, "message-with-ack", func(_ context.Context, to *realtime.Session, in realtime.Args, _ func(any, error)) {
		answer(to, in, in)
	})
	s.mux.Handle("/engine.io/", s.echo)
	s.mux.Handle("/socket.io/", s.hub)
	return s
}

func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// Shutdown closes all connections and waits for them.
func (s *Server) Shutdown(ctx context.Context) error {
	err := s.hub.Shutdown(ctx)
	if also := s.echo.Shutdown(ctx); err == nil {
		err = also
	}
	return err
}

// echo sends every message back.
type echo struct{ conn *engine.Conn }

func (e echo) Message(data []byte, binary bool) engine.Task {
	frame := engine.TextFrame
	if binary {
		frame = engine.BinaryFrame
	}
	_ = e.conn.Send(frame(data)) // fails when the client has gone
	return nil
}
func (echo) Pong(uint32)               {}
func (echo) Closed(string) engine.Task { return nil }

// answer acknowledges an event with arguments, if its client asks for that.
func answer(to *realtime.Session, event, with realtime.Args) {
	if event.Asked {
		to.Send(packet("3", strconv.FormatUint(event.ID, 10), with.Values, with.Attachments)...)
	}
}

// packet encodes an event ("2") or the ack with that id ("3"), and its attachments.
func packet(kind, id string, values []json.RawMessage, attachments [][]byte) []*engine.Frame {
	if n := len(attachments); n > 0 {
		kind = fmt.Sprintf("%d%d-", kind[0]-'0'+3, n) // the binary types follow in the same order
	}
	elements := make([]string, len(values))
	for i, v := range values {
		elements[i] = string(v)
	}
	frames := []*engine.Frame{engine.TextFrame([]byte(kind + id + "[" + strings.Join(elements, ",") + "]"))}
	for _, attachment := range attachments {
		frames = append(frames, engine.BinaryFrame(attachment))
	}
	return frames
}

// lifecycle lets everybody in and tells them what they sent.
type lifecycle struct{}

// Authenticate puts the CONNECT payload where Connected finds it.
func (lifecycle) Authenticate(h realtime.Handshake) (auth.Identity, error) {
	payload := string(h.Auth)
	if payload == "" {
		payload = "{}"
	}
	return auth.Identity{UserID: "anybody", Tenant: payload}, nil
}

func (lifecycle) Connected(_ context.Context, s *realtime.Session) {
	s.Emit(realtime.Message{Packet: events.Encode("auth", []byte(s.Identity().Tenant), events.ID{})})
}
func (lifecycle) Disconnected(*realtime.Session, string) {}
func (lifecycle) Confirmed(string, events.ID)            {}
