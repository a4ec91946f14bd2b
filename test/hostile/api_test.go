//go:build linux

package hostile

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

type badBody struct {
	name, body string
	status     int
	code       string
}

func badEvents() []badBody {
	event := func(data string) string { return `{"userId":"api","event":"custom","data":` + data + `}` }
	job := func(data string) string { return `{"userId":"api","event":"job_progress","data":` + data + `}` }
	named := func(name string) string { return `{"userId":"api","event":` + name + `,"data":1}` }
	user := func(id string) string { return `{"userId":` + id + `,"event":"custom","data":1}` }
	list := []badBody{
		{"nothing", ``, 400, "invalid_json"},
		{"spaces", "  \n ", 400, "invalid_json"},
		{"null", `null`, 400, "invalid_json"},
		{"a list", `[]`, 400, "invalid_json"},
		{"half an object", `{"userId":"api"`, 400, "invalid_json"},
		{"two objects", event("1") + event("1"), 400, "invalid_json"},
		{"a NUL behind it", event("1") + "\x00", 400, "invalid_json"},
		{"a comment", `{/**/"userId":"api","event":"custom","data":1}`, 400, "invalid_json"},
		{"a trailing comma", `{"userId":"api","event":"custom","data":1,}`, 400, "invalid_json"},
		{"single quotes", `{'userId':'api','event':'custom','data':1}`, 400, "invalid_json"},
		{"a byte order mark", "\ufeff" + event("1"), 400, "invalid_json"},
		{"UTF-16", "\xff\xfe{\x00", 400, ""},
		{"NaN", event("NaN"), 400, "invalid_json"},
		{"a number with a leading zero", event("01"), 400, "invalid_json"},
		{"a raw line break in a text", event("\"a\nb\""), 400, "invalid_json"},
		{"a broken escape", event(`"\x41"`), 400, "invalid_json"},
		{"nested 65 deep", event(strings.Repeat("[", 65) + strings.Repeat("]", 65)), 400, "too_deep"},
		{"nested 30,000 deep", event(strings.Repeat("[", 30_000) + strings.Repeat("]", 30_000)), 400, "too_deep"},
		{"objects nested 10,000 deep", event(strings.Repeat(`{"a":`, 10_000) + "1" + strings.Repeat("}", 10_000)), 400, "too_deep"},
		{"brackets only", strings.Repeat("[", 60_000), 400, ""},
		{"bytes that are not UTF-8", event("\"\xff\""), 400, "invalid_utf8"},
		{"overlong UTF-8", event("\"\xc0\x80\""), 400, "invalid_utf8"},
		{"a surrogate in UTF-8", event("\"\xed\xa0\x80\""), 400, "invalid_utf8"},
		{"a member's name that is not UTF-8", "{\"userId\":\"api\",\"event\":\"custom\",\"data\":1,\"\xff\":1}", 400, ""},
		{"an unknown field", `{"userId":"api","event":"custom","data":1,"evil":1}`, 400, "unknown_field"},
		{"__proto__", `{"userId":"api","event":"custom","data":1,"__proto__":{}}`, 400, "unknown_field"},
		{"a field of another case", `{"userid":"api","event":"custom","data":1}`, 400, ""},
		{"the user twice", `{"userId":"api","userId":"bystander-ann","event":"custom","data":1}`, 400, "duplicate_field"},
		{"the user twice, once escaped", `{"userId":"api","\u0075serId":"bystander-ann","event":"custom","data":1}`, 400, "duplicate_field"},
		{"data twice", `{"userId":"api","event":"custom","data":1,"data":2}`, 400, "duplicate_field"},
		{"the job id twice", job(`{"jobId":"a","jobId":"b"}`), 400, "duplicate_field"},
		{"no user", `{"event":"custom","data":1}`, 400, "missing_field"},
		{"no event", `{"userId":"api","data":1}`, 400, "missing_field"},
		{"no data", `{"userId":"api","event":"custom"}`, 400, "missing_field"},
		{"user null", user(`null`), 400, "invalid_user_id"},
		{"user empty", user(`""`), 400, "invalid_user_id"},
		{"user a list", user(`["api"]`), 400, "invalid_user_id"},
		{"user true", user(`true`), 400, "invalid_user_id"},
		{"user a fraction", user(`1.5`), 400, "invalid_user_id"},
		{"user with an exponent", user(`1e3`), 400, "invalid_user_id"},
		{"user with a line break", user(`"a\r\nX-Evil: 1"`), 400, "invalid_user_id"},
		{"user with a NUL", user(`"a\u0000"`), 400, "invalid_user_id"},
		{"user with DEL", user(`"a\u007f"`), 400, "invalid_user_id"},
		{"user with C1", user(`"a\u0085"`), 400, "invalid_user_id"},
		{"user with a lone surrogate", user(`"\ud800"`), 400, ""},
		{"user with a surrogate pair upside down", user(`"\udc00\ud800"`), 400, ""},
		{"user of 129 bytes", user(`"` + strings.Repeat("u", 129) + `"`), 400, "invalid_user_id"},
		{"event null", named(`null`), 400, ""},
		{"event a number", named(`1`), 400, ""},
		{"event empty", named(`""`), 400, "invalid_event_name"},
		{"event of 65 letters", named(`"` + strings.Repeat("e", 65) + `"`), 400, "invalid_event_name"},
		{"event with a space", named(`"a b"`), 400, "invalid_event_name"},
		{"event with quotes", named(`"a\",\"b"`), 400, "invalid_event_name"},
		{"event with a line break", named(`"a\n"`), 400, "invalid_event_name"},
		{"event that begins with a digit", named(`"1a"`), 400, "invalid_event_name"},
		{"event with an umlaut", named(`"ä"`), 400, "invalid_event_name"},
		{"job data a list", job(`[]`), 400, "invalid_data"},
		{"job data null", job(`null`), 400, "invalid_data"},
		{"no job id", job(`{}`), 400, "missing_job_id"},
		{"job id null", job(`{"jobId":null}`), 400, "missing_job_id"},
		{"job id a fraction", job(`{"jobId":1.0}`), 400, "invalid_job_id"},
		{"job id an object", job(`{"jobId":{}}`), 400, "invalid_job_id"},
		{"job id empty", job(`{"jobId":""}`), 400, "invalid_job_id"},
		{"job id with a line break", job(`{"jobId":"a\nb"}`), 400, "invalid_job_id"},
		{"job id of 129 bytes", job(`{"jobId":"` + strings.Repeat("j", 129) + `"}`), 400, "invalid_job_id"},
		{"attempt negative", job(`{"jobId":"a","attempt":-1}`), 400, "invalid_attempt"},
		{"attempt 2^32", job(`{"jobId":"a","attempt":4294967296}`), 400, "invalid_attempt"},
		{"attempt a text", job(`{"jobId":"a","attempt":"1"}`), 400, "invalid_attempt"},
		{"key empty", `{"userId":"api","event":"custom","data":1,"idempotencyKey":""}`, 400, "invalid_idempotency_key"},
		{"key of 256 bytes", `{"userId":"api","event":"custom","data":1,"idempotencyKey":"` + strings.Repeat("k", 256) + `"}`, 400, "invalid_idempotency_key"},
		{"staleAfter negative", `{"userId":"api","event":"job_progress","data":{"jobId":1},"staleAfter":-1}`, 400, "invalid_stale_after"},
		{"staleAfter 1e300", `{"userId":"api","event":"job_progress","data":{"jobId":1},"staleAfter":1e300}`, 400, "invalid_stale_after"},
		{"staleAfter a text", `{"userId":"api","event":"job_progress","data":{"jobId":1},"staleAfter":"1"}`, 400, "invalid_stale_after"},
		{"70 kB", event(`"` + strings.Repeat("x", 70<<10) + `"`), 413, "payload_too_large"},
	}
	for _, name := range []string{
		"connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener",
		"authenticated", "unauthorized", "user_online", "user_offline", "online_users", "job_stalled",
	} {
		list = append(list, badBody{"reserved name " + name, named(fmt.Sprintf("%q", name)), 400, "reserved_event_name"})
	}
	return list
}

// problemCode is the code of an RFC 9457 answer; the answer must be one.
func problemCode(response *http.Response) (string, error) {
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return "", err
	}
	if got := response.Header.Get("Content-Type"); got != "application/problem+json" {
		return "", fmt.Errorf("content type %q, body %.200s", got, text)
	}
	var problem struct {
		Code, Title, Detail, RequestID string
		Status                         int
	}
	if err := json.Unmarshal(text, &problem); err != nil {
		return "", err
	}
	if problem.Status != response.StatusCode || problem.Title == "" || problem.Detail == "" || problem.RequestID == "" {
		return "", fmt.Errorf("not a whole problem: %s", text)
	}
	return problem.Code, nil
}

// Whatever a worker sends instead of an event is refused with a code, alone and in a batch beside a good one; nobody hears it.
func TestBadEvents(t *testing.T) {
	t.Parallel()
	n := start(t, "--log-level=debug")
	watch(t, n)
	var heard []string
	listener := must[*tab](t)(n.open(visit{user: "api", heard: func(packet string) { heard = append(heard, packet) }}))
	for _, b := range badEvents() {
		t.Run(b.name, func(t *testing.T) {
			response := must[*http.Response](t)(n.do(http.MethodPost, "/v1/events", b.body))
			code, err := problemCode(response)
			if err != nil || response.StatusCode != b.status || b.code != "" && code != b.code {
				t.Errorf("answered %d %q, %v, want %d %q", response.StatusCode, code, err, b.status, b.code)
			}
		})
		t.Run(b.name+", in a batch", func(t *testing.T) {
			good := envelope("api-other", "custom", "1")
			response := must[*http.Response](t)(n.do(http.MethodPost, "/v1/events/batch", `{"events":[`+good+`,`+b.body+`,`+good+`]}`))
			defer response.Body.Close()
			if response.StatusCode >= 500 {
				t.Errorf("answered %s", response.Status)
			}
		})
	}
	ack := must[json.RawMessage](t)(listener.call("get_online_users")) // behind everything that was emitted
	listener.leave()
	for _, packet := range heard {
		if !strings.HasPrefix(packet, `2["authenticated"`) && !strings.HasPrefix(packet, `2["online_users"`) && !strings.HasPrefix(packet, `2["user_`) {
			t.Errorf("heard %.200s; %s", packet, ack)
		}
	}
	n.stillServes(t)
}

// do makes a call and leaves the answer to the caller.
func (n *node) do(method, path, body string, headers ...string) (*http.Response, error) {
	request, err := http.NewRequest(method, "http://"+n.addr+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+apiKey)
	request.Header.Set("Content-Type", "application/json")
	for _, header := range headers {
		name, value, _ := strings.Cut(header, ": ")
		request.Header.Add(name, value)
		if name == "Authorization" || name == "Content-Type" {
			request.Header.Set(name, value)
		}
	}
	return n.http.Do(request)
}

// Batches that are too much as a whole are refused as a whole.
func TestBadBatches(t *testing.T) {
	t.Parallel()
	n := start(t)
	watch(t, n)
	item := envelope("api", "custom", "1")
	many := func(count int) string {
		return `{"events":[` + strings.TrimSuffix(strings.Repeat(item+",", count), ",") + `]}`
	}
	for _, b := range []badBody{
		{"1,001 events", many(1001), 413, "batch_too_large"},
		{"100,000 events", many(100_000), 413, ""},
		{"9 MiB in one event", `{"events":[` + envelope("api", "custom", `"`+strings.Repeat("x", 9<<20)+`"`) + `]}`, 413, "payload_too_large"},
		{"2,000,000 brackets", `{"events":[` + strings.Repeat("[", 2_000_000), 400, ""},
		{"1,000,000 commas", `{"events":[` + strings.Repeat(",", 1_000_000) + `]}`, 400, "invalid_json"},
		{"500,000 empty objects", `{"events":[` + strings.Repeat("{},", 500_000) + `{}]}`, 413, "batch_too_large"},
		{"a member of 1 MB", `{"` + strings.Repeat("e", 1<<20) + `":[]}`, 400, "unknown_field"},
		{"events an object", `{"events":{}}`, 400, "invalid_json"},
		{"events null", `{"events":null}`, 400, ""},
		{"no events", `{}`, 400, "missing_field"},
		{"events twice", `{"events":[],"events":[]}`, 400, "duplicate_field"},
		{"a list", `[]`, 400, "invalid_json"},
		{"half of it", many(10)[:200], 400, "invalid_json"},
	} {
		t.Run(b.name, func(t *testing.T) {
			response := must[*http.Response](t)(n.do(http.MethodPost, "/v1/events/batch", b.body))
			code, err := problemCode(response)
			if err != nil || response.StatusCode != b.status || b.code != "" && code != b.code {
				t.Errorf("answered %d %q, %v, want %d %q", response.StatusCode, code, err, b.status, b.code)
			}
			n.stillServes(t)
		})
	}
	t.Run("1,000 bad events fail one by one", func(t *testing.T) {
		body := `{"events":[` + strings.TrimSuffix(strings.Repeat(`{"userId":7},`, 1000), ",") + `]}`
		response := must[*http.Response](t)(n.do(http.MethodPost, "/v1/events/batch", body))
		defer response.Body.Close()
		text := must[[]byte](t)(io.ReadAll(response.Body))
		if got := strings.Count(string(text), `"missing_field"`); response.StatusCode != 200 || got != 1000 {
			t.Errorf("answered %s with %d refusals", response.Status, got)
		}
	})
}

// Paths, headers and keys that try to be more than they are.
func TestSmugglers(t *testing.T) {
	t.Parallel()
	n := start(t, "--log-level=debug")
	watch(t, n)
	good := envelope("api", "custom", "1")
	for _, c := range []struct {
		name, method, path, body string
		headers                  []string
		status                   int
		code                     string
	}{
		{"no key", "GET", "/v1/presence", "", []string{"Authorization: "}, 401, "api_key_missing"},
		{"a wrong key", "GET", "/v1/presence", "", []string{"Authorization: Bearer wrong"}, 401, "api_key_invalid"},
		{"the key cut short", "GET", "/v1/presence", "", []string{"Authorization: Bearer " + apiKey[:len(apiKey)-1]}, 401, "api_key_invalid"},
		{"a key of 20 kB", "GET", "/v1/presence", "", []string{"Authorization: Bearer " + strings.Repeat("k", 20_000)}, 401, "api_key_invalid"},
		{"a user's token", "GET", "/v1/presence", "", []string{"Authorization: Bearer " + token("api")}, 401, "api_key_invalid"},
		{"a wrong bearer before a right X-API-Key", "GET", "/v1/presence", "", []string{"Authorization: Bearer wrong", "X-API-Key: " + apiKey}, 401, "api_key_invalid"},
		{"the key in the query", "GET", "/v1/presence?apiKey=" + apiKey, "", []string{"Authorization: "}, 401, "api_key_missing"},

		{"a line break in a path", "GET", "/v1/users/a%0d%0aX-Evil:%201/jobs", "", nil, 400, "invalid_user_id"},
		{"a NUL in a path", "GET", "/v1/presence/a%00b", "", nil, 400, "invalid_user_id"},
		{"bytes in a path", "GET", "/v1/presence/%ff%fe", "", nil, 400, "invalid_user_id"},
		{"an id of 129 bytes in a path", "GET", "/v1/presence/" + strings.Repeat("u", 129), "", nil, 400, "invalid_user_id"},
		{"an empty id", "GET", "/v1/users//jobs", "", nil, 400, ""},
		{"a path in an id", "GET", "/v1/users/..%2f..%2fmetrics/jobs", "", nil, 200, ""},
		{"an escaped path in an id", "GET", "/v1/users/%252e%252e%252f/jobs", "", nil, 200, ""},
		{"a trailing slash", "GET", "/v1/presence/count/", "", nil, 404, "not_found"},
		{"another version", "GET", "/v2/presence", "", nil, 404, "not_found"},
		{"another case", "GET", "/V1/presence", "", nil, 404, "not_found"},
		{"GET of a POST", "GET", "/v1/events", "", nil, 405, "method_not_allowed"},
		{"a method that is overridden", "GET", "/v1/events", "", []string{"X-HTTP-Method-Override: POST"}, 405, "method_not_allowed"},
		{"limit 0", "GET", "/v1/presence?limit=0", "", nil, 400, "invalid_limit"},
		{"limit 2^63", "GET", "/v1/presence?limit=9223372036854775808", "", nil, 400, "invalid_limit"},
		{"limit in words", "GET", "/v1/presence?limit=all", "", nil, 400, "invalid_limit"},
		{"a cursor with a NUL", "GET", "/v1/presence?cursor=%00", "", nil, 400, "invalid_cursor"},

		{"no type", "POST", "/v1/events", good, []string{"Content-Type: "}, 415, "unsupported_media_type"},
		{"a form", "POST", "/v1/events", good, []string{"Content-Type: application/x-www-form-urlencoded"}, 415, "unsupported_media_type"},
		{"text, as pages can send it to anybody", "POST", "/v1/events", good, []string{"Content-Type: text/plain"}, 415, "unsupported_media_type"},
		{"UTF-16", "POST", "/v1/events", good, []string{"Content-Type: application/json; charset=utf-16"}, 415, "unsupported_media_type"},
		{"a type of 20 kB", "POST", "/v1/events", good, []string{"Content-Type: " + strings.Repeat("a;", 10_000)}, 415, "unsupported_media_type"},
		{"a zip bomb", "POST", "/v1/events", "\x1f\x8b\x08\x00", []string{"Content-Encoding: gzip"}, 415, "unsupported_media_type"},
		{"two idempotency keys", "POST", "/v1/events", good, []string{"Idempotency-Key: a", "Idempotency-Key: b"}, 400, "invalid_idempotency_key"},
		{"an idempotency key of 256 bytes", "POST", "/v1/events", good, []string{"Idempotency-Key: " + strings.Repeat("k", 256)}, 400, "invalid_idempotency_key"},
		{"an idempotency key that is not UTF-8", "POST", "/v1/events", good, []string{"Idempotency-Key: \xff"}, 400, "invalid_idempotency_key"},
		{"an idempotency key for a batch", "POST", "/v1/events/batch", `{"events":[]}`, []string{"Idempotency-Key: a"}, 400, "invalid_idempotency_key"},
		{"Stale-After 1e9", "POST", "/v1/events", envelope("api", "job_progress", `{"jobId":1}`), []string{"Stale-After: 1e9"}, 400, "invalid_stale_after"},
		{"Prefer nonsense", "POST", "/v1/events", good, []string{"Prefer: wait=99999999999999999999, respond-async;;;, wait=-1"}, 202, ""},
		{"a reason of 300 bytes", "POST", "/v1/users/api/disconnect", `{"reason":"` + strings.Repeat("r", 300) + `"}`, nil, 400, "invalid_reason"},
		{"a reason that is an object", "POST", "/v1/users/api/disconnect", `{"reason":{}}`, nil, 400, "invalid_json"},
		{"1,001 ids", "POST", "/v1/presence/query", `{"userIds":[` + strings.Repeat("1,", 1000) + `1]}`, nil, 413, "batch_too_large"},
		{"ids nested 10,000 deep", "POST", "/v1/presence/query", `{"userIds":` + strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000) + `}`, nil, 400, ""},
		{"an id with a line break", "POST", "/v1/presence/query", `{"userIds":["a\r\nb"]}`, nil, 400, "invalid_user_id"},
	} {
		t.Run(c.name, func(t *testing.T) {
			response := must[*http.Response](t)(n.do(c.method, c.path, c.body, c.headers...))
			defer response.Body.Close()
			if response.StatusCode != c.status {
				t.Errorf("answered %s, want %d", response.Status, c.status)
			}
			if c.status >= 400 {
				if code, err := problemCode(response); err != nil || c.code != "" && code != c.code {
					t.Errorf("code %q, %v, want %q", code, err, c.code)
				}
			}
			if evil := response.Header.Get("X-Evil"); evil != "" {
				t.Error("a header was smuggled in")
			}
		})
	}
	for _, id := range []string{strings.Repeat("i", 65), "a b", "a\"b", "<script>", "a\tb"} {
		response := must[*http.Response](t)(n.do(http.MethodGet, "/livez", "", "X-Request-Id: "+id))
		response.Body.Close()
		if got := response.Header.Get("X-Request-Id"); got == id || got == "" {
			t.Errorf("request id %q came back as %q", id, got)
		}
	}
	if log := n.book.tail(); strings.Contains(log, apiKey) {
		t.Error("an API key is in the log")
	}
	n.stillServes(t)
}
