package handlers

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gin-gonic/gin"

	"jobwire/internal/delivery"
	"jobwire/internal/events"
	"jobwire/middleware"
)

const progress = `{"userId":"alice","event":"job_progress","data":{"jobId":"j","progress":1}}`

func TestPublish(t *testing.T) {
	id := events.ID{Ms: 1763900000000, Seq: 7}
	for name, tc := range map[string]struct {
		result delivery.Result
		body   string
		replay string
	}{
		"sent":      {delivery.Result{ID: id, Status: delivery.StatusSent, Sockets: 3}, `{"id":"1763900000000-7","status":"sent","sockets":3}`, ""},
		"stored":    {delivery.Result{ID: id, Status: delivery.StatusStored}, `{"id":"1763900000000-7","status":"stored","sockets":0}`, ""},
		"coalesced": {delivery.Result{ID: id, Status: delivery.StatusCoalesced}, `{"id":"1763900000000-7","status":"coalesced","sockets":0}`, ""},
		"ignored": {delivery.Result{Status: delivery.StatusIgnored, Reason: delivery.ReasonJobFinished},
			`{"id":null,"status":"ignored","sockets":0,"reason":"job_finished"}`, ""},
		"repeated": {delivery.Result{ID: id, Status: delivery.StatusSent, Sockets: 3, Repeated: true},
			`{"id":"1763900000000-7","status":"sent","sockets":3}`, "true"},
	} {
		t.Run(name, func(t *testing.T) {
			b := &backend{publish: func(events.Event) (delivery.Result, error) { return tc.result, nil }}
			w := call{method: "POST", path: "/v1/events", body: progress}.to(api(b, smallLimits, silent()))
			expect(t, w, 202, tc.body)
			if got := w.Header().Get("Content-Type"); got != "application/json" {
				t.Errorf("content type %q", got)
			}
			if got := w.Header().Get("Idempotent-Replayed"); got != tc.replay {
				t.Errorf("replayed %q, want %q", got, tc.replay)
			}
			if got := w.Header().Get("X-Request-Id"); got != "r1" {
				t.Errorf("request id %q", got)
			}
		})
	}
}

// The data of a worker must reach the publisher byte for byte.
func TestDataIsPassedOn(t *testing.T) {
	for name, data := range map[string]string{
		"big integers":   `{"jobId":"j","n":123456789012345678901234567890,"f":0.10000000000000000000001,"e":1E+400}`,
		"order of keys":  `{"z":1,"jobId":"j","a":2,"z2":3}`,
		"repeated keys":  `{"jobId":"j","a":1,"a":2}`,
		"unicode":        `{"jobId":"j","s":"ü 漢字 👩‍👩‍👧 \u2028 </script> & "}`,
		"escapes":        `{"jobId":"j","s":"\ud83d\ude00\u0000\/\b"}`,
		"lone surrogate": `{"jobId":"j","s":"\ud83d"}`,
		"spaces":         "{ \"jobId\" :\t\"j\" ,\n \"a\" : [ 1 , 2 ] }",
	} {
		t.Run(name, func(t *testing.T) {
			b := new(backend)
			h := api(b, smallLimits, silent())
			event := `{"data":` + data + `,"event":"job_progress","userId":"alice"}`
			if w := (call{method: "POST", path: "/v1/events", body: event}).to(h); w.Code != 202 {
				t.Fatalf("%d %s", w.Code, w.Body)
			}
			if w := (call{method: "POST", path: "/v1/events/batch", body: `{"events":[` + event + `]}`}).to(h); w.Code != 200 {
				t.Fatalf("%d %s", w.Code, w.Body)
			}
			if len(b.published) != 2 {
				t.Fatalf("%d events", len(b.published))
			}
			for _, got := range b.published {
				if string(got.Data) != data || got.UserID != "alice" || got.JobID != "j" {
					t.Errorf("got  %s\nwant %s\n%+v", got.Data, data, got)
				}
			}
		})
	}
}

func TestEventHeaders(t *testing.T) {
	for name, tc := range map[string]struct {
		fields  string
		headers []string
		key     string
		stale   time.Duration
	}{
		"none":                  {"", nil, "", 0},
		"key":                   {"", []string{"Idempotency-Key: k 1"}, "k 1", 0},
		"key beside the field":  {`,"idempotencyKey":"k"`, []string{"Idempotency-Key: k"}, "k", 0},
		"only the field":        {`,"idempotencyKey":"f","staleAfter":5`, nil, "f", 5 * time.Second},
		"longest key":           {"", []string{"Idempotency-Key: " + strings.Repeat("k", 255)}, strings.Repeat("k", 255), 0},
		"stale":                 {"", []string{"Stale-After: 1.5"}, "", 1500 * time.Millisecond},
		"stale beside the same": {`,"staleAfter":2.0`, []string{"Stale-After: 2"}, "", 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			b := new(backend)
			body := strings.TrimSuffix(progress, "}") + tc.fields + "}"
			w := call{method: "POST", path: "/v1/events", body: body, headers: tc.headers}.to(api(b, EventsConfig{}, silent()))
			if w.Code != 202 {
				t.Fatalf("%d %s", w.Code, w.Body)
			}
			if got := b.published[0]; got.IdempotencyKey != tc.key || got.StaleAfter != tc.stale {
				t.Errorf("got key %q, stale %v", got.IdempotencyKey, got.StaleAfter)
			}
		})
	}
}

func TestPreferWait(t *testing.T) {
	for prefer, tc := range map[string]struct {
		want    time.Duration
		applied string
	}{
		"wait=5":                               {5 * time.Second, "wait=5"},
		`respond-async, Wait = "10"; foo=bar`:  {10 * time.Second, "wait=10"},
		"wait=100000":                          {MaxWait, "wait=60"},
		"wait=1, wait=2":                       {time.Second, "wait=1"},
		"wait=0":                               {0, ""},
		"wait=-1":                              {0, ""},
		"wait=soon":                            {0, ""},
		"wait":                                 {0, ""},
		"waiting=5":                            {0, ""},
		"wait=99999999999999999999999999":      {0, ""},
		"":                                     {0, ""},
		"return=minimal,respond-async,wait=20": {20 * time.Second, "wait=20"},
	} {
		t.Run(prefer, func(t *testing.T) {
			b := new(backend)
			w := call{method: "POST", path: "/v1/events", body: progress, headers: []string{"Prefer: " + prefer}}.to(api(b, smallLimits, silent()))
			if b.waited != tc.want || w.Header().Get("Preference-Applied") != tc.applied {
				t.Errorf("waited %v, applied %q", b.waited, w.Header().Get("Preference-Applied"))
			}
			body := `{"id":"1763900000000-0","status":"sent","sockets":2`
			if tc.want > 0 {
				body += `,"delivered":false`
			}
			expect(t, w, 202, body+"}")
		})
	}

	t.Run("delivered", func(t *testing.T) {
		completed := `{"userId":"alice","event":"job_completed","data":{"jobId":"j"}}`
		w := call{method: "POST", path: "/v1/events", body: completed, headers: []string{"Prefer: wait=1"}}.to(api(new(backend), smallLimits, silent()))
		expect(t, w, 202, `{"id":"1763900000000-0","status":"sent","sockets":2,"delivered":true}`)
	})
}

func TestBatch(t *testing.T) {
	b := &backend{}
	b.publish = func(event events.Event) (delivery.Result, error) {
		switch event.IdempotencyKey {
		case "reused":
			return delivery.Result{}, delivery.ErrKeyReused
		case "odd":
			return delivery.Result{}, context.DeadlineExceeded
		}
		return delivery.Result{ID: events.ID{Ms: 5, Seq: uint64(len(b.published))}, Status: delivery.StatusStored}, nil
	}
	h := api(b, EventsConfig{}, silent())
	w := call{method: "POST", path: "/v1/events/batch", body: `{"events":[
		{"userId":"a","event":"x","data":1},
		{"userId":"a","event":"connect","data":1},
		{"userId":"a","event":"x","data":1,"idempotencyKey":"reused"},
		{"userId":"a","event":"x","data":1,"idempotencyKey":"odd"},
		7,
		{"userId":"b","event":"y","data":2}
	]}`}.to(h)
	expect(t, w, 200, `{"results":[`+
		`{"id":"5-1","status":"stored","sockets":0},`+
		`{"error":{"type":"/openapi.yaml#/x-problems/reserved_event_name","title":"Reserved event name","status":400,`+
		`"detail":"\"connect\" is reserved by Socket.IO","code":"reserved_event_name","field":"event"}},`+
		`{"error":{"type":"/openapi.yaml#/x-problems/idempotency_key_reused","title":"Idempotency key reused","status":422,`+
		`"detail":"the key was used before for another event of this user","code":"idempotency_key_reused","field":"Idempotency-Key"}},`+
		`{"error":{"type":"/openapi.yaml#/x-problems/internal","title":"Internal error","status":500,`+
		`"detail":"something went wrong here; the log knows more under the request id","code":"internal"}},`+
		`{"error":{"type":"/openapi.yaml#/x-problems/invalid_json","title":"Not the JSON that was expected","status":400,`+
		`"detail":"an event must be a JSON object","code":"invalid_json"}},`+
		`{"id":"5-4","status":"stored","sockets":0}]}`)

	expect(t, call{method: "POST", path: "/v1/events/batch", body: `{"events":[]}`}.to(h), 200, `{"results":[]}`)
}

// A client that has left gets nothing, and is nobody's fault.
func TestClientThatLeft(t *testing.T) {
	b := &backend{publish: func(events.Event) (delivery.Result, error) { return delivery.Result{}, context.Canceled }}
	h := api(b, smallLimits, silent())
	for _, c := range []call{
		{method: "POST", path: "/v1/events", body: progress},
		{method: "POST", path: "/v1/events/batch", body: `{"events":[` + progress + `]}`},
	} {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		w := httptest.NewRecorder()
		h.ServeHTTP(w, c.request().WithContext(ctx))
		expect(t, w, 499, "")
	}
	// The same error without the client's leaving is ours.
	w := call{method: "POST", path: "/v1/events", body: progress}.to(h)
	if got := problemIn(t, w).Code; got != "internal" {
		t.Errorf("code %s", got)
	}
}

func TestBodiesOfUnknownLength(t *testing.T) {
	h := api(new(backend), EventsConfig{MaxEventBytes: len(progress)}, silent())
	for _, tc := range []struct {
		body   string
		status int
	}{{progress, 202}, {progress + " ", 413}} {
		r := call{method: "POST", path: "/v1/events", body: tc.body}.request()
		r.ContentLength = -1
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != tc.status {
			t.Errorf("%d bytes: %d %s", len(tc.body), w.Code, w.Body)
		}
		if w.Code == http.StatusRequestEntityTooLarge && w.Header().Get("Connection") != "close" {
			t.Error("the connection stays open, to be read to its end")
		}
	}
}

func TestBatchLimitIsNeverMoreThanItsEvents(t *testing.T) {
	for _, tc := range []struct{ cfg, want EventsConfig }{
		{EventsConfig{}, EventsConfig{64 << 10, 1000, 8 << 20}},
		{EventsConfig{MaxEventBytes: 1000, MaxBatchItems: 10}, EventsConfig{1000, 10, 11037}},
		{EventsConfig{MaxEventBytes: 1 << 62, MaxBatchItems: 1 << 40, MaxBatchBytes: 99}, EventsConfig{1 << 62, 1 << 40, 99}},
	} {
		if got := NewEvents(nil, tc.cfg).cfg; got != tc.want {
			t.Errorf("%+v became %+v, want %+v", tc.cfg, got, tc.want)
		}
	}
}

func TestAcceptedMediaTypes(t *testing.T) {
	h := api(new(backend), smallLimits, silent())
	for _, media := range []string{"application/json", "Application/JSON; charset=UTF-8", "application/cloudevents+json", "application/json;charset=\"utf-8\""} {
		w := call{method: "POST", path: "/v1/events", body: progress, headers: []string{"Content-Type: " + media, "Content-Encoding: identity"}}.to(h)
		if w.Code != 202 {
			t.Errorf("%s: %d %s", media, w.Code, w.Body)
		}
	}
}

// instant publishes for free, so that benchmarks show the handlers alone.
type instant struct{ Publisher }

func (instant) Publish(context.Context, events.Event) (delivery.Result, error) {
	return delivery.Result{ID: events.ID{Ms: 1763900000000}, Status: delivery.StatusSent, Sockets: 2}, nil
}

// devNull is a response writer without costs of its own.
type devNull struct{ header http.Header }

func (s *devNull) Header() http.Header         { return s.header }
func (s *devNull) Write(p []byte) (int, error) { return len(p), nil }
func (s *devNull) WriteHeader(int)             { clear(s.header) }

func BenchmarkPublish(b *testing.B) {
	publisher := NewEvents(instant{}, EventsConfig{})
	bare := gin.New()
	bare.POST("/v1/events", publisher.Publish)
	guarded := gin.New()
	Prepare(guarded)
	guarded.Use(middleware.AssignRequestID(), middleware.NewRequests().Count(),
		middleware.AccessLog(slog.New(slog.DiscardHandler), slog.LevelDebug, keys{}), middleware.Recovery(silent(), Problem))
	guarded.POST("/v1/events", middleware.APIKey(keys{testKey: "tests"}, Problem), publisher.Publish)

	for name, h := range map[string]http.Handler{"handler": bare, "with middleware": guarded} {
		b.Run(name, func(b *testing.B) {
			body := strings.NewReader(progress)
			r := call{method: "POST", path: "/v1/events", reader: body}.request()
			r.ContentLength = int64(len(progress))
			w := &devNull{header: make(http.Header)}
			b.ReportAllocs()
			for b.Loop() {
				body.Reset(progress)
				h.ServeHTTP(w, r)
			}
		})
	}
}
