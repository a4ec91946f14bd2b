package delivery

import "jobwire/internal/events"

// Status says what became of an event.
type Status string

// What a worker is told about its event.
const (
	StatusSent      Status = "sent"      // at least one socket got it
	StatusStored    Status = "stored"    // no socket of the user is connected
	StatusCoalesced Status = "coalesced" // progress: a later one of the job, or this one a little later, is emitted
	StatusIgnored   Status = "ignored"   // it changes nothing, see Reason
)

// Result is the answer to a published event.
type Result struct {
	ID       events.ID // its place; zero when ignored
	Status   Status
	Reason   string // of StatusIgnored
	Sockets  int    // to how many sockets of the user it was emitted
	Repeated bool   // the idempotency key came before: ID and Reason are those of the first call
}

// Answer is one result of a batch.
type Answer struct {
	Result
	Err error // nil, or why this event was refused
}

// answer is what a worker is told about a decision.
func (d *Decision) answer() Answer {
	r := Result{ID: d.Place, Status: StatusSent, Sockets: d.Sockets, Repeated: d.Verdict == Repeated}
	switch {
	case d.Verdict == KeyReused:
		return Answer{Err: ErrKeyReused}
	case d.Reason != "":
		r.Status, r.Reason, r.Sockets = StatusIgnored, d.Reason, 0
	case d.Held:
		r.Status = StatusCoalesced
	case d.Sockets == 0:
		r.Status = StatusStored
	}
	return Answer{Result: r}
}
