package server

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/VictoriaMetrics/metrics"

	"jobwire/middleware"
)

// metrics gathers the numbers that all parts keep of themselves. They are
// read when somebody asks, so counting costs the hot path nothing more.
func (s *Server) metrics(requests *middleware.Requests, origins *middleware.Origins, handshakes *middleware.Limiter) *metrics.Set {
	set := metrics.NewSet()
	set.RegisterMetricsWriter(requests.WritePrometheus)
	set.RegisterMetricsWriter(func(w io.Writer) {
		out := sheet{w}
		hub, sent := s.hub.Stats(), s.delivery.Stats()

		out.gauge("connections", hub.Engine.Polling, "transport", "polling")
		out.gauge("connections", hub.Engine.WebSocket, "transport", "websocket")
		out.gauge("connections_unauthenticated", hub.Unauthenticated)
		out.gauge("sessions", hub.Sessions)
		if count, err := s.presence.Count(context.Background()); err == nil { // else a scrape goes without it
			out.gauge("users_online", int64(count))
		}
		out.gauge("rooms", int64(hub.Rooms))
		out.gauge("queued_bytes", hub.Engine.Buffered)

		out.counter("connections_opened_total", hub.Engine.Opened)
		out.counter("connections_refused_total", hub.Engine.Refused, "reason", "max_connections")
		out.counter("connections_refused_total", hub.Overloaded, "reason", "max_unauthenticated")
		out.counter("connections_refused_total", handshakes.Stats().Refused, "reason", "handshake_rate")
		out.counter("connections_refused_total", origins.Stats().Refused, "reason", "origin")
		out.counters("connections_closed_total", "reason", hub.Closed)
		out.counter("requests_rejected_total", hub.Engine.Rejected)
		out.counter("upgrades_total", hub.Engine.Upgrades, "result", "done")
		out.counter("upgrades_total", hub.Engine.UpgradesFailed, "result", "failed")
		out.counter("slow_clients_total", hub.Engine.SlowClients)
		out.counter("protocol_errors_total", hub.Engine.ProtocolErrors)
		out.counter("packets_total", hub.Engine.PacketsIn, "direction", "in")
		out.counter("packets_total", hub.Engine.PacketsOut, "direction", "out")
		out.counter("packet_bytes_total", hub.Engine.BytesIn, "direction", "in")
		out.counter("packet_bytes_total", hub.Engine.BytesOut, "direction", "out")

		out.counter("sessions_opened_total", hub.Connected)
		out.counters("handshakes_refused_total", "code", hub.Refused)
		out.counter("client_events_total", hub.Events, "known", "true")
		out.counter("client_events_total", hub.UnknownEvents, "known", "false")
		out.counter("panics_total", hub.Panics, "in", "socket")
		out.counter("panics_total", hub.Engine.Panics, "in", "connection")
		out.counter("emits_total", hub.Emits)
		out.counter("deliveries_total", hub.Deliveries)

		out.counter("events_published_total", sent.Published)
		out.counter("events_emitted_total", sent.Emitted)
		out.counter("events_coalesced_total", sent.Coalesced)
		out.counter("events_ignored_total", sent.Ignored)
		out.counter("events_repeated_total", sent.Repeated)
		out.counter("events_stalled_total", sent.Stalled)
		out.counter("events_dropped_total", sent.Dropped)
		out.counter("events_lost_total", sent.Lost)
		out.counter("idempotency_keys_reused_total", sent.Refused)
		out.counter("receipts_total", sent.Receipts)
		out.counter("replays_total", sent.Replays)
		out.counter("replays_unrecovered_total", sent.Unrecovered)
		out.counter("replayed_events_total", sent.Replayed)
		out.counter("store_failures_total", sent.StoreFailures)
		store := s.store.Stats()
		out.counter("store_syncs_total", store.Syncs, "result", "done")
		out.counter("store_syncs_total", store.Failures, "result", "failed")
	})
	return set
}

// sheet writes samples in the text format of Prometheus.
type sheet struct{ w io.Writer }

func (o sheet) gauge(name string, value int64, label ...string) {
	fmt.Fprintf(o.w, "jobwire_%s%s %d\n", name, labels(label), value)
}

func (o sheet) counter(name string, value uint64, label ...string) {
	fmt.Fprintf(o.w, "jobwire_%s%s %d\n", name, labels(label), value)
}

func (o sheet) counters(name, label string, values map[string]uint64) {
	for _, key := range slices.Sorted(maps.Keys(values)) {
		o.counter(name, values[key], label, key)
	}
}

func labels(pair []string) string {
	if len(pair) == 0 {
		return ""
	}
	return fmt.Sprintf("{%s=%q}", pair[0], pair[1])
}
