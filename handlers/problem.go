package handlers

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"

	"github.com/gin-gonic/gin"

	"jobwire/internal/delivery"
	"jobwire/internal/events"
	"jobwire/middleware"
)

// The codes that only this package gives; the others are named where they
// come from.
const (
	codeNotFound             = "not_found"
	codeMethodNotAllowed     = "method_not_allowed"
	codePayloadTooLarge      = "payload_too_large"
	codeUnsupportedMediaType = "unsupported_media_type"
	codeRequestTimeout       = "request_timeout"
	codeInvalidCursor        = "invalid_cursor"
	codeInvalidLimit         = "invalid_limit"
	codeInvalidReason        = "invalid_reason"
)

// problem is one kind of refusal. Its code never changes its meaning.
type problem struct {
	code   string
	status int
	title  string
	detail string // said when the occasion has nothing better to say

	// retryAfter is in seconds; 0 means that a repeat is of no use, or that
	// middleware has set the header.
	retryAfter int
}

// catalogue is every error that an HTTP call can be answered with, and the
// one place where statuses are chosen. openapi.yaml and docs/protocol.md
// repeat it, and tests hold them to it.
var catalogue = []problem{
	{code: events.CodeInvalidJSON, status: 400, title: "Not the JSON that was expected", detail: "the body is not JSON of the documented shape"},
	{code: events.CodeInvalidUTF8, status: 400, title: "Not UTF-8", detail: "the body holds bytes that are not UTF-8"},
	{code: events.CodeTooDeep, status: 400, title: "Nested too deeply", detail: "the body is nested too deeply"},
	{code: events.CodeUnknownField, status: 400, title: "Unknown field", detail: "there is no such field"},
	{code: events.CodeDuplicateField, status: 400, title: "Field given twice", detail: "the field is there twice"},
	{code: events.CodeMissingField, status: 400, title: "Field missing", detail: "the field is required"},
	{code: events.CodeFieldConflict, status: 400, title: "Fields differ", detail: "two fields that say the same thing differ"},
	{code: events.CodeInvalidUserID, status: 400, title: "Not a user id", detail: "a user id is 1 to 128 bytes of UTF-8 without control characters"},
	{code: events.CodeInvalidEventName, status: 400, title: "Not an event name", detail: "the event name is not allowed"},
	{code: events.CodeReservedEventName, status: 400, title: "Reserved event name", detail: "the event name is reserved"},
	{code: events.CodeInvalidData, status: 400, title: "Not the data of such an event", detail: "the data of a job event must be an object"},
	{code: events.CodeInvalidKind, status: 400, title: "Not a kind", detail: "a kind is progress, completed or failed"},
	{code: events.CodeMissingJobID, status: 400, title: "Job id missing", detail: "an event about a job must have a jobId"},
	{code: events.CodeInvalidJobID, status: 400, title: "Not a job id", detail: "a job id is a string of 1 to 128 bytes, or an integer"},
	{code: events.CodeInvalidAttempt, status: 400, title: "Not an attempt", detail: "an attempt is an integer from 0 to 4294967295"},
	{code: events.CodeInvalidIdempotencyKey, status: 400, title: "Not an idempotency key", detail: "an idempotency key is 1 to 255 bytes of UTF-8 without control characters"},
	{code: events.CodeInvalidStaleAfter, status: 400, title: "Not a staleAfter", detail: "staleAfter is a number of seconds"},
	{code: codeInvalidCursor, status: 400, title: "Not a cursor", detail: "a cursor is what an earlier page gave as next"},
	{code: codeInvalidLimit, status: 400, title: "Not a limit", detail: "limit is out of range"},
	{code: codeInvalidReason, status: 400, title: "Not a reason", detail: "a reason is at most 256 bytes"},
	{code: middleware.CodeAPIKeyMissing, status: 401, title: "API key missing", detail: "send an API key as a bearer token or in X-API-Key"},
	{code: middleware.CodeAPIKeyInvalid, status: 401, title: "API key not known", detail: "the API key is not one of this server's"},
	{code: middleware.CodeOriginForbidden, status: 403, title: "Origin not allowed", detail: "pages of this origin may not make this call"},
	{code: codeNotFound, status: 404, title: "No such call", detail: "there is nothing at this path"},
	{code: codeMethodNotAllowed, status: 405, title: "Method not allowed", detail: "the path has no such method, see Allow"},
	{code: codeRequestTimeout, status: 408, title: "Request too slow", detail: "the body did not come in time"},
	{code: codePayloadTooLarge, status: 413, title: "Body too large", detail: "the body is larger than this call allows"},
	{code: events.CodeEventTooLarge, status: 413, title: "Event too large", detail: "the event is larger than an event may be"},
	{code: events.CodeBatchTooLarge, status: 413, title: "Too many items", detail: "the list has more items than this call allows"},
	{code: codeUnsupportedMediaType, status: 415, title: "Not JSON", detail: "send Content-Type: application/json"},
	{code: delivery.CodeKeyReused, status: 422, title: "Idempotency key reused", detail: "the key came before with another event"},
	{code: middleware.CodeRateLimited, status: 429, title: "Too many requests", detail: "this address asks too often, see Retry-After"},
	{code: middleware.CodeInternal, status: 500, title: "Internal error", detail: "something went wrong here; the log knows more under the request id"},
	{code: delivery.CodeStoreUnavailable, status: 503, title: "Store not available", detail: "nothing was stored, try again", retryAfter: 1},
	{code: delivery.CodeShuttingDown, status: 503, title: "Shutting down", detail: "this node is about to stop, try again", retryAfter: 1},
	{code: delivery.CodeStoreFull, status: 507, title: "Store full", detail: "the store has no room, nothing was stored"},
}

var problems = func() map[string]*problem {
	byCode := make(map[string]*problem, len(catalogue))
	for i := range catalogue {
		byCode[catalogue[i].code] = &catalogue[i]
	}
	return byCode
}()

// problemType is the RFC 9457 type of a code: a reference into the OpenAPI
// document that the server itself serves.
func problemType(code string) string { return "/openapi.yaml#/x-problems/" + code }

// Problem ends a request with the catalogue's answer for code. It is the
// [middleware.Refuse] of this service.
func Problem(c *gin.Context, code string) {
	answerProblem(c, &events.Error{Code: code})
}

// fail ends a request with the answer to err: an [*events.Error] as the
// catalogue says, anything else as `internal`. Faults of our own are attached
// to the context, for the access log to tell.
func fail(c *gin.Context, err error) {
	if errors.Is(err, context.Canceled) && c.Request.Context().Err() != nil {
		c.AbortWithStatus(statusClientGone) // no client reads an answer
		return
	}
	refusal := refusalOf(err)
	if problems[refusal.Code].status >= 500 {
		_ = c.Error(err)
	}
	answerProblem(c, refusal)
}

// statusClientGone is what logs and metrics show for a client that left
// before its answer. It has no name in net/http; nginx made it known.
const statusClientGone = 499

// refusalOf finds what may be said of err; its Code is in the catalogue.
func refusalOf(err error) *events.Error {
	var refusal *events.Error
	if errors.As(err, &refusal) && problems[refusal.Code] != nil {
		return refusal
	}
	return &events.Error{Code: middleware.CodeInternal}
}

// problemBody is an RFC 9457 problem.
type problemBody struct {
	Type      string `json:"type"`
	Title     string `json:"title"`
	Status    int    `json:"status"`
	Detail    string `json:"detail"`
	Code      string `json:"code"`
	Field     string `json:"field,omitempty"`
	RequestID string `json:"requestId,omitempty"`
}

func bodyOf(refusal *events.Error) problemBody {
	kind := problems[refusal.Code]
	body := problemBody{
		Type: problemType(kind.code), Title: kind.title, Status: kind.status,
		Detail: kind.detail, Code: kind.code, Field: refusal.Field,
	}
	if refusal.Detail != "" {
		body.Detail = refusal.Detail
	}
	return body
}

func answerProblem(c *gin.Context, refusal *events.Error) {
	refusal = refusalOf(refusal) // a code that is not in the catalogue is a fault of ours
	body := bodyOf(refusal)
	body.RequestID = middleware.RequestID(c)
	text, err := json.Marshal(body)
	if err != nil {
		panic(err) // strings and a number always marshal
	}
	c.Abort()
	header := c.Writer.Header()
	header.Set("Content-Type", "application/problem+json")
	header.Set("Cache-Control", "no-store")
	if seconds := problems[refusal.Code].retryAfter; seconds > 0 {
		header.Set("Retry-After", strconv.Itoa(seconds))
	}
	if body.Status == http.StatusRequestEntityTooLarge || body.Status == http.StatusRequestTimeout {
		// The rest of the body is not worth reading.
		header.Set("Connection", "close")
	}
	write(c, body.Status, text)
}

// NotFound answers requests that match no route.
func NotFound(c *gin.Context) { Problem(c, codeNotFound) }

// MethodNotAllowed answers requests whose path has other methods; Gin has
// listed them in Allow.
func MethodNotAllowed(c *gin.Context) { Problem(c, codeMethodNotAllowed) }

// appendRefusal appends {"error":problem}, the result of a batch's item that
// failed alone. What is our own fault is attached to the context, as in fail.
func appendRefusal(dst []byte, c *gin.Context, err error) []byte {
	refusal := refusalOf(err)
	if problems[refusal.Code].status >= 500 {
		_ = c.Error(err)
	}
	text, err := json.Marshal(bodyOf(refusal))
	if err != nil {
		panic(err) // strings and a number always marshal
	}
	dst = append(dst, `{"error":`...)
	dst = append(dst, text...)
	return append(dst, '}')
}
