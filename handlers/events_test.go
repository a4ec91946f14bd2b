package handlers

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
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
		"of an earlier attempt": {delivery.Result{Status: delivery.StatusIgnored, Reason: delivery.ReasonAttemptSuperseded},
			`{"id":null,"status":"ignored","sockets":0,"reason":"attempt_superseded"}`, ""},
		"a repeat of what was ignored": {delivery.Result{Status: delivery.StatusIgnored, Reason: delivery.ReasonJobFinished, Repeated: true},
			`{"id":null,"status":"ignored","sockets":0,"reason":"job_finished"}`, "true"},
		"repeated": {delivery.Result{ID: id, Status: delivery.StatusSent, Sockets: 3, Repeated: true},
			`{"id":"1763900000000-7","status":"sent","sockets":3}`, "true"},
	} {
		t.Run(name, func(t *testing.T) {
			b := &backend{publish: func(events.Event) (delivery.Result, error) { return tc.result, nil }}
			w := call{method: "POST", path: "/v1/events", body: progress}.to(api(t, b, smallLimits, silent()))
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
			h := api(t, b, smallLimits, silent())
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
		"stale beside a kind":   {`,"kind":"progress"`, []string{"Stale-After: 2"}, "", 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			b := new(backend)
			body := strings.TrimSuffix(progress, "}") + tc.fields + "}"
			w := call{method: "POST", path: "/v1/events", body: body, headers: tc.headers}.to(api(t, b, EventsConfig{}, silent()))
			if w.Code != 202 {
				t.Fatalf("%d %s", w.Code, w.Body)
			}
			if got := b.published[0]; got.IdempotencyKey != tc.key || got.StaleAfter != tc.stale {
				t.Errorf("got key %q, stale %v", got.IdempotencyKey, got.StaleAfter)
			}
		})
	}
}

// What an event is to a job reaches the publisher, from the name and the data or from the fields beside them.
func TestKinds(t *testing.T) {
	for name, tc := range map[string]struct {
		body    string
		headers []string
		want    events.Event
	}{
		"a known name": {`{"userId":"u","event":"job_failed","data":{"jobId":7,"attempt":0}}`, nil,
			events.Event{Name: "job_failed", Kind: events.Failed, JobID: "7", HasAttempt: true}},
		"a known name that is said twice": {`{"userId":"u","event":"job_completed","kind":"completed","jobId":"7","data":{"jobId":7,"attempt":3},"attempt":3}`, nil,
			events.Event{Name: "job_completed", Kind: events.Completed, JobID: "7", Attempt: 3, HasAttempt: true}},
		"an own name with a kind": {`{"userId":"u","event":"video","kind":"progress","jobId":"v","data":"40 %","staleAfter":5}`, nil,
			events.Event{Name: "video", Kind: events.Progress, JobID: "v", StaleAfter: 5 * time.Second}},
		"an own name with a kind, watched by a header": {`{"userId":"u","event":"video","kind":"progress","jobId":"v","data":[]}`, []string{"Stale-After: 5"},
			events.Event{Name: "video", Kind: events.Progress, JobID: "v", StaleAfter: 5 * time.Second}},
		"an own name alone": {`{"userId":"u","event":"video","data":{"jobId":"v","kind":"progress"},"kind":null,"jobId":null,"attempt":null}`, nil,
			events.Event{Name: "video"}},
	} {
		t.Run(name, func(t *testing.T) {
			b := new(backend)
			if w := (call{method: "POST", path: "/v1/events", body: tc.body, headers: tc.headers}).to(api(t, b, smallLimits, silent())); w.Code != 202 {
				t.Fatalf("%d %s", w.Code, w.Body)
			}
			got := b.published[0]
			got.UserID, got.Data = "", nil
			if !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got  %+v\nwant %+v", got, tc.want)
			}
		})
	}
}

func TestWarnings(t *testing.T) {
	const (
		odd     = `{"userId":"u","event":"job_progress","data":{"jobId":1,"progress":101}}`
		slip    = `{"userId":"u","event":"job_done","data":1}`
		meant   = `{"userId":"u","event":"job_done","kind":"completed","jobId":1,"data":1}`
		ofOdd   = `,"warnings":[{"code":"progress_out_of_range","field":"data.progress","detail":"progress is a number from 0 to 100"}]`
		ofSlip  = `,"warnings":[{"code":"event_name_unusual","field":"event","detail":"did you mean job_completed? A name of your own changes no job, unless it comes with a kind"}]`
		taken   = `{"id":"1763900000000-0","status":"sent","sockets":2`
		refused = `{"error":{"type":"/openapi.yaml#/x-problems/missing_field","title":"Field missing","status":400,"detail":"the field is required","code":"missing_field","field":"data"}}`
	)
	for _, tc := range []struct{ body, answer string }{
		{odd, taken + ofOdd}, {slip, taken + ofSlip}, {meant, taken}, {progress, taken},
	} {
		expect(t, call{method: "POST", path: "/v1/events", body: tc.body}.to(api(t, new(backend), smallLimits, silent())), 202, tc.answer+"}")
	}
	expect(t, call{method: "POST", path: "/v1/events", body: slip}.with("Prefer: wait=5").to(api(t, new(backend), smallLimits, silent())), 202,
		taken+`,"delivered":false`+ofSlip+"}")
	w := batch(odd + "," + `{"userId":"u","event":"job_done"}` + "," + slip + "," + progress).to(api(t, new(backend), smallLimits, silent()))
	expect(t, w, 200, `{"results":[`+taken+ofOdd+"},"+refused+","+strings.Replace(taken, "-0", "-1", 1)+ofSlip+"},"+strings.Replace(taken, "-0", "-2", 1)+"}]}")
}

func TestPreferWait(t *testing.T) {
	const message = `{"userId":"alice","event":"x","data":1}`
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
			w := call{method: "POST", path: "/v1/events", body: message, headers: []string{"Prefer: " + prefer}}.to(api(t, b, smallLimits, silent()))
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
		w := call{method: "POST", path: "/v1/events", body: completed, headers: []string{"Prefer: wait=1"}}.to(api(t, new(backend), smallLimits, silent()))
		expect(t, w, 202, `{"id":"1763900000000-0","status":"sent","sockets":2,"delivered":true}`)
	})

	for name, tc := range map[string]struct {
		body   string
		result delivery.Result
		answer string
	}{
		"progress is never confirmed": {progress, delivery.Result{ID: events.ID{Ms: 1}, Status: delivery.StatusCoalesced},
			`{"id":"1-0","status":"coalesced","sockets":0}`},
		"what is ignored is never confirmed": {`{"userId":"alice","event":"x","kind":"failed","jobId":1,"attempt":1,"data":0}`,
			delivery.Result{Status: delivery.StatusIgnored, Reason: delivery.ReasonAttemptSuperseded},
			`{"id":null,"status":"ignored","sockets":0,"reason":"attempt_superseded"}`},
	} {
		t.Run(name, func(t *testing.T) {
			b := &backend{publish: func(events.Event) (delivery.Result, error) { return tc.result, nil }}
			w := call{method: "POST", path: "/v1/events", body: tc.body, headers: []string{"Prefer: wait=5"}}.to(api(t, b, smallLimits, silent()))
			expect(t, w, 202, tc.answer)
			if got := w.Header()["Preference-Applied"]; got != nil {
				t.Errorf("applied %q", got)
			}
		})
	}
}

func TestBatch(t *testing.T) {
	b := &backend{}
	b.publish = func(event events.Event) (delivery.Result, error) {
		switch event.IdempotencyKey {
		case "reused":
			return delivery.Result{}, delivery.ErrKeyReused
		case "odd":
			return delivery.Result{}, context.DeadlineExceeded
		case "away":
			return delivery.Result{}, errors.Join(delivery.ErrStoreUnavailable, errors.New("secret detail"))
		}
		return delivery.Result{ID: events.ID{Ms: 5, Seq: uint64(len(b.published))}, Status: delivery.StatusStored}, nil
	}
	h := api(t, b, EventsConfig{}, silent())
	w := call{method: "POST", path: "/v1/events/batch", body: `{"events":[
		{"userId":"a","event":"x","data":1},
		{"userId":"a","event":"connect","data":1},
		{"userId":"a","event":"x","data":1,"idempotencyKey":"reused"},
		{"userId":"a","event":"x","data":1,"idempotencyKey":"odd"},
		7,
		{"userId":"c","event":"y","data":2,"idempotencyKey":"away"},
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
		`{"error":{"type":"/openapi.yaml#/x-problems/store_unavailable","title":"Store not available","status":503,`+
		`"detail":"the event store is not available, nothing was stored","code":"store_unavailable"}},`+
		`{"id":"5-5","status":"stored","sockets":0}]}`)

	expect(t, call{method: "POST", path: "/v1/events/batch", body: `{"events":[]}`}.to(h), 200, `{"results":[]}`)

	// Without a good item nothing asks the store, and so it cannot fail.
	b.batch = delivery.ErrStoreUnavailable
	if w := batch("7").to(h); w.Code != 200 || !strings.Contains(w.Body.String(), `"invalid_json"`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// A client that has left gets nothing, and that is no failure.
func TestClientThatLeft(t *testing.T) {
	b := &backend{publish: func(events.Event) (delivery.Result, error) { return delivery.Result{}, context.Canceled }}
	h := api(t, b, smallLimits, silent())
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
	h := api(t, new(backend), EventsConfig{MaxEventBytes: len(progress)}, silent())
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
	h := api(t, new(backend), smallLimits, silent())
	for _, media := range []string{"application/json", "Application/JSON; charset=UTF-8", "application/json;charset=\"utf-8\""} {
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
