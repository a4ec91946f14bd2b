package engine

import "sync/atomic"

// Stats is a snapshot of a server's counters and gauges. Counters only grow; gauges say so.
type Stats struct {
	Polling   int64 // gauge: open sessions on HTTP long-polling
	WebSocket int64 // gauge: open sessions on websocket
	Buffered  int64 // gauge: bytes queued for all clients, not yet handed to the kernel

	Opened   uint64 // sessions opened
	Refused  uint64 // handshakes answered 503: MaxConns, or shutting down
	Rejected uint64 // requests answered 400, 403, 413 or 426
	Upgrades uint64 // sessions that moved from polling to websocket
	// UpgradesFailed counts websocket probes that ended without an upgrade.
	UpgradesFailed uint64

	PacketsIn  uint64 // Engine.IO packets received
	PacketsOut uint64 // Engine.IO packets accepted for sending
	BytesIn    uint64 // bytes of received packets, without framing
	BytesOut   uint64 // bytes accepted for sending, websocket framing included

	SlowClients    uint64 // sessions closed because the client did not read: MaxQueue or WriteTimeout
	ProtocolErrors uint64 // sessions closed because the client broke RFC 6455 or Engine.IO 4
	Panics         uint64 // handler calls that panicked; each closed its session

	Closed map[string]uint64 // sessions closed by reason; reasons that are not the engine's own count as "forced close"
}

// counters are the server's live numbers behind Stats.
type counters struct {
	polling, websocket, buffered                     atomic.Int64
	opened, refused, rejected, upgrades, upgradeFail atomic.Uint64
	packetsIn, packetsOut, bytesIn, bytesOut         atomic.Uint64
	slow, protocol, panics                           atomic.Uint64
	closed                                           [len(reasons)]atomic.Uint64
}

// Stats returns the server's numbers. They are read one by one, so they agree with each other only when nothing moves.
func (s *Server) Stats() Stats {
	n := &s.count
	st := Stats{
		Polling: n.polling.Load(), WebSocket: n.websocket.Load(), Buffered: n.buffered.Load(),
		Opened: n.opened.Load(), Refused: n.refused.Load(), Rejected: n.rejected.Load(),
		Upgrades: n.upgrades.Load(), UpgradesFailed: n.upgradeFail.Load(),
		PacketsIn: n.packetsIn.Load(), PacketsOut: n.packetsOut.Load(),
		BytesIn: n.bytesIn.Load(), BytesOut: n.bytesOut.Load(),
		SlowClients: n.slow.Load(), ProtocolErrors: n.protocol.Load(), Panics: n.panics.Load(),
		Closed: make(map[string]uint64, len(reasons)),
	}
	for i, reason := range reasons {
		st.Closed[reason] = n.closed[i].Load()
	}
	return st
}
