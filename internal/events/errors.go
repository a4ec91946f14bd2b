package events

import (
	"fmt"
	"strings"
)

// The codes with which this package refuses. They are part of the contract with workers: a code is never renamed and never
// changes its meaning.
const (
	CodeInvalidJSON           = "invalid_json"            // the body is not one JSON value of the documented shape
	CodeInvalidUTF8           = "invalid_utf8"            // a string holds bytes that are not UTF-8
	CodeTooDeep               = "too_deep"                // nested deeper than MaxDepth
	CodeUnknownField          = "unknown_field"           // a member that the call does not have
	CodeDuplicateField        = "duplicate_field"         // a member that is there twice
	CodeMissingField          = "missing_field"           // a required member is absent
	CodeFieldConflict         = "field_conflict"          // two members that say the same thing differ
	CodeInvalidUserID         = "invalid_user_id"         // see CheckUserID
	CodeInvalidEventName      = "invalid_event_name"      // see CheckName
	CodeReservedEventName     = "reserved_event_name"     // see CheckName
	CodeInvalidData           = "invalid_data"            // data is not an object although the name is that of a job event
	CodeInvalidKind           = "invalid_kind"            // kind is not progress, completed or failed
	CodeMissingJobID          = "missing_job_id"          // an event of a kind without a job
	CodeInvalidJobID          = "invalid_job_id"          // jobId is neither an integer nor a usable string
	CodeInvalidAttempt        = "invalid_attempt"         // attempt is not an integer from 0 to 2^32-1
	CodeInvalidIdempotencyKey = "invalid_idempotency_key" // see CheckIdempotencyKey
	CodeInvalidStaleAfter     = "invalid_stale_after"     // see ParseStaleAfter
	CodeEventTooLarge         = "event_too_large"         // an item of a batch has more bytes than an event may have
	CodeBatchTooLarge         = "batch_too_large"         // a batch has more items than allowed
)

// Error is every refusal that a worker or a client is told: an event's, a call's, a token's, a packet's. HTTP answers it as a
// problem, CONNECT_ERROR and acks as {code, message}. Whoever refuses names the codes, here or in a package of its own.
//
// All of it is safe to show to whoever sent what was refused: it quotes at most a short piece of their own field names and
// never a value.
type Error struct {
	Code   string
	Detail string // one sentence for a person; may change
	Field  string // path of the offending member, such as "data.jobId"; "" for the whole
}

// Error is the detail, after the field when there is one.
func (e *Error) Error() string {
	if e.Field == "" {
		return e.Detail
	}
	return e.Field + ": " + e.Detail
}

func refuse(code, field, format string, args ...any) *Error {
	return &Error{Code: code, Field: field, Detail: fmt.Sprintf(format, args...)}
}

// unknownField refuses a member, and names the known one that it is a slip of, if there is one: user_id for userId, say.
func unknownField(name string, known ...string) *Error {
	detail, distance := "there is no such field", 3
	bare := strings.NewReplacer("_", "", "-", "").Replace(strings.ToLower(name[:min(len(name), MaxNameLen)]))
	for _, field := range known {
		if d := Distance(bare, strings.ToLower(field)); d < distance && 3*d <= len(field) {
			detail, distance = "there is no such field; did you mean "+field+"?", d
		}
	}
	const limit = 64 // bytes of it in an error text
	if len(name) > limit {
		name = strings.ToValidUTF8(name[:limit], "") + "…"
	}
	return refuse(CodeUnknownField, name, "%s", detail)
}

func duplicateField(name string) *Error {
	return refuse(CodeDuplicateField, name, "the field is there twice")
}

func missingField(name string) *Error { return refuse(CodeMissingField, name, "the field is required") }
