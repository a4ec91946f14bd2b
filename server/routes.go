package server

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"jobwire/handlers"
	"jobwire/internal/auth"
	"jobwire/internal/metrics"
	"jobwire/middleware"
	webdemo "jobwire/web-demo"
)

// What the demo gives to whoever asks: tokens that are good for so long, and so many requests a second to one address.
const (
	demoTokenTTL = time.Hour
	demoRate     = 20
)

// routes is the whole route table.
func (s *Server) routes(keys *auth.Keys) (http.Handler, error) {
	proxies := middleware.NewProxies(s.settings.TrustedProxies)
	origins, err := middleware.NewOrigins(s.settings.Origins, proxies)
	if err != nil {
		return nil, fmt.Errorf("origins: %w", err)
	}
	handshakes := middleware.NewLimiter(middleware.LimiterConfig{
		Rate: float64(s.settings.HandshakeRate), Burst: s.settings.HandshakeBurst,
	}, proxies)
	requests := middleware.NewRequests()

	gin.SetMode(gin.ReleaseMode)
	r := gin.New()
	handlers.Prepare(r)
	r.Use(
		middleware.AssignRequestID(),
		requests.Count(),
		middleware.AccessLog(s.log, slog.LevelDebug, keys),
		middleware.Recovery(s.log, handlers.Problem),
	)

	r.Group("/socket.io/",
		middleware.LongPolls(), // the engine has limits of its own
		origins.Sockets(),
		handshakes.Sockets(),
		proxies.ShowClient(),
	).Any("", gin.WrapH(s.hub))

	s.metrics.Register(metrics.Parts{
		Hub:      s.hub.Stats,
		Delivery: s.delivery.Stats,
		Store:    s.store.Stats,
		UsersOnline: func() int {
			count, _ := s.presence.Count(context.Background()) // the store of this node never fails
			return count
		},
		HandshakesRefused: handshakes.Refused,
		OriginsRefused:    origins.Refused,
	}, requests)
	health := handlers.NewHealth(s, s.metrics.Handler())
	probe := []string{http.MethodGet, http.MethodHead}
	r.Match(probe, "/livez", handlers.Answer(health.Live))
	r.Match(probe, "/readyz", handlers.Answer(health.Ready))
	r.GET("/metrics", health.Metrics)
	r.GET("/openapi.yaml", handlers.OpenAPI)

	publish := handlers.NewEvents(s.delivery, handlers.EventsConfig{
		MaxEventBytes: int(s.settings.MaxEventBytes),
		MaxBatchItems: s.settings.MaxBatch,
		MaxBatchBytes: int(s.settings.MaxBatchBytes),
	})
	who := handlers.NewPresence(s.presence)
	users := handlers.NewUsers(s.delivery)
	v1 := r.Group("/v1", middleware.APIKey(keys, handlers.Problem))
	v1.POST("/events", publish.Publish)
	v1.POST("/events/batch", publish.Batch)
	v1.GET("/presence", handlers.Answer(who.List))
	v1.GET("/presence/count", handlers.Answer(who.Count))
	v1.POST("/presence/query", handlers.Answer(who.Query))
	v1.GET("/presence/:userId", handlers.Answer(who.Get))
	v1.GET("/users/:userId/jobs", handlers.Answer(users.Jobs))
	v1.POST("/users/:userId/disconnect", handlers.Answer(users.Disconnect))

	if s.settings.Demo {
		demo, err := s.demo()
		if err != nil {
			return nil, err
		}
		visits := middleware.NewLimiter(middleware.LimiterConfig{Rate: demoRate, Burst: 10 * demoRate}, proxies)
		guarded := r.Group("/", origins.Guard(handlers.Problem), visits.Guard(handlers.Problem))
		guarded.Any(webdemo.Path+"*path", gin.WrapH(demo))
		guarded.Any(strings.TrimSuffix(webdemo.Path, "/"), gin.WrapH(demo))
	}
	return r, nil
}

// demo is the demo page. Only under --dev does it get a worker's key, and then the server is on loopback.
func (s *Server) demo() (http.Handler, error) {
	minting := s.settings.Minting()
	cfg := webdemo.Config{Mint: func(userID, tenant string) (string, time.Time, error) {
		expires := time.Now().Add(demoTokenTTL)
		token, err := auth.Mint(minting, userID, tenant, demoTokenTTL, nil)
		return token, expires, err
	}}
	if s.settings.Dev {
		cfg.APIKey = s.settings.APIKeys[0].Secret
		cfg.LoopbackOnly = true
	}
	return webdemo.Handler(cfg)
}
