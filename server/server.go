// Package server builds one jobwire node from its settings and runs it: the store, delivery, presence, the hub with its sockets,
// and the HTTP API. In flow settings and a listener; out flow logs and, at the end, one error.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"jobwire/config"
	"jobwire/handlers"
	"jobwire/internal/auth"
	"jobwire/internal/delivery"
	"jobwire/internal/engine"
	"jobwire/internal/events"
	"jobwire/internal/metrics"
	"jobwire/internal/presence"
	"jobwire/internal/realtime"
	"jobwire/internal/store/embedded"
	"jobwire/middleware"
)

// Server is one node. New opens its store; Serve runs it to its end.
type Server struct {
	settings config.Settings
	log      *slog.Logger

	store    *embedded.Store
	delivery *delivery.Service
	presence *presence.Service
	hub      *realtime.Hub
	metrics  *metrics.Registry
	http     *http.Server
	debug    *http.Server // nil when nobody asked for profiles

	draining atomic.Bool
}

// New builds a node; version names its build in the metrics. It fails when the settings contradict each other or the
// store cannot be opened. A node that is never served must be closed.
func New(settings config.Settings, version string, log *slog.Logger) (*Server, error) {
	verifier, err := auth.NewVerifier(settings.Verifier())
	if err != nil {
		return nil, fmt.Errorf("user tokens: %w", err)
	}
	keys, err := auth.NewKeys(settings.APIKeys)
	if err != nil {
		return nil, fmt.Errorf("api keys: %w", err)
	}
	s := &Server{settings: settings, log: log, metrics: metrics.New(version)}
	if s.store, err = openStore(settings, s.metrics, log); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}

	out := &fanout{}
	s.delivery = delivery.New(delivery.Config{Coalesce: settings.Coalesce, OnReceipt: s.metrics.ReceiptCame, Logger: log}, s.store, out)
	s.presence = presence.New(presence.Config{
		Grace:    settings.PresenceGrace,
		Audience: presence.Audience(settings.PresenceAudience),
	}, out)
	sessions := handlers.NewSessions(middleware.SocketAuth(verifier), s.presence, s.delivery, log)
	s.hub = realtime.New(realtime.Config{
		HandshakeTimeout:   settings.HandshakeTimeout,
		MaxUnauthenticated: settings.MaxUnauthenticated,
		MaxSocketsPerUser:  settings.MaxSocketsPerUser,
		EventRate:          orUnlimited(settings.EventRate),
		Logger:             log,
		Engine: engine.Config{
			PingInterval: settings.PingInterval,
			PingTimeout:  settings.PingTimeout,
			MaxPayload:   int(settings.MaxPayload),
			MaxQueue:     int(settings.MaxQueue),
			MaxConns:     settings.MaxConnections,
		},
	}, sessions)
	out.hub = s.hub
	handlers.RegisterClientEvents(s.hub, sessions, s.delivery, verifier)

	routes, err := s.routes(keys)
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	s.http = &http.Server{
		Handler:           routes,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       requestTimeout,
		WriteTimeout:      requestTimeout + answerTimeout, // it begins with the request, and even a late body's refusal must get out
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug), // a stranger's broken requests
	}
	return s, nil
}

// How long a worker may take to send a request and to take its answer.
const (
	requestTimeout = 30 * time.Second
	answerTimeout  = 60 * time.Second
)

// orUnlimited is a rate of which 0 means no limit.
func orUnlimited(rate int) float64 {
	if rate == 0 {
		return math.Inf(1)
	}
	return float64(rate)
}

// openStore opens the store that the settings name.
func openStore(settings config.Settings, metrics *metrics.Registry, log *slog.Logger) (*embedded.Store, error) {
	limits := delivery.Limits{
		Retention:     settings.Retention,
		Messages:      settings.RetentionEvents,
		MessagesBytes: int(settings.RetentionBytes),
		Jobs:          settings.RetentionJobs,
		JobsBytes:     int(settings.RetentionJobsBytes),
	}
	options := embedded.Options{Logger: log, MaxBytes: int64(settings.MaxStoreBytes), OnSync: metrics.StoreSynced}
	if settings.DataDir == config.InMemory {
		return embedded.OpenMemory(limits, options)
	}
	return embedded.Open(settings.DataDir, limits, options)
}

// Ready implements handlers.Readiness.
func (s *Server) Ready(context.Context) error {
	if s.draining.Load() {
		return &events.Error{Code: delivery.CodeShuttingDown}
	}
	if s.store.Ready() != nil {
		return &events.Error{Code: delivery.CodeStoreUnavailable}
	}
	return nil
}

// Serve answers on listener until ctx ends, then drains: it reports itself as not ready, refuses new events and sockets, lets the
// workers' calls finish, flushes what is held back, closes the sockets so that their clients reconnect elsewhere by themselves,
// and the listener. It returns nil after a complete drain within the limit of the settings, and has closed everything in any case.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	served := make(chan error, 1)
	go func() { served <- s.http.Serve(listener) }()
	if err := s.serveProfiles(); err != nil {
		return errors.Join(err, s.Close())
	}
	select {
	case err := <-served: // the listener failed
		return errors.Join(fmt.Errorf("accept: %w", err), s.Close())
	case <-ctx.Done():
	}
	s.draining.Store(true)
	s.log.Info("draining", "limit", s.settings.Drain)
	// The caller's ctx has ended; the drain has a limit of its own.
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.settings.Drain)
	defer cancel()
	err := s.drain(limit)
	if end := <-served; !errors.Is(end, http.ErrServerClosed) {
		err = errors.Join(err, end)
	}
	if err == nil {
		s.log.Info("drained")
	}
	return err
}

// drain ends the node from the inside out. Delivery goes before the hub, because what it still holds back needs the sockets; the
// hub goes before the listener, because clients on long polls come for what is queued with new requests. Meanwhile the hub
// refuses new sockets and delivery new events.
//
// Each stage has half of the time that is left, so that none leaves the next without any. Clients that do not read, or do not
// end their request, are cut off; that is no failure of the drain.
func (s *Server) drain(ctx context.Context) error {
	flushed := s.within(ctx, "events", s.delivery.Close)
	_ = s.within(ctx, "sockets", s.hub.Shutdown)
	if s.http != nil { // or its routes could not be made
		_ = s.within(ctx, "requests", s.http.Shutdown)
		_ = s.http.Close()
	}
	s.presence.Close()
	if s.debug != nil {
		_ = s.debug.Close()
	}
	return errors.Join(stage("flush", flushed), stage("close the store", s.store.Close(ctx)))
}

// within lets others end in half of the time that is left until ctx's deadline.
func (s *Server) within(ctx context.Context, what string, end func(context.Context) error) error {
	deadline, _ := ctx.Deadline()
	ctx, cancel := context.WithTimeout(ctx, time.Until(deadline)/2)
	defer cancel()
	err := end(ctx)
	if err != nil {
		s.log.Warn("cut off at the end of the drain", "what", what, "error", err)
	}
	return err
}

// Close ends a node that is not served.
func (s *Server) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), s.settings.Drain)
	defer cancel()
	return s.drain(ctx)
}

func stage(name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", name, err)
}
