package handlers

import (
	"errors"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"

	"jobwire/internal/delivery"
	"jobwire/internal/events"
)

// slow is a body that does not come in time.
type slow struct{}

func (slow) Read([]byte) (int, error) { return 0, os.ErrDeadlineExceeded }

// torn is a body that breaks off.
type torn struct{}

func (torn) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func event(fields string) call {
	return call{method: "POST", path: "/v1/events", body: "{" + fields + "}"}
}

func batch(items string) call {
	return call{method: "POST", path: "/v1/events/batch", body: `{"events":[` + items + `]}`}
}

func disconnect(body string) call {
	return call{method: "POST", path: "/v1/users/alice/disconnect", body: body}
}

func query(body string) call { return call{method: "POST", path: "/v1/presence/query", body: body} }

func get(path string) call { return call{method: "GET", path: path} }

func (c call) with(headers ...string) call { c.headers = append(c.headers, headers...); return c }
func (c call) reading(r io.Reader) call    { c.reader = r; return c }
func (c call) on(path string) call         { c.path = path; return c }

const (
	plain = `"userId":"u","event":"x","data":1`
	long  = `"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"` // a label of 129
)

// refusals is every way in which a call is refused, by its operation in
// openapi.yaml. TestEveryRefusal shows that there is no other.
var refusals = []struct {
	name      string
	operation string
	call      call
	code      string
	field     string
	backend   *backend
}{
	{name: "bytes that are no JSON", operation: "publishEvent", call: event(`"userId":`), code: "invalid_json"},
	{name: "an empty body", operation: "publishEvent", call: call{method: "POST", path: "/v1/events"}.with("Content-Type: application/json"), code: "invalid_json"},
	{name: "an array", operation: "publishEvent", call: call{method: "POST", path: "/v1/events", body: "[]"}, code: "invalid_json"},
	{name: "something after the object", operation: "publishEvent", call: call{method: "POST", path: "/v1/events", body: progress + "{}"}, code: "invalid_json"},
	{name: "a body that breaks off", operation: "publishEvent", call: event("").reading(torn{}), code: "invalid_json"},
	{name: "a body that does not come", operation: "publishEvent", call: event("").reading(slow{}), code: "request_timeout"},
	{name: "not UTF-8", operation: "publishEvent", call: event(`"userId":"u","event":"x","data":"` + "\xff" + `"`), code: "invalid_utf8", field: "data"},
	{name: "too deep", operation: "publishEvent", call: event(`"userId":"u","event":"x","data":` + strings.Repeat("[", 70) + strings.Repeat("]", 70)), code: "too_deep", field: "data"},
	{name: "an unknown field", operation: "publishEvent", call: event(plain + `,"dta":1`), code: "unknown_field", field: "dta"},
	{name: "a field twice", operation: "publishEvent", call: event(plain + `,"data":2`), code: "duplicate_field", field: "data"},
	{name: "no user", operation: "publishEvent", call: event(`"event":"x","data":1`), code: "missing_field", field: "userId"},
	{name: "no event", operation: "publishEvent", call: event(`"userId":"u","data":1`), code: "missing_field", field: "event"},
	{name: "no data", operation: "publishEvent", call: event(`"userId":"u","event":"x"`), code: "missing_field", field: "data"},
	{name: "an empty user id", operation: "publishEvent", call: event(`"userId":"","event":"x","data":1`), code: "invalid_user_id", field: "userId"},
	{name: "a user id that is too long", operation: "publishEvent", call: event(`"userId":` + long + `,"event":"x","data":1`), code: "invalid_user_id", field: "userId"},
	{name: "a user id with a control character", operation: "publishEvent", call: event(`"userId":"a\nb","event":"x","data":1`), code: "invalid_user_id", field: "userId"},
	{name: "a bad event name", operation: "publishEvent", call: event(`"userId":"u","event":"1x","data":1`), code: "invalid_event_name", field: "event"},
	{name: "a name of Socket.IO", operation: "publishEvent", call: event(`"userId":"u","event":"connect_error","data":1`), code: "reserved_event_name", field: "event"},
	{name: "a name of the server", operation: "publishEvent", call: event(`"userId":"u","event":"user_online","data":1`), code: "reserved_event_name", field: "event"},
	{name: "job_stalled", operation: "publishEvent", call: event(`"userId":"u","event":"job_stalled","data":{"jobId":"j"}`), code: "reserved_event_name", field: "event"},
	{name: "a job without an object", operation: "publishEvent", call: event(`"userId":"u","event":"job_failed","data":1`), code: "invalid_data", field: "data"},
	{name: "a job without an id", operation: "publishEvent", call: event(`"userId":"u","event":"job_failed","data":{}`), code: "missing_job_id", field: "data.jobId"},
	{name: "a job with an odd id", operation: "publishEvent", call: event(`"userId":"u","event":"job_failed","data":{"jobId":true}`), code: "invalid_job_id", field: "data.jobId"},
	{name: "a kind without a job", operation: "publishEvent", call: event(plain + `,"kind":"progress"`), code: "missing_job_id", field: "jobId"},
	{name: "a job without a kind", operation: "publishEvent", call: event(plain + `,"jobId":7`), code: "missing_field", field: "kind"},
	{name: "an attempt without a kind", operation: "publishEvent", call: event(plain + `,"attempt":1`), code: "missing_field", field: "kind"},
	{name: "an odd kind", operation: "publishEvent", call: event(plain + `,"kind":"done","jobId":7`), code: "invalid_kind", field: "kind"},
	{name: "an odd job beside a kind", operation: "publishEvent", call: event(plain + `,"kind":"failed","jobId":""`), code: "invalid_job_id", field: "jobId"},
	{name: "an odd attempt beside a kind", operation: "publishEvent", call: event(plain + `,"kind":"failed","jobId":1,"attempt":0.5`), code: "invalid_attempt", field: "attempt"},
	{name: "a kind that is not that of the name", operation: "publishEvent", call: event(`"userId":"u","event":"job_completed","kind":"failed","data":{"jobId":7}`), code: "field_conflict", field: "kind"},
	{name: "two jobs", operation: "publishEvent", call: event(`"userId":"u","event":"job_completed","jobId":1,"data":{"jobId":"2"}`), code: "field_conflict", field: "jobId"},
	{name: "two attempts", operation: "publishEvent", call: event(`"userId":"u","event":"job_completed","attempt":1,"data":{"jobId":"2","attempt":0}`), code: "field_conflict", field: "attempt"},
	{name: "an odd attempt", operation: "publishEvent", call: event(`"userId":"u","event":"job_failed","data":{"jobId":1,"attempt":-1}`), code: "invalid_attempt", field: "data.attempt"},
	{name: "an odd key", operation: "publishEvent", call: event(plain + `,"idempotencyKey":7`), code: "invalid_idempotency_key", field: "idempotencyKey"},
	{name: "an empty key header", operation: "publishEvent", call: event(plain).with("Idempotency-Key:"), code: "invalid_idempotency_key", field: "Idempotency-Key"},
	{name: "a key header that is too long", operation: "publishEvent", call: event(plain).with("Idempotency-Key: " + strings.Repeat("k", 256)), code: "invalid_idempotency_key", field: "Idempotency-Key"},
	{name: "a key header that is not UTF-8", operation: "publishEvent", call: event(plain).with("Idempotency-Key: \xff"), code: "invalid_idempotency_key", field: "Idempotency-Key"},
	{name: "two key headers", operation: "publishEvent", call: event(plain).with("Idempotency-Key: k", "Idempotency-Key: k"), code: "invalid_idempotency_key", field: "Idempotency-Key"},
	{name: "a key header that is not the field", operation: "publishEvent", call: event(plain + `,"idempotencyKey":"a"`).with("Idempotency-Key: b"), code: "invalid_idempotency_key", field: "Idempotency-Key"},
	{name: "staleAfter out of range", operation: "publishEvent", call: event(`"userId":"u","event":"job_progress","data":{"jobId":1},"staleAfter":0`), code: "invalid_stale_after", field: "staleAfter"},
	{name: "staleAfter on another event", operation: "publishEvent", call: event(plain).with("Stale-After: 5"), code: "invalid_stale_after", field: "Stale-After"},
	{name: "staleAfter on the end of a job", operation: "publishEvent", call: event(plain + `,"kind":"completed","jobId":1`).with("Stale-After: 5"), code: "invalid_stale_after", field: "Stale-After"},
	{name: "staleAfter that is no number", operation: "publishEvent", call: event(plain).with("Stale-After: soon"), code: "invalid_stale_after", field: "Stale-After"},
	{name: "two staleAfter headers", operation: "publishEvent", call: event(plain).with("Stale-After: 5", "Stale-After: 5"), code: "invalid_stale_after", field: "Stale-After"},
	{name: "staleAfter that is not the field", operation: "publishEvent", call: event(`"userId":"u","event":"job_progress","data":{"jobId":1},"staleAfter":4`).with("Stale-After: 5"), code: "invalid_stale_after", field: "Stale-After"},
	{name: "too large", operation: "publishEvent", call: event(plain + `,"x":"` + strings.Repeat("x", 300) + `"`), code: "payload_too_large"},
	{name: "a form", operation: "publishEvent", call: event(plain).with("Content-Type: application/x-www-form-urlencoded"), code: "unsupported_media_type"},
	{name: "no content type", operation: "publishEvent", call: event(plain).with("Content-Type: -"), code: "unsupported_media_type"},
	{name: "another charset", operation: "publishEvent", call: event(plain).with("Content-Type: application/json; charset=latin1"), code: "unsupported_media_type"},
	{name: "compressed", operation: "publishEvent", call: event(plain).with("Content-Encoding: gzip"), code: "unsupported_media_type"},
	{name: "a key reused", operation: "publishEvent", call: event(plain), code: "idempotency_key_reused", field: "Idempotency-Key", backend: failing(delivery.ErrKeyReused)},
	{name: "no store", operation: "publishEvent", call: event(plain), code: "store_unavailable", backend: failing(wrapped(delivery.ErrStoreUnavailable))},
	{name: "no store, waiting", operation: "publishEvent", call: event(plain).with("Prefer: wait=5"), code: "store_unavailable", backend: failing(delivery.ErrStoreUnavailable)},
	{name: "no room", operation: "publishEvent", call: event(plain), code: "store_full", backend: failing(wrapped(delivery.ErrStoreFull))},
	{name: "shutting down", operation: "publishEvent", call: event(plain), code: "shutting_down", backend: failing(delivery.ErrClosed)},
	{name: "an unknown failure", operation: "publishEvent", call: event(plain), code: "internal", backend: failing(errors.New("secret detail"))},
	{name: "an unknown code", operation: "publishEvent", call: event(plain), code: "internal", backend: failing(&events.Error{Code: "brand_new", Detail: "secret detail"})},

	{name: "bytes that are no JSON", operation: "publishBatch", call: batch(`{]`), code: "invalid_json"},
	{name: "events that are no array", operation: "publishBatch", call: call{method: "POST", path: "/v1/events/batch", body: `{"events":{}}`}, code: "invalid_json", field: "events"},
	{name: "not UTF-8", operation: "publishBatch", call: call{method: "POST", path: "/v1/events/batch", body: "{\"\xff\":1}"}, code: "invalid_utf8"},
	{name: "too deep", operation: "publishBatch", call: call{method: "POST", path: "/v1/events/batch", body: `{"events":{"x":` + strings.Repeat("[", 70) + strings.Repeat("]", 70) + "}}"}, code: "too_deep"},
	{name: "an unknown field", operation: "publishBatch", call: call{method: "POST", path: "/v1/events/batch", body: `{"events":[],"x":1}`}, code: "unknown_field", field: "x"},
	{name: "a field twice", operation: "publishBatch", call: call{method: "POST", path: "/v1/events/batch", body: `{"events":[],"events":[]}`}, code: "duplicate_field", field: "events"},
	{name: "no events", operation: "publishBatch", call: call{method: "POST", path: "/v1/events/batch", body: `{}`}, code: "missing_field", field: "events"},
	{name: "a key header", operation: "publishBatch", call: batch("").with("Idempotency-Key: k"), code: "invalid_idempotency_key", field: "Idempotency-Key"},
	{name: "a staleAfter header", operation: "publishBatch", call: batch("").with("Stale-After: 5"), code: "invalid_stale_after", field: "Stale-After"},
	{name: "too many", operation: "publishBatch", call: batch("1,1,1,1,1"), code: "batch_too_large", field: "events"},
	{name: "too large", operation: "publishBatch", call: batch(strings.Repeat(" ", 1100)), code: "payload_too_large"},
	{name: "a form", operation: "publishBatch", call: batch("").with("Content-Type: text/plain"), code: "unsupported_media_type"},
	{name: "a body that does not come", operation: "publishBatch", call: batch("").reading(slow{}), code: "request_timeout"},
	{name: "no store", operation: "publishBatch", call: batch("7,{" + plain + "}"), code: "store_unavailable", backend: failing(wrapped(delivery.ErrStoreUnavailable))},
	{name: "no room", operation: "publishBatch", call: batch("{" + plain + "}"), code: "store_full", backend: failing(delivery.ErrStoreFull)},
	{name: "shutting down", operation: "publishBatch", call: batch("{" + plain + "}"), code: "shutting_down", backend: failing(delivery.ErrClosed)},
	{name: "a bug", operation: "publishBatch", call: batch("{" + plain + "}"), code: "internal", backend: broken()},

	{name: "a user id that is too long", operation: "listJobs", call: get("/v1/users/" + strings.Trim(long, `"`) + "/jobs"), code: "invalid_user_id", field: "userId"},
	{name: "an empty user id", operation: "listJobs", call: get("/v1/users//jobs"), code: "invalid_user_id", field: "userId"},
	{name: "a limit of none", operation: "listJobs", call: get("/v1/users/alice/jobs?limit=0"), code: "invalid_limit", field: "limit"},
	{name: "a limit that is too high", operation: "listJobs", call: get("/v1/users/alice/jobs?limit=201"), code: "invalid_limit", field: "limit"},
	{name: "a limit that is no number", operation: "listJobs", call: get("/v1/users/alice/jobs?limit=many"), code: "invalid_limit", field: "limit"},
	{name: "a limit that no int holds", operation: "listJobs", call: get("/v1/users/alice/jobs?limit=99999999999999999999"), code: "invalid_limit", field: "limit"},
	{name: "a cursor that is none", operation: "listJobs", call: get("/v1/users/alice/jobs?before=yesterday"), code: "invalid_cursor", field: "before"},
	{name: "a cursor before everything", operation: "listJobs", call: get("/v1/users/alice/jobs?before=0-0"), code: "invalid_cursor", field: "before"},
	{name: "no store", operation: "listJobs", call: get("/v1/users/alice/jobs"), code: "store_unavailable", backend: failing(delivery.ErrStoreUnavailable)},
	{name: "shutting down", operation: "listJobs", call: get("/v1/users/alice/jobs"), code: "shutting_down", backend: failing(delivery.ErrClosed)},
	{name: "an unknown failure", operation: "listJobs", call: get("/v1/users/alice/jobs"), code: "internal", backend: failing(errors.New("secret detail"))},

	{name: "no store", operation: "disconnectUser", call: disconnect(""), code: "store_unavailable", backend: failing(wrapped(delivery.ErrStoreUnavailable))},
	{name: "shutting down", operation: "disconnectUser", call: disconnect(""), code: "shutting_down", backend: failing(delivery.ErrClosed)},
	{name: "a control character in a user id", operation: "disconnectUser", call: disconnect("{}").on("/v1/users/a%00b/disconnect"), code: "invalid_user_id", field: "userId"},
	{name: "bytes that are no JSON", operation: "disconnectUser", call: disconnect(`{"reason":}`), code: "invalid_json"},
	{name: "an array", operation: "disconnectUser", call: disconnect(`[]`), code: "invalid_json"},
	{name: "half an object", operation: "disconnectUser", call: disconnect(`{"reason":"x"`), code: "invalid_json"},
	{name: "something after the object", operation: "disconnectUser", call: disconnect(`{} {}`), code: "invalid_json"},
	{name: "a reason that is no string", operation: "disconnectUser", call: disconnect(`{"reason":7}`), code: "invalid_json", field: "reason"},
	{name: "not UTF-8", operation: "disconnectUser", call: disconnect("{\"reason\":\"\xff\"}"), code: "invalid_utf8"},
	{name: "an unknown field", operation: "disconnectUser", call: disconnect(`{"` + strings.Repeat("ä", 40) + `":1}`), code: "unknown_field", field: strings.Repeat("ä", 32) + "…"},
	{name: "a field twice", operation: "disconnectUser", call: disconnect(`{"reason":"a","reason":"b"}`), code: "duplicate_field", field: "reason"},
	{name: "a long reason", operation: "disconnectUser", call: disconnect(`{"reason":"` + strings.Repeat("x", 257) + `"}`), code: "invalid_reason", field: "reason"},
	{name: "too large", operation: "disconnectUser", call: disconnect(`{"reason":"` + strings.Repeat("x", 5000) + `"}`), code: "payload_too_large"},
	{name: "a form", operation: "disconnectUser", call: disconnect("reason=x").with("Content-Type: application/x-www-form-urlencoded"), code: "unsupported_media_type"},
	{name: "a body that does not come", operation: "disconnectUser", call: disconnect("{}").reading(slow{}), code: "request_timeout"},
	{name: "a bug", operation: "disconnectUser", call: disconnect(""), code: "internal", backend: broken()},

	{name: "a limit of 0", operation: "listPresence", call: get("/v1/presence?limit=0"), code: "invalid_limit", field: "limit"},
	{name: "a limit that is too high", operation: "listPresence", call: get("/v1/presence?limit=1001"), code: "invalid_limit", field: "limit"},
	{name: "a limit that is no number", operation: "listPresence", call: get("/v1/presence?limit=ten"), code: "invalid_limit", field: "limit"},
	{name: "a cursor that no page gave", operation: "listPresence", call: get("/v1/presence?cursor=%00"), code: "invalid_cursor", field: "cursor"},
	{name: "a bug", operation: "listPresence", call: get("/v1/presence"), code: "internal", backend: broken()},

	{name: "a bug", operation: "countPresence", call: get("/v1/presence/count"), code: "internal", backend: broken()},

	{name: "a user id that is not UTF-8", operation: "getPresence", call: get("/v1/presence/%ff"), code: "invalid_user_id", field: "userId"},
	{name: "a bug", operation: "getPresence", call: get("/v1/presence/alice"), code: "internal", backend: broken()},

	{name: "bytes that are no JSON", operation: "queryPresence", call: query(`{"userIds":["a",]}`), code: "invalid_json"},
	{name: "ids that are no array", operation: "queryPresence", call: query(`{"userIds":"a"}`), code: "invalid_json", field: "userIds"},
	{name: "not UTF-8", operation: "queryPresence", call: query("{\"userIds\":[\"\xff\"]}"), code: "invalid_utf8"},
	{name: "an unknown field", operation: "queryPresence", call: query(`{"users":[]}`), code: "unknown_field", field: "users"},
	{name: "a field twice", operation: "queryPresence", call: query(`{"userIds":[],"userIds":[]}`), code: "duplicate_field", field: "userIds"},
	{name: "no ids", operation: "queryPresence", call: query(`{}`), code: "missing_field", field: "userIds"},
	{name: "null for ids", operation: "queryPresence", call: query(`{"userIds":null}`), code: "missing_field", field: "userIds"},
	{name: "an empty id", operation: "queryPresence", call: query(`{"userIds":["a",""]}`), code: "invalid_user_id", field: "userIds"},
	{name: "null for an id", operation: "queryPresence", call: query(`{"userIds":[null]}`), code: "invalid_user_id", field: "userIds"},
	{name: "a fraction for an id", operation: "queryPresence", call: query(`{"userIds":[1.5]}`), code: "invalid_user_id", field: "userIds"},
	{name: "too many", operation: "queryPresence", call: query(`{"userIds":[1` + strings.Repeat(",1", 1000) + `]}`), code: "batch_too_large", field: "userIds"},
	{name: "too large", operation: "queryPresence", call: query(strings.Repeat(" ", 1<<20+1)), code: "payload_too_large"},
	{name: "a form", operation: "queryPresence", call: query("{}").with("Content-Type: text/plain"), code: "unsupported_media_type"},
	{name: "a body that does not come", operation: "queryPresence", call: query("{}").reading(slow{}), code: "request_timeout"},
	{name: "a bug", operation: "queryPresence", call: query(`{"userIds":["a"]}`), code: "internal", backend: broken()},

	{name: "no store", operation: "ready", call: get("/readyz"), code: "store_unavailable", backend: failing(delivery.ErrStoreUnavailable)},
	{name: "shutting down", operation: "ready", call: get("/readyz"), code: "shutting_down", backend: failing(delivery.ErrClosed)},
	{name: "an unknown failure", operation: "ready", call: get("/readyz"), code: "internal", backend: failing(errors.New("secret detail"))},
}

func wrapped(err error) error { return errors.Join(errors.New("secret detail"), err) }

// failing is a backend in which everything fails with err.
func failing(err error) *backend {
	return &backend{
		publish:    func(events.Event) (delivery.Result, error) { return delivery.Result{}, err },
		batch:      err,
		jobs:       func(delivery.JobsQuery) (delivery.JobsPage, error) { return delivery.JobsPage{}, err },
		disconnect: err,
		ready:      err,
	}
}

// broken is a backend that panics whatever it is asked.
func broken() *backend { return nil }

func TestEveryRefusal(t *testing.T) {
	document := readOpenAPI(t)
	seen := make(map[string]map[string]bool) // operation → codes
	note := func(operation, code string) {
		if seen[operation] == nil {
			seen[operation] = make(map[string]bool)
		}
		seen[operation][code] = true
	}
	check := func(t *testing.T, operation string, c call, b *backend, code, field string) {
		t.Helper()
		w := c.to(api(t, b, smallLimits, silent()))
		body := problemIn(t, w)
		if body.Code != code || body.Field != field {
			t.Fatalf("got %s at %q, want %s at %q (%s)", body.Code, body.Field, code, field, body.Detail)
		}
		kind := problems[code]
		if w.Code != kind.status || body.Status != kind.status || body.Title != kind.title || body.Type != problemType(code) || body.RequestID != "r1" {
			t.Errorf("got %d %+v", w.Code, body)
		}
		if body.Detail == "" || strings.Contains(body.Detail, "secret") {
			t.Errorf("detail %q", body.Detail)
		}
		if got := w.Header().Get("Retry-After") != ""; got != (kind.status == 503) {
			t.Errorf("status %d, Retry-After %q", kind.status, w.Header().Get("Retry-After"))
		}
		note(operation, code)
	}
	for _, tc := range refusals {
		b := tc.backend
		if b == nil && tc.name != "a bug" {
			b = new(backend)
		}
		t.Run(tc.operation+"/"+tc.name, func(t *testing.T) { check(t, tc.operation, tc.call, b, tc.code, tc.field) })
	}
	for name, operation := range document.operations() {
		if len(operation.Security) == 0 && operation.Security != nil {
			continue // open to all
		}
		path := strings.ReplaceAll(operation.path, "{userId}", "alice")
		t.Run(name+"/no key", func(t *testing.T) {
			check(t, name, call{method: operation.method, path: path, keyless: true}, new(backend), "api_key_missing", "")
		})
		t.Run(name+"/wrong key", func(t *testing.T) {
			check(t, name, call{method: operation.method, path: path, keyless: true}.with("X-API-Key: wrong"), new(backend), "api_key_invalid", "")
		})
	}

	for name, operation := range document.operations() {
		for _, code := range operation.Codes {
			if !seen[name][code] {
				t.Errorf("openapi.yaml: %s lists %s, which no test provokes", name, code)
			}
		}
		for code := range seen[name] {
			if !slices.Contains(operation.Codes, code) {
				t.Errorf("openapi.yaml: %s does not list %s", name, code)
			}
		}
	}
}

// The refusals of a batch's items, each beside a good one.
func TestEveryRefusalOfAnItem(t *testing.T) {
	seen := make(map[string]bool)
	for _, tc := range refusals {
		if tc.operation != "publishEvent" || tc.call.body == "" || len(tc.call.headers) > 0 || tc.call.reader != nil {
			continue
		}
		b := &backend{publish: func(event events.Event) (delivery.Result, error) {
			if tc.backend != nil && event.UserID == "u" {
				return tc.backend.publish(event)
			}
			return delivery.Result{Status: delivery.StatusStored}, nil
		}}
		text := tc.call.body
		w := batch(`{"userId":"good","event":"x","data":1},` + text).to(api(t, b, EventsConfig{MaxEventBytes: 256}, silent()))
		if w.Code != 200 {
			continue // the whole batch failed, see TestEveryRefusal
		}
		code := tc.code
		if code == "payload_too_large" {
			code = "event_too_large"
		}
		if !strings.Contains(w.Body.String(), `{"id":null,"status":"stored","sockets":0},{"error":{`) ||
			!strings.Contains(w.Body.String(), `"code":"`+code+`"`) || strings.Contains(w.Body.String(), "secret") {
			t.Errorf("%s: want %s: %s", tc.name, code, w.Body)
		}
		seen[code] = true
	}
	for _, code := range readOpenAPI(t).operations()["publishBatch"].ItemCodes {
		if !seen[code] {
			t.Errorf("openapi.yaml: an item's %s, which no test provokes", code)
		}
		delete(seen, code)
	}
	for code := range seen {
		t.Errorf("openapi.yaml: an item's %s is not listed", code)
	}
}

func TestUnmatchedRequests(t *testing.T) {
	h := api(t, new(backend), smallLimits, silent())
	for _, tc := range []struct {
		method, path string
		code, allow  string
	}{
		{"GET", "/", "not_found", ""},
		{"GET", "/v1", "not_found", ""},
		{"GET", "/v1/events/", "not_found", ""},
		{"GET", "/V1/presence", "not_found", ""},
		{"GET", "//v1/presence", "not_found", ""},
		{"GET", "/v1/presence/", "not_found", ""},
		{"GET", "/v1/presence/a/b", "not_found", ""},
		{"GET", "/v1/events", "method_not_allowed", "POST"},
		{"DELETE", "/v1/presence/alice", "method_not_allowed", "GET"},
		{"POST", "/v1/presence/alice", "method_not_allowed", "GET"},
		{"BREW", "/livez", "method_not_allowed", "GET"},
	} {
		w := call{method: tc.method, path: tc.path}.to(h)
		body := problemIn(t, w)
		if body.Code != tc.code || w.Header().Get("Allow") != tc.allow || body.RequestID != "r1" {
			t.Errorf("%s %s: %+v, Allow %q", tc.method, tc.path, body, w.Header().Get("Allow"))
		}
	}
}

func TestFaultsAreLogged(t *testing.T) {
	for _, tc := range []struct {
		err    error
		call   call
		logged bool
	}{
		{errors.New("the cause"), event(plain), true},
		{errors.Join(delivery.ErrStoreUnavailable, errors.New("the cause")), event(plain), true},
		{errors.New("the cause"), batch("{" + plain + "}"), true},
		{&events.Error{Code: "brand_new", Detail: "the cause"}, event(plain), true},
		{errors.Join(delivery.ErrKeyReused, errors.New("the cause")), event(plain), false},
	} {
		var text strings.Builder
		log := slog.New(slog.NewTextHandler(&text, &slog.HandlerOptions{Level: slog.LevelInfo}))
		tc.call.to(api(t, failing(tc.err), smallLimits, log))
		if got := strings.Contains(text.String(), "the cause"); got != tc.logged {
			t.Errorf("%v: logged %q", tc.err, text.String())
		}
	}
}

// Every kind of problem, byte for byte.
func TestProblemsAreGolden(t *testing.T) {
	const file = "testdata/problems.golden"
	var got strings.Builder
	for _, kind := range catalogue {
		h := api(t, new(backend), smallLimits, silent())
		h.GET("/probe", func(c *gin.Context) { Problem(c, kind.code) })
		w := get("/probe").to(h)
		got.WriteString(w.Body.String() + "\n")
	}
	if *update {
		if err := os.WriteFile(file, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("problems have changed (-update accepts it):\n%s", got.String())
	}
}
