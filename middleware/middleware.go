// Package middleware is what every request passes before a handler sees it: request ids, the access log, request metrics,
// recovery, the patience for long polls, the API keys of workers, the origins of browsers, the handshake rate of addresses, and
// the tokens of sockets.
//
// In flow requests as they come from the network; out flow the same requests with an id ([RequestID]), or a refusal. Refusals
// on /socket.io/ have the form that Engine.IO gives them; all others are written by the [Refuse] function that the server
// passes in, so that the catalogue of error codes stays in one place, which is not this one.
//
// Meant order: AssignRequestID, Requests.Count, AccessLog, Recovery, and then by group: APIKey for /v1/; LongPolls,
// Origins.Sockets and Limiter.Sockets for /socket.io/.
//
// Nothing here keeps a *gin.Context or its writer after the request: Gin hands both to the next one.
package middleware

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"
)

const (
	requestIDHeader = "X-Request-Id"
	maxRequestIDLen = 64
)

// AssignRequestID gives every request an id: the one in its X-Request-Id header when that is 1 to 64 letters, digits or ._-,
// else a random one. The answer carries it in the same header.
func AssignRequestID() gin.HandlerFunc {
	return func(c *gin.Context) {
		id := c.Request.Header.Get(requestIDHeader)
		if !saneRequestID(id) {
			id = newRequestID()
		}
		c.Writer.Header()[requestIDHeader] = []string{id}
	}
}

// RequestID is the id of the request; "" where [AssignRequestID] is not in use.
func RequestID(c *gin.Context) string { return c.Writer.Header().Get(requestIDHeader) }

// saneRequestID keeps out what could break a log line or pretend to be more than an id.
func saneRequestID(id string) bool {
	if id == "" || len(id) > maxRequestIDLen {
		return false
	}
	for i := range len(id) {
		c := id[i]
		letter := 'a' <= c|0x20 && c|0x20 <= 'z'
		if !letter && (c < '0' || c > '9') && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

// newRequestID is 96 random bits: enough never to meet twice in one log. It guards nothing, so it needs no system call.
func newRequestID() string {
	var raw [12]byte
	binary.BigEndian.PutUint64(raw[:], rand.Uint64())  //nolint:gosec // see above
	binary.BigEndian.PutUint32(raw[8:], rand.Uint32()) //nolint:gosec // see above
	var text [2 * len(raw)]byte
	hex.Encode(text[:], raw[:])
	return string(text[:])
}

// AccessLog writes one line a request: method, route template, status, bytes, duration, request id, the name of the worker's
// key, and the errors that handlers attached with c.Error. Never a path, a query, an address or a body, since those name users.
//
// The level follows the status. 500 and up are errors, but 503 is a warning. What a worker with a key did wrong (400, 413, …) is
// information. All else, that is successes and what anyone can cause at will (401, 403, 404, 405, 429, and whatever is wrong with
// a request without a key), has the level ordinary: at slog.LevelDebug, with a logger at slog.LevelInfo, the hot path builds no
// line at all.
func AccessLog(log *slog.Logger, ordinary slog.Level, keys KeyLookup) gin.HandlerFunc {
	return func(c *gin.Context) {
		start := time.Now()
		// Deferred, since an aborted request leaves as a panic.
		completed := false
		defer func() {
			status := statusOf(c)
			level := accessLevel(status, ordinary)
			if status >= 400 && status < 500 && level != ordinary {
				if _, worker := keys.Lookup(apiKey(c.Request)); !worker {
					level = ordinary // a stranger, at /socket.io/ say
				}
			}
			if len(c.Errors) > 0 {
				level = max(level, slog.LevelWarn) // an item of a batch may fail within a 200
			}
			ctx := c.Request.Context()
			if !log.Enabled(ctx, level) {
				return
			}
			attrs := make([]slog.Attr, 0, 10)
			attrs = append(attrs,
				slog.String("method", c.Request.Method),
				slog.String("route", routeOf(c)),
				slog.Int("status", status),
				slog.Int("bytes", max(c.Writer.Size(), 0)),
				slog.Duration("duration", time.Since(start)),
				slog.String("requestId", RequestID(c)),
			)
			if name, ok := keys.Lookup(apiKey(c.Request)); ok {
				attrs = append(attrs, slog.String("key", name))
			}
			if len(c.Errors) > 0 {
				attrs = append(attrs, slog.Any("error", c.Errors.Last().Err))
			}
			if !completed {
				attrs = append(attrs, slog.Bool("aborted", true))
			}
			log.LogAttrs(ctx, level, "request", attrs...)
		}()
		c.Next()
		completed = true
	}
}

func accessLevel(status int, ordinary slog.Level) slog.Level {
	switch status {
	case http.StatusServiceUnavailable:
		return slog.LevelWarn
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusTooManyRequests:
		return ordinary
	}
	switch {
	case status >= 500:
		return slog.LevelError
	case status >= 400:
		return slog.LevelInfo
	}
	return ordinary
}

// routeOf is the template of the matched route: the path itself names users, and anyone can make one up.
func routeOf(c *gin.Context) string {
	if route := c.FullPath(); route != "" {
		return route
	}
	return "unmatched"
}

// statusOf is the status that the client saw. Who takes over a connection for
// a websocket answers by itself, which Gin's writer takes for an empty 200.
func statusOf(c *gin.Context) int {
	status := c.Writer.Status()
	if status == http.StatusOK && c.Writer.Size() == 0 && c.IsWebsocket() {
		return http.StatusSwitchingProtocols
	}
	return status
}

// Recovery turns a panic of a handler into the answer `internal` and a log line with the stack. When an answer is already under
// way, or the connection was hijacked, nothing more may be written: the request is aborted instead, which closes the connection
// unless someone else owns it by now. http.ErrAbortHandler passes through, as net/http wants it.
func Recovery(log *slog.Logger, refuse Refuse) gin.HandlerFunc {
	return func(c *gin.Context) {
		defer func() {
			reason := recover()
			if reason == nil {
				return
			}
			if reason == http.ErrAbortHandler { //nolint:errorlint // net/http compares it the same way
				panic(reason)
			}
			log.LogAttrs(c.Request.Context(), slog.LevelError, "handler panicked",
				slog.String("panic", fmt.Sprint(reason)),
				slog.String("method", c.Request.Method),
				slog.String("route", routeOf(c)),
				slog.String("requestId", RequestID(c)),
				slog.String("stack", string(debug.Stack())),
			)
			c.Abort()
			if c.Writer.Written() {
				panic(http.ErrAbortHandler)
			}
			refuse(c, CodeInternal)
		}()
		c.Next()
	}
}

// LongPolls lifts the deadlines that http.Server's ReadTimeout and WriteTimeout have set for the request: a poll takes as long
// as it takes. The one for reading stays when there is a body, until whoever wants it sets another: net/http reads even a body
// that no handler wants before it answers.
func LongPolls() gin.HandlerFunc {
	return func(c *gin.Context) {
		control := http.NewResponseController(c.Writer)
		// Only writers that are no connections refuse, and those do not wait.
		_ = control.SetWriteDeadline(time.Time{})
		if c.Request.ContentLength == 0 {
			_ = control.SetReadDeadline(time.Time{})
		}
	}
}

// Refuse ends a request with the answer that the catalogue of error codes has for code, and aborts the chain.
type Refuse func(c *gin.Context, code string)

// The codes with which this package refuses.
const (
	CodeAPIKeyMissing   = "api_key_missing"
	CodeAPIKeyInvalid   = "api_key_invalid"
	CodeOriginForbidden = "origin_forbidden"
	CodeRateLimited     = "rate_limited"
	CodeInternal        = "internal"
)

// refuseEngine answers as an Engine.IO server refuses a request: clients show the message, and nothing else, in their
// connect_error. 4 is Engine.IO's own number for "Forbidden", the one that the official server also uses for refusals with a
// message of their own. The message needs no escapes.
func refuseEngine(c *gin.Context, status int, message string) {
	body := `{"code":4,"message":"` + message + `"}`
	c.Abort()
	c.Header("Content-Type", "application/json")
	c.Header("Content-Length", strconv.Itoa(len(body)))
	c.Status(status)
	if c.Request.Method == http.MethodHead {
		c.Writer.WriteHeaderNow()
		return
	}
	_, _ = c.Writer.WriteString(body) // fails only when the client is gone
}
