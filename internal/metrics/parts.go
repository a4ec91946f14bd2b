package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"jobwire/internal/delivery"
	"jobwire/internal/realtime"
	"jobwire/internal/store/embedded"
)

// Parts are where the numbers come from. Its functions are called once a scrape, at the same time when scrapes overlap, and
// must not wait for the network.
type Parts struct {
	Hub         func() realtime.Stats
	Delivery    func() *delivery.Stats
	Store       func() embedded.Stats // nil for a store without a disk
	UsersOnline func() int
	// HandshakesRefused and OriginsRefused count what did not reach the hub.
	HandshakesRefused, OriginsRefused func() uint64
}

// Describe implements prometheus.Collector. It describes nothing, since names and help stand once, in Collect; the registry
// compares them at each scrape instead.
func (p Parts) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (p Parts) Collect(metrics chan<- prometheus.Metric) {
	out := sheet{metrics}
	hub, sent := p.Hub(), p.Delivery()
	engine := &hub.Engine

	out.gauges("connections", "Open connections.", "transport",
		map[string]int64{"polling": engine.Polling, "websocket": engine.WebSocket})
	out.gauge("connections_unauthenticated", "Connections that have not shown a token yet.", hub.Unauthenticated)
	out.gauge("sessions", "Sockets with a user.", hub.Sessions)
	out.gauge("users_online", "Users who are online, those within their grace included.", int64(p.UsersOnline()))
	out.gauge("rooms", "Rooms with a socket in them; each connected user has one.", int64(hub.Rooms))
	out.gauge("queued_bytes", "Output that waits for clients to read it.", engine.Buffered)

	out.counter("connections_opened_total", "Connections opened.", engine.Opened)
	out.counters("connections_refused_total", "Connections refused for a limit or their origin.", "reason", map[string]uint64{
		"max_connections": engine.Refused, "max_unauthenticated": hub.Overloaded,
		"handshake_rate": p.HandshakesRefused(), "origin": p.OriginsRefused(),
	})
	out.counters("connections_closed_total", "Connections closed.", "reason", hub.Closed)
	out.counter("requests_rejected_total", "Requests to /socket.io/ answered with 400, 403, 413 or 426.", engine.Rejected)
	out.counters("upgrades_total", "Upgrades from polling to websocket.", "result",
		map[string]uint64{"done": engine.Upgrades, "failed": engine.UpgradesFailed})
	out.counter("slow_clients_total", "Connections closed because the client did not read.", engine.SlowClients)
	out.counter("protocol_errors_total", "Connections closed because the client broke Engine.IO or websocket.", engine.ProtocolErrors)
	out.counters("packets_total", "Engine.IO packets.", "direction",
		map[string]uint64{"in": engine.PacketsIn, "out": engine.PacketsOut})
	out.counters("packet_bytes_total", "Bytes of Engine.IO packets; those going out with their websocket framing.", "direction",
		map[string]uint64{"in": engine.BytesIn, "out": engine.BytesOut})

	out.counter("sessions_opened_total", "Sockets that were let in.", hub.Connected)
	out.counters("handshakes_refused_total", "Sockets that were not let in.", "code", hub.Refused)
	out.counters("client_events_total", "Events from clients, by whether the server has such an event.", "known",
		map[string]uint64{"true": hub.Events, "false": hub.UnknownEvents})
	out.counters("panics_total", "Panics that were recovered; each closed its connection.", "in",
		map[string]uint64{"socket": hub.Panics, "connection": engine.Panics})
	out.counter("emits_total", "Emissions to users and rooms with a socket.", hub.Emits)
	out.counter("deliveries_total", "Events that emissions handed to sockets.", hub.Deliveries)

	out.counter("events_published_total", "Events accepted from workers.", sent.Decided[delivery.Accepted].Load())
	out.counter("events_emitted_total", "Events emitted to the sockets of a user.", sent.Emitted.Load())
	out.counter("events_coalesced_total", "Progress held back.", sent.Coalesced.Load())
	out.counter("events_ignored_total", "Events that changed nothing: late progress, earlier attempts.", sent.Decided[delivery.Ignored].Load())
	out.counter("events_repeated_total", "Events answered from their idempotency key.", sent.Decided[delivery.Repeated].Load())
	out.counter("events_stalled_total", "Jobs that were silent for too long.", sent.Stalled.Load())
	out.counter("events_dropped_total", "Messages that retention removed.", sent.Dropped.Load())
	out.counter("events_lost_total", "Messages that retention removed before a client had confirmed them.", sent.Lost.Load())
	out.counter("events_disordered_total", "Events left out because a newer one had been sent; none are expected.", sent.Disorder.Load())
	out.counter("jobs_dropped_total", "Job records that retention removed.", sent.JobsDropped.Load())
	out.counter("idempotency_keys_reused_total", "Idempotency keys refused because they came with another event before.",
		sent.Decided[delivery.KeyReused].Load())
	out.counter("receipts_total", "Confirmations by clients.", sent.Receipts.Load())
	out.counter("replays_total", "Replays; each socket has one when it connects.", sent.Replays.Load())
	out.counter("replays_unrecovered_total", "Replays whose offset did not count.", sent.Unrecovered.Load())
	out.counter("replayed_events_total", "Events sent in replays.", sent.Replayed.Load())
	out.counter("store_failures_total", "Calls that the store failed.", sent.StoreFailures.Load())
	if p.Store == nil {
		return
	}
	store := p.Store()
	out.counters("store_syncs_total", "Syncs of the store to the disk.", "result",
		map[string]uint64{"done": store.Syncs, "failed": store.Failures})
	out.gauge("store_bytes", "Bytes that the store takes.", store.Size)
	out.gauge("store_free_bytes", "Bytes of the store that are not in use any more and are being given back.", store.Free)
	out.gauge("store_unwritten_users", "Users with progress or receipts that were not written yet.", int64(store.Unwritten))
	var failing int64
	if store.Failing {
		failing = 1
	}
	out.gauge("store_failing", "1 while the disk fails, else 0.", failing)
}

// sheet takes the samples of one scrape.
type sheet struct{ metrics chan<- prometheus.Metric }

func (o sheet) gauge(name, help string, value int64) {
	o.add(prometheus.GaugeValue, describe(name, help), float64(value))
}

func (o sheet) counter(name, help string, value uint64) {
	o.add(prometheus.CounterValue, describe(name, help), float64(value))
}

// gauges are samples by the value of their label.
func (o sheet) gauges(name, help, label string, samples map[string]int64) {
	desc := describe(name, help, label)
	for value, sample := range samples {
		o.add(prometheus.GaugeValue, desc, float64(sample), value)
	}
}

// counters are samples by the value of their label.
func (o sheet) counters(name, help, label string, samples map[string]uint64) {
	desc := describe(name, help, label)
	for value, sample := range samples {
		o.add(prometheus.CounterValue, desc, float64(sample), value)
	}
}

func (o sheet) add(kind prometheus.ValueType, desc *prometheus.Desc, sample float64, labels ...string) {
	o.metrics <- prometheus.MustNewConstMetric(desc, kind, sample, labels...)
}

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("jobwire_"+name, help, labels, nil)
}
