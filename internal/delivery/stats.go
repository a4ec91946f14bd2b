package delivery

import "sync/atomic"

type counters struct {
	published, ignored, repeated, refused   atomic.Uint64
	emitted, coalesced, stalled, receipts   atomic.Uint64
	replays, unrecovered, replayed          atomic.Uint64
	dropped, lost, jobs, storeFailures, old atomic.Uint64
}

// decided counts the decision about an event.
func (c *counters) decided(v Verdict) {
	switch v {
	case Accepted:
		c.published.Add(1)
	case Ignored:
		c.ignored.Add(1)
	case Repeated:
		c.repeated.Add(1)
	case KeyReused:
		c.refused.Add(1)
	}
}

// Stats are counters since the start, of this process.
type Stats struct {
	Published     uint64 // events accepted from workers
	Ignored       uint64 // events that changed nothing: late progress, earlier attempts
	Repeated      uint64 // answered from an idempotency key
	Refused       uint64 // idempotency keys reused with another body
	Emitted       uint64 // emissions to the sockets of a user
	Coalesced     uint64 // progress held back
	Stalled       uint64 // job_stalled events
	Receipts      uint64 // confirmations by clients
	Replays       uint64 // sockets that attached
	Unrecovered   uint64 // of them, those whose offset did not count
	Replayed      uint64 // events sent in replays
	Dropped       uint64 // messages that retention removed
	Lost          uint64 // of them, those that no client had confirmed
	JobsDropped   uint64 // job records that retention removed
	StoreFailures uint64 // calls that the store failed
	Disorder      uint64 // deliveries that came below the place of an earlier one and were left out
}

// Stats reads the counters.
func (s *Service) Stats() Stats {
	c := &s.stats
	return Stats{
		Published:     c.published.Load(),
		Ignored:       c.ignored.Load(),
		Repeated:      c.repeated.Load(),
		Refused:       c.refused.Load(),
		Emitted:       c.emitted.Load(),
		Coalesced:     c.coalesced.Load(),
		Stalled:       c.stalled.Load(),
		Receipts:      c.receipts.Load(),
		Replays:       c.replays.Load(),
		Unrecovered:   c.unrecovered.Load(),
		Replayed:      c.replayed.Load(),
		Dropped:       c.dropped.Load(),
		Lost:          c.lost.Load(),
		JobsDropped:   c.jobs.Load(),
		StoreFailures: c.storeFailures.Load(),
		Disorder:      c.old.Load(),
	}
}
