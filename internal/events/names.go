package events

import (
	"unicode"
	"unicode/utf8"
)

// The names that mean something to the server itself. All others are a
// worker's own.
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

// CheckName says whether a worker may send an event of that name:
// ^[A-Za-z][A-Za-z0-9_.:-]{0,63}$ (invalid_event_name otherwise) and neither
// reserved by Socket.IO nor the server's own (reserved_event_name).
//
// Socket.IO's reserved names are exactly the six that a Node server refuses
// to emit and that a client's socket raises itself. "error" and "connection"
// are not among them: backends that move over do emit them, and unmodified
// clients of version 3 and 4 handle them as any other event.
func CheckName(name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	return nil
}

func checkName(name string) *Error {
	if name == "" || len(name) > MaxNameLen || !isLetter(name[0]) {
		return badName()
	}
	for i := 1; i < len(name); i++ {
		c := name[i]
		if !isLetter(c) && (c < '0' || c > '9') && c != '_' && c != '.' && c != ':' && c != '-' {
			return badName()
		}
	}
	switch name {
	case "connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener":
		return refuse(CodeReservedEventName, "event", "%q is reserved by Socket.IO", name)
	case Authenticated, Unauthorized, UserOnline, UserOffline, OnlineUsers, JobStalled:
		return refuse(CodeReservedEventName, "event", "%q is sent by the server itself", name)
	}
	return nil
}

func badName() *Error {
	return refuse(CodeInvalidEventName, "event",
		"an event name is a letter followed by at most %d letters, digits or _.:-", MaxNameLen-1)
}

func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }

// CheckUserID says whether id can name a user: 1 to 128 bytes of UTF-8
// without control characters. Tokens and workers are held to the same rule,
// or a user could connect whom no worker can reach.
func CheckUserID(id string) error {
	if why := labelProblem(id, MaxUserIDLen); why != "" {
		return refuse(CodeInvalidUserID, "userId", "a user id %s", why)
	}
	return nil
}

// CheckIdempotencyKey says whether key can be an idempotency key: 1 to 255
// bytes of UTF-8 without control characters.
func CheckIdempotencyKey(key string) error {
	if why := labelProblem(key, MaxIdempotencyKeyLen); why != "" {
		return refuse(CodeInvalidIdempotencyKey, "idempotencyKey", "an idempotency key %s", why)
	}
	return nil
}

// labelProblem says what keeps s from being a label: a string that a store
// can use in a key and a log can print. "" when nothing does.
func labelProblem(s string, limit int) string {
	if s == "" {
		return "must not be empty"
	}
	if len(s) > limit {
		return "is too long"
	}
	for i := 0; i < len(s); {
		if c := s[i]; c < utf8.RuneSelf {
			if c < 0x20 || c == 0x7f {
				return "must not contain control characters"
			}
			i++
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && size == 1 {
			return "must be valid UTF-8"
		}
		if unicode.IsControl(r) {
			return "must not contain control characters"
		}
		i += size
	}
	return ""
}
