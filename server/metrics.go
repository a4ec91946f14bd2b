package server

import (
	"context"

	"jobwire/internal/metrics"
	"jobwire/middleware"
)

// register adds the numbers that all parts keep of themselves to the metrics. They are read when a scrape asks, so counting
// costs the hot path nothing more.
func (s *Server) register(requests *middleware.Requests, origins *middleware.Origins, handshakes *middleware.Limiter) {
	s.metrics.Register(metrics.Parts{
		Hub:      s.hub.Stats,
		Delivery: s.delivery.Stats,
		Store: func() metrics.StoreStats {
			st := s.store.Stats()
			return metrics.StoreStats{
				Syncs: st.Syncs, Failures: st.Failures, Size: st.Size, Free: st.Free, UnwrittenUsers: st.Unwritten, Failing: st.Failing,
			}
		},
		UsersOnline: func() int {
			count, _ := s.presence.Count(context.Background()) // the store of this node never fails
			return count
		},
		HandshakesRefused: handshakes.Refused,
		OriginsRefused:    origins.Refused,
	}, requests)
}
