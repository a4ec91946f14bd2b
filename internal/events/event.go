package events

import (
	"encoding/json"
	"time"
)

// Kind says what an event is to its user's jobs, and so how it is delivered.
type Kind uint8

const (
	// Message is an event of its own: it stands in the user's log.
	Message Kind = iota
	// Progress is the latest state of a running job; it replaces the one before it and stands in no log.
	Progress
	// Completed ends a job; it stands in the log and in the job's record.
	Completed
	// Failed ends a job, likewise.
	Failed
)

// Ends reports whether events of the kind end their job.
func (k Kind) Ends() bool { return k == Completed || k == Failed }

// Logged reports whether events of the kind stand in the user's log: they carry an id on the wire, are on the disk before
// their POST is answered, and are replayed until a socket of the user has confirmed them.
func (k Kind) Logged() bool { return k != Progress }

// Event is one event that a worker sent, validated.
type Event struct {
	UserID         string
	Name           string
	Data           json.RawMessage // byte for byte as sent; a part of the parsed body, which must not change any more
	Kind           Kind
	JobID          string        // of every kind but Message (a number as its digits); "" otherwise
	Attempt        uint32        // of the job; only if HasAttempt
	HasAttempt     bool          // an event without one belongs to the job's current attempt
	IdempotencyKey string        // at most 255 bytes; "" when absent
	StaleAfter     time.Duration // of Progress; 0 means that the job is not watched
}

// KindOf returns the kind that follows from an event's name alone.
func KindOf(name string) Kind {
	switch name {
	case JobProgress:
		return Progress
	case JobCompleted:
		return Completed
	case JobFailed:
		return Failed
	}
	return Message
}
