package realtime

import (
	"maps"
	"sync"
	"sync/atomic"

	"jobwire/internal/engine"
)

// Stats is a snapshot of a hub's counters and gauges. Counters only grow; gauges say so.
type Stats struct {
	Unauthenticated int64 // gauge: connections without a session
	Sessions        int64 // gauge: sessions
	Rooms           int   // gauge: rooms, one per connected user included

	Connected     uint64            // sessions that were opened
	Refused       map[string]uint64 // CONNECTs refused, by code; invalid_namespace among them
	Overloaded    uint64            // handshakes answered 503: Config.MaxUnauthenticated
	Closed        map[string]uint64 // connections that ended, by reason
	Packets       uint64            // messages that clients sent, attachments counted one by one
	Events        uint64            // events for which there was a handler
	UnknownEvents uint64            // events for which there was none
	StrayAcks     uint64            // acks that nobody had asked for
	Emits         uint64            // EmitUser and EmitRoom calls that found a session
	Deliveries    uint64            // messages that EmitUser and EmitRoom handed to sessions
	Receipts      uint64            // confirmations that clients gave
	Panics        uint64            // recovered; each closed its connection

	Engine engine.Stats
}

// counters are the hub's live numbers behind Stats.
type counters struct {
	unauthenticated, sessions              atomic.Int64
	connected, overloaded, packets, events atomic.Uint64
	unknown, strayAcks, emits, deliveries  atomic.Uint64
	receipts, panics                       atomic.Uint64
	refused, closed                        tally
}

// tally counts by name. The names are reasons and codes of the program, never what a client sent.
type tally struct {
	mu sync.Mutex
	by map[string]uint64
}

func (t *tally) add(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.by == nil {
		t.by = make(map[string]uint64)
	}
	t.by[name]++
}

func (t *tally) copy() map[string]uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.by == nil {
		return map[string]uint64{}
	}
	return maps.Clone(t.by)
}

// Stats returns the hub's numbers. They are read one by one, so they agree with each other only when nothing moves.
func (h *Hub) Stats() Stats {
	n := &h.count
	return Stats{
		Unauthenticated: n.unauthenticated.Load(), Sessions: n.sessions.Load(), Rooms: h.rooms.size(),
		Connected: n.connected.Load(), Refused: n.refused.copy(), Overloaded: n.overloaded.Load(), Closed: n.closed.copy(),
		Packets: n.packets.Load(), Events: n.events.Load(), UnknownEvents: n.unknown.Load(), StrayAcks: n.strayAcks.Load(),
		Emits: n.emits.Load(), Deliveries: n.deliveries.Load(), Receipts: n.receipts.Load(), Panics: n.panics.Load(),
		Engine: h.engine.Stats(),
	}
}
