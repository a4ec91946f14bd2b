package delivery

import "jobwire/internal/events"

// Status says what became of an event.
type Status string

// What a worker is told about its event.
const (
	StatusSent      Status = "sent"      // stored, and at least one socket got it
	StatusStored    Status = "stored"    // stored; nobody was online
	StatusCoalesced Status = "coalesced" // stored; a later progress of the job, or this one a little later, is emitted
	StatusIgnored   Status = "ignored"   // not stored, see Reason
)

// Result is the answer to a published event.
//
// A coalesced progress has an id of its own that is never seen on the wire:
// what is emitted carries the id of the latest progress at that time, or a
// fresh one when other events of the user have gone out in between.
type Result struct {
	ID       events.ID // zero when ignored
	Status   Status
	Reason   string // of StatusIgnored
	Sockets  int    // how many sockets of this process got it
	Repeated bool   // the idempotency key came before: this is the first answer again
}

// Answer is one result of a batch.
type Answer struct {
	Result
	Err error // nil, or why this event was refused
}

func (o Outcome) result(repeated bool) Result {
	return Result{ID: o.ID, Status: o.Status, Reason: o.Reason, Sockets: o.Sockets, Repeated: repeated}
}

func (r Result) outcome() Outcome {
	return Outcome{ID: r.ID, Status: r.Status, Reason: r.Reason, Sockets: r.Sockets}
}
