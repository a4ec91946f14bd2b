// Package relay holds what the two Go peers of the bench share, so that they
// differ only in their websocket side: the token check, the worker's POST and
// the life of the process. A request flows in as HTTP, an event flows out
// through the Publish function that the peer hands in.
package relay

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	_ "net/http/pprof" // served on the debug address only
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// maxBody is the largest event a worker may post, in bytes, as in jobwire.
const maxBody = 64 << 10

// Settings are what the bench hands to every server it starts.
type Settings struct {
	Addr      string // host:port to listen on
	DebugAddr string // host:port of net/http/pprof; empty for none
	Secret    []byte // HS256 key of the tokens
	APIKey    string // what workers present as a bearer token
}

// FromEnv reads Settings from the BENCH_… environment.
func FromEnv() (Settings, error) {
	s := Settings{
		Addr:      os.Getenv("BENCH_ADDR"),
		DebugAddr: os.Getenv("BENCH_DEBUG_ADDR"),
		Secret:    []byte(os.Getenv("BENCH_JWT_SECRET")),
		APIKey:    os.Getenv("BENCH_API_KEY"),
	}
	if s.Addr == "" || len(s.Secret) == 0 || s.APIKey == "" {
		return s, errors.New("BENCH_ADDR, BENCH_JWT_SECRET and BENCH_API_KEY must be set")
	}
	return s, nil
}

// Verify checks a token as jobwire does (HS256 only, expiry required) and
// returns its subject.
func (s Settings) Verify(token string) (string, error) {
	var claims jwt.RegisteredClaims
	_, err := jwt.ParseWithClaims(token, &claims,
		func(*jwt.Token) (any, error) { return s.Secret, nil },
		jwt.WithValidMethods([]string{"HS256"}), jwt.WithExpirationRequired())
	if err != nil {
		return "", fmt.Errorf("verify token: %w", err)
	}
	if claims.Subject == "" {
		return "", errors.New("verify token: no subject")
	}
	return claims.Subject, nil
}

// Publish sends one event to every socket of a user and returns how many
// sockets that were.
type Publish func(userID, event string, data json.RawMessage) (sockets int, err error)

// Events is the handler of POST /v1/events.
func (s Settings) Events(publish Publish) http.Handler {
	want := []byte(s.APIKey)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if subtle.ConstantTimeCompare([]byte(key), want) != 1 {
			http.Error(w, "unauthorized", http.StatusUnauthorized)
			return
		}
		var in struct {
			UserID string          `json:"userId"`
			Event  string          `json:"event"`
			Data   json.RawMessage `json:"data"`
		}
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&in); err != nil {
			http.Error(w, "bad request", http.StatusBadRequest)
			return
		}
		if in.UserID == "" || in.Event == "" {
			http.Error(w, "bad request", http.StatusBadRequest)
			return
		}
		sockets, err := publish(in.UserID, in.Event, in.Data)
		if err != nil {
			http.Error(w, "internal", http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusAccepted)
		_ = json.NewEncoder(w).Encode(struct { // the worker is gone; nothing to tell it
			Status  string `json:"status"`
			Sockets int    `json:"sockets"`
		}{"sent", sockets})
	})
}

// Serve runs handler until SIGINT or SIGTERM ends the process.
func (s Settings) Serve(handler http.Handler) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	failed := make(chan error, 2)
	if s.DebugAddr != "" {
		debug := &http.Server{Addr: s.DebugAddr, Handler: http.DefaultServeMux, ReadHeaderTimeout: 5 * time.Second}
		go func() { failed <- debug.ListenAndServe() }()
		defer debug.Close()
	}
	srv := &http.Server{Addr: s.Addr, Handler: handler, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 2 * time.Minute}
	go func() { failed <- srv.ListenAndServe() }()
	defer srv.Close()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		return nil
	}
}
