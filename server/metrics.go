package server

import (
	"jobwire/internal/metrics"
	"jobwire/middleware"
)

// register adds the numbers that all parts keep of themselves to the metrics. They are read when a scrape asks, so counting
// costs the hot path nothing more.
func (s *Server) register(requests *middleware.Requests, origins *middleware.Origins, handshakes *middleware.Limiter) {
	parts := metrics.Parts{
		Hub:               s.hub.Stats,
		Delivery:          s.delivery.Stats,
		UsersOnline:       s.presence.Count,
		HandshakesRefused: func() uint64 { return handshakes.Stats().Refused },
		OriginsRefused:    func() uint64 { return origins.Stats().Refused },
	}
	if s.file != nil {
		parts.Store = func() metrics.StoreStats { return metrics.StoreStats(s.file.Stats()) }
	}
	s.metrics.Register(parts, requests)
}
