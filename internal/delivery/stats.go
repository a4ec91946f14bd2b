package delivery

import "sync/atomic"

type counters struct {
	published, emitted, coalesced, ignored, repeated, refused atomic.Uint64
	stalled, refreshes, receipts                              atomic.Uint64
	replays, unrecovered, replayed                            atomic.Uint64
	dropped, lost, storeFailures, disorder                    atomic.Uint64
}

// Stats are counters since the start, of this process.
type Stats struct {
	Published     uint64 // events stored for workers
	Emitted       uint64 // emissions to a user's room, with or without sockets in it
	Coalesced     uint64 // progress held back
	Ignored       uint64 // progress of finished jobs
	Repeated      uint64 // answered from an idempotency key
	Refused       uint64 // idempotency keys reused with another body
	Stalled       uint64 // job_stalled events
	Refreshes     uint64 // requests for a new id for overtaken progress
	Receipts      uint64 // confirmations by clients
	Replays       uint64 // sockets that attached
	Unrecovered   uint64 // of them, those whose offset was unknown
	Replayed      uint64 // events sent in replays
	Dropped       uint64 // events that retention removed
	Lost          uint64 // of them, durable ones that no client had confirmed
	StoreFailures uint64 // calls that the store failed
	Disorder      uint64 // emissions with an id that did not rise: always 0 unless the store is broken
}

// Stats reads the counters.
func (s *Service) Stats() Stats {
	c := &s.stats
	return Stats{
		Published:     c.published.Load(),
		Emitted:       c.emitted.Load(),
		Coalesced:     c.coalesced.Load(),
		Ignored:       c.ignored.Load(),
		Repeated:      c.repeated.Load(),
		Refused:       c.refused.Load(),
		Stalled:       c.stalled.Load(),
		Refreshes:     c.refreshes.Load(),
		Receipts:      c.receipts.Load(),
		Replays:       c.replays.Load(),
		Unrecovered:   c.unrecovered.Load(),
		Replayed:      c.replayed.Load(),
		Dropped:       c.dropped.Load(),
		Lost:          c.lost.Load(),
		StoreFailures: c.storeFailures.Load(),
		Disorder:      c.disorder.Load(),
	}
}
