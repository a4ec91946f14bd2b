package handlers

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"jobwire/internal/auth"
	"jobwire/internal/delivery"
	"jobwire/internal/realtime"
)

// unwell is a world in which a socket cannot go live.
type unwell struct {
	quiet
	err error
}

func (u unwell) Arrive(context.Context, string, string, string) (string, error) { return "", u.err }

type unread struct {
	leaves
	err error
}

func (u unread) Open(context.Context, delivery.Sink) (*delivery.Replay, error) {
	return new(delivery.Replay), u.err
}

// arrive connects a socket. The log is the session's until the hub's Shutdown has returned.
func arrive(t *testing.T, audience Audience, replayer Replayer) (context.Context, *websocket.Conn, *realtime.Hub, *bytes.Buffer) {
	t.Helper()
	log := new(bytes.Buffer)
	authenticate := func(realtime.Handshake) (auth.Identity, error) {
		return auth.Identity{UserID: "ann", ExpiresAt: time.Now().Add(time.Hour)}, nil
	}
	hub := realtime.New(realtime.Config{Logger: silent()}, NewSessions(authenticate, audience, replayer, slog.New(slog.NewTextHandler(log, nil))))
	server := httptest.NewServer(hub)
	t.Cleanup(server.Close)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	ws, _, err := websocket.Dial(ctx, strings.Replace(server.URL, "http", "ws", 1)+"/socket.io/?EIO=4&transport=websocket", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := ws.Write(ctx, websocket.MessageText, []byte("40{}")); err != nil {
		t.Fatal(err)
	}
	return ctx, ws, hub, log
}

// The log says what has failed when a socket cannot go live.
func TestASocketThatCannotGoLiveIsLogged(t *testing.T) {
	no := errors.New("no")
	for _, c := range []struct {
		name         string
		arrive, open error
		want         string
	}{
		{"the store", nil, no, "replay"},
		{"presence", no, nil, "presence"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, ws, hub, log := arrive(t, unwell{err: c.arrive}, unread{err: c.open})
			var err error
			for err == nil {
				_, _, err = ws.Read(ctx)
			}
			if ctx.Err() != nil {
				t.Fatal("the socket was not closed")
			}
			if err := hub.Shutdown(ctx); err != nil {
				t.Fatal(err)
			}
			if lines := log.String(); strings.Count(lines, "\n") != 1 || !strings.Contains(lines, " failed="+c.want+" ") {
				t.Errorf("logged %s, want %s", lines, c.want)
			}
		})
	}
}

// late is a store that has not answered when the client goes.
type late struct {
	leaves
	asked chan struct{}
}

func (l late) Open(ctx context.Context, _ delivery.Sink) (*delivery.Replay, error) {
	close(l.asked)
	<-ctx.Done()
	return nil, ctx.Err()
}

// Nothing has failed when a client goes before it has its replay: anyone with a token could fill the log.
func TestAClientThatGoesDuringItsReplayIsNotLogged(t *testing.T) {
	store := late{asked: make(chan struct{})}
	ctx, ws, hub, log := arrive(t, unwell{}, store)
	<-store.asked
	_ = ws.CloseNow()
	for hub.Stats().Sessions > 0 && ctx.Err() == nil {
		time.Sleep(time.Millisecond)
	}
	if err := hub.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	if log.Len() > 0 {
		t.Errorf("logged %s", log)
	}
}
