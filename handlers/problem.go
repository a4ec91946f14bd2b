package handlers

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/gin-gonic/gin"

	"jobwire/internal/delivery"
	"jobwire/internal/events"
	"jobwire/middleware"
)

// The codes that only this package gives; the others are named where they come from.
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
}

// catalogue is every error that an HTTP call can be answered with, and the one place where statuses are chosen. openapi.yaml
// and docs/protocol.md repeat it, and tests hold them to it.
var catalogue = []problem{
	{events.CodeInvalidJSON, 400, "Not the JSON that was expected", "the body is not JSON of the documented shape"},
	{events.CodeInvalidUTF8, 400, "Not UTF-8", "the body holds bytes that are not UTF-8"},
	{events.CodeTooDeep, 400, "Nested too deeply", "the body is nested too deeply"},
	{events.CodeUnknownField, 400, "Unknown field", "there is no such field"},
	{events.CodeDuplicateField, 400, "Field given twice", "the field is there twice"},
	{events.CodeMissingField, 400, "Field missing", "the field is required"},
	{events.CodeFieldConflict, 400, "Fields differ", "two fields that say the same thing differ"},
	{events.CodeInvalidUserID, 400, "Not a user id", "a user id is 1 to 128 bytes of UTF-8 without control characters"},
	{events.CodeInvalidEventName, 400, "Not an event name", "the event name is not allowed"},
	{events.CodeReservedEventName, 400, "Reserved event name", "the event name is reserved"},
	{events.CodeInvalidData, 400, "Not the data of such an event", "the data of a job event must be an object"},
	{events.CodeInvalidKind, 400, "Not a kind", "a kind is progress, completed or failed"},
	{events.CodeMissingJobID, 400, "Job id missing", "an event about a job must have a jobId"},
	{events.CodeInvalidJobID, 400, "Not a job id", "a job id is a string of 1 to 128 bytes, or an integer"},
	{events.CodeInvalidAttempt, 400, "Not an attempt", "an attempt is an integer from 0 to 4294967295"},
	{events.CodeInvalidIdempotencyKey, 400, "Not an idempotency key", "an idempotency key is 1 to 255 bytes of UTF-8 without control characters"},
	{events.CodeInvalidStaleAfter, 400, "Not a staleAfter", "staleAfter is a number of seconds"},
	{codeInvalidCursor, 400, "Not a cursor", "a cursor is what an earlier page gave as next"},
	{codeInvalidLimit, 400, "Not a limit", "limit is out of range"},
	{codeInvalidReason, 400, "Not a reason", "a reason is at most 256 bytes"},
	{middleware.CodeAPIKeyMissing, 401, "API key missing", "send an API key as a bearer token or in X-API-Key"},
	{middleware.CodeAPIKeyInvalid, 401, "API key not known", "the API key is not one of this server's"},
	{middleware.CodeOriginForbidden, 403, "Origin not allowed", "pages of this origin may not make this call"},
	{codeNotFound, 404, "No such call", "there is nothing at this path"},
	{codeMethodNotAllowed, 405, "Method not allowed", "the path has no such method, see Allow"},
	{codeRequestTimeout, 408, "Request too slow", "the body did not come in time"},
	{codePayloadTooLarge, 413, "Body too large", "the body is larger than this call allows"},
	{events.CodeEventTooLarge, 413, "Event too large", "the event is larger than an event may be"},
	{events.CodeBatchTooLarge, 413, "Too many items", "the list has more items than this call allows"},
	{codeUnsupportedMediaType, 415, "Not JSON", "send Content-Type: application/json"},
	{delivery.CodeKeyReused, 422, "Idempotency key reused", "the key came before with another event"},
	{middleware.CodeRateLimited, 429, "Too many requests", "this address asks too often, see Retry-After"},
	{middleware.CodeInternal, 500, "Internal error", "something went wrong here; the log knows more under the request id"},
	{delivery.CodeStoreUnavailable, 503, "Store not available", "nothing was stored, try again"},
	{delivery.CodeShuttingDown, 503, "Shutting down", "this node is about to stop, try again"},
	{delivery.CodeStoreFull, 507, "Store full", "the store has no room, nothing was stored"},
}

var problems = func() map[string]*problem {
	byCode := make(map[string]*problem, len(catalogue))
	for i := range catalogue {
		byCode[catalogue[i].code] = &catalogue[i]
	}
	return byCode
}()

// refuse is an error of the catalogue. Without a detail it says the catalogue's.
func refuse(code, field, detail string) error {
	return &events.Error{Code: code, Field: field, Detail: detail}
}

// refusalOf finds what may be said of err: an [*events.Error] as the catalogue has it, `internal` for anything else.
func refusalOf(err error) *events.Error {
	var refusal *events.Error
	if errors.As(err, &refusal) && problems[refusal.Code] != nil {
		return refusal
	}
	return &events.Error{Code: middleware.CodeInternal}
}

// note is refusalOf, and attaches faults of our own to the context, for the access log to tell.
func note(c *gin.Context, err error) *events.Error {
	refusal := refusalOf(err)
	if problems[refusal.Code].status >= 500 {
		_ = c.Error(err)
	}
	return refusal
}

// statusClientGone is what logs and metrics show for a client that left before its answer. It has no name in net/http; nginx
// made it known.
const statusClientGone = 499

// fail ends a request with the answer to err.
func fail(c *gin.Context, err error) {
	if errors.Is(err, context.Canceled) && c.Request.Context().Err() != nil {
		c.AbortWithStatus(statusClientGone) // no client reads an answer
		return
	}
	answerProblem(c, note(c, err))
}

// Problem ends a request with the catalogue's answer for code. It is the [middleware.Refuse] of this service.
func Problem(c *gin.Context, code string) {
	answerProblem(c, refusalOf(&events.Error{Code: code}))
}

func answerProblem(c *gin.Context, refusal *events.Error) {
	body := problemOf(refusal)
	body.RequestID = middleware.RequestID(c)
	c.Abort()
	header := c.Writer.Header()
	header.Set("Content-Type", "application/problem+json")
	header.Set("Cache-Control", "no-store")
	switch body.Status {
	case http.StatusServiceUnavailable:
		header.Set("Retry-After", "1") // second
	case http.StatusRequestEntityTooLarge, http.StatusRequestTimeout:
		header.Set("Connection", "close") // the rest of the body is not worth reading
	}
	write(c, body.Status, marshal(body))
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

// problemOf is the problem of an error of the catalogue.
func problemOf(refusal *events.Error) problemBody {
	kind := problems[refusal.Code]
	return problemBody{
		Type: problemType(kind.code), Title: kind.title, Status: kind.status,
		Detail: cmp.Or(refusal.Detail, kind.detail), Code: kind.code, Field: refusal.Field,
	}
}

// problemType is the RFC 9457 type of a code: a reference into the OpenAPI document that the server itself serves.
func problemType(code string) string { return "/openapi.yaml#/x-problems/" + code }

// marshal encodes what is made of strings and numbers, which cannot fail.
func marshal(value any) []byte {
	text, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	return text
}
