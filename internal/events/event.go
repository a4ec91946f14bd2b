// Package events is the vocabulary of jobwire: what a worker may say, how it is checked, and the form in which a client hears
// it.
//
// In flow the bodies that workers POST ([Parse], [ParseBatch]); out flow validated [Event] values, ids ([ID]) and Socket.IO
// packet texts ([Encode]). A worker's data is never decoded and encoded again: it leaves byte for byte as it came.
//
// The package imports the standard library only, holds no state and starts nothing. Every refusal is an [*Error] with a stable
// code.
package events

import (
	"encoding/json"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
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

// The names that mean something to the server itself. All others are a worker's own.
const (
	JobProgress   = "job_progress"
	JobCompleted  = "job_completed"
	JobFailed     = "job_failed"
	JobStalled    = "job_stalled"
	Authenticated = "authenticated"
	Unauthorized  = "unauthorized"
	UserOnline    = "user_online"
	UserOffline   = "user_offline"
	OnlineUsers   = "online_users"
)

// Limits on what names things, in bytes.
const (
	MaxNameLen           = 64
	MaxUserIDLen         = 128
	MaxJobIDLen          = 128
	MaxIdempotencyKeyLen = 255
)

// CheckName says whether a worker may send an event of that name: ^[A-Za-z][A-Za-z0-9_.:-]{0,63}$ (invalid_event_name
// otherwise) and neither reserved by Socket.IO nor the server's own (reserved_event_name).
func CheckName(name string) error {
	if name == "" || len(name) > MaxNameLen || !isLetter(name[0]) {
		return badName()
	}
	for i := 1; i < len(name); i++ {
		c := name[i]
		if !isLetter(c) && (c < '0' || c > '9') && c != '_' && c != '.' && c != ':' && c != '-' {
			return badName()
		}
	}
	if IsReserved(name) {
		return refuse(CodeReservedEventName, "event", "%q is reserved by Socket.IO", name)
	}
	switch name {
	case Authenticated, Unauthorized, UserOnline, UserOffline, OnlineUsers, JobStalled:
		return refuse(CodeReservedEventName, "event", "%q is sent by the server itself", name)
	}
	return nil
}

// IsReserved reports whether Socket.IO keeps a name for itself: the six that a Node server refuses to emit and that a client's
// socket raises itself. "error" and "connection" are not among them: backends that move over do emit them, and unmodified
// clients of version 3 and 4 handle them as any other event.
func IsReserved(name string) bool {
	switch name {
	case "connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener":
		return true
	}
	return false
}

func badName() *Error {
	return refuse(CodeInvalidEventName, "event", "an event name is a letter followed by at most %d letters, digits or _.:-", MaxNameLen-1)
}

func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }

// CheckUserID says whether id can name a user: 1 to 128 bytes of UTF-8 without control characters. Tokens and workers are held
// to the same rule, or a user could connect whom no worker can reach.
func CheckUserID(id string) error {
	if why := labelProblem(id, MaxUserIDLen); why != "" {
		return refuse(CodeInvalidUserID, "userId", "a user id %s", why)
	}
	return nil
}

// CheckIdempotencyKey says whether key can be an idempotency key: 1 to 255 bytes of UTF-8 without control characters.
func CheckIdempotencyKey(key string) error {
	if why := labelProblem(key, MaxIdempotencyKeyLen); why != "" {
		return refuse(CodeInvalidIdempotencyKey, "idempotencyKey", "an idempotency key %s", why)
	}
	return nil
}

// labelProblem says what keeps s from being a label: a string that a store can use in a key and a log can print. "" when
// nothing does.
func labelProblem(s string, limit int) string {
	switch {
	case s == "":
		return "must not be empty"
	case len(s) > limit:
		return "is too long"
	case !utf8.ValidString(s):
		return "must be valid UTF-8"
	case strings.ContainsFunc(s, unicode.IsControl):
		return "must not contain control characters"
	}
	return ""
}
