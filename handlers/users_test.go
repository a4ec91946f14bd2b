package handlers

import (
	"encoding/json"
	"io"
	"strings"
	"testing"
	"time"

	"jobwire/internal/delivery"
	"jobwire/internal/events"
)

func TestDisconnect(t *testing.T) {
	for name, tc := range map[string]struct{ body, message string }{
		"no body":      {"", defaultReason},
		"no reason":    {"{}", defaultReason},
		"null":         {`{"reason":null}`, defaultReason},
		"empty":        {`{"reason":""}`, defaultReason},
		"a reason":     {`{"reason":"account \"closed\" ü"}`, `account "closed" ü`},
		"the longest":  {`{"reason":"` + strings.Repeat("x", 256) + `"}`, strings.Repeat("x", 256)},
		"half a smile": {`{"reason":"\ud83d"}`, "\ufffd"},
	} {
		t.Run(name, func(t *testing.T) {
			b := new(backend)
			expect(t, disconnect(tc.body).to(api(t, b, smallLimits, silent())), 200, `{"sockets":3}`)
			if want := "alice " + tc.message; b.disconnected != want {
				t.Errorf("got  %s\nwant %s", b.disconnected, want)
			}
		})
	}
}

// A body that was left out may still be announced as one in chunks, and then it has no media type.
func TestDisconnectWithChunks(t *testing.T) {
	for name, tc := range map[string]struct {
		body    string
		headers []string
		status  int
		message string
	}{
		"empty":                       {"", []string{"Content-Type: -"}, 200, defaultReason},
		"empty, and called JSON":      {"", nil, 200, defaultReason},
		"empty, and called text":      {"", []string{"Content-Type: text/plain"}, 200, defaultReason},
		"a reason":                    {`{"reason":"over"}`, nil, 200, "over"},
		"a reason without media type": {`{"reason":"over"}`, []string{"Content-Type: -"}, 415, ""},
		"one byte that is no JSON":    {`x`, nil, 400, ""},
	} {
		t.Run(name, func(t *testing.T) {
			b := new(backend)
			w := disconnect("").reading(io.MultiReader(strings.NewReader(tc.body))).with(tc.headers...).to(api(t, b, smallLimits, silent()))
			want := "alice " + tc.message
			if tc.status != 200 {
				want = ""
			}
			if w.Code != tc.status || b.disconnected != want {
				t.Errorf("%d %s\ngot  %s\nwant %s", w.Code, w.Body, b.disconnected, want)
			}
		})
	}
}

func TestJobs(t *testing.T) {
	at := time.UnixMilli(1763900000123)
	b := &backend{jobs: func(q delivery.JobsQuery) (delivery.JobsPage, error) {
		if q.UserID != "alice" {
			return delivery.JobsPage{}, nil
		}
		return delivery.JobsPage{Next: events.ID{Ms: 15, Seq: 2}, Jobs: []delivery.Job{
			{JobID: "a", State: delivery.JobRunning, Attempt: 2, Progress: json.RawMessage(`{"z":1,"big":12345678901234567890,"html":"<b>&"}`),
				StartedAt: at.UTC(), UpdatedAt: at.Add(time.Second).UTC()},
			{JobID: "b", State: delivery.JobCompleted, Progress: json.RawMessage(`"99 %"`), StartedAt: at.UTC(), UpdatedAt: at.UTC(),
				End: &delivery.JobEnd{Event: "video:done", Data: json.RawMessage(`null`), ID: "17-1"}},
			{JobID: "c", State: delivery.JobStalled, StartedAt: at.UTC(), UpdatedAt: at.UTC()},
		}}, nil
	}}
	h := api(t, b, smallLimits, silent())
	expect(t, get("/v1/users/alice/jobs").to(h), 200, `{"jobs":[`+
		`{"jobId":"a","state":"running","attempt":2,"progress":{"z":1,"big":12345678901234567890,"html":"<b>&"},`+
		`"startedAt":"2025-11-23T12:13:20.123Z","updatedAt":"2025-11-23T12:13:21.123Z"},`+
		`{"jobId":"b","state":"completed","attempt":0,"progress":"99 %","end":{"event":"video:done","data":null,"id":"17-1"},`+
		`"startedAt":"2025-11-23T12:13:20.123Z","updatedAt":"2025-11-23T12:13:20.123Z"},`+
		`{"jobId":"c","state":"stalled","attempt":0,"startedAt":"2025-11-23T12:13:20.123Z","updatedAt":"2025-11-23T12:13:20.123Z"}`+
		`],"next":"15-2"}`)
	expect(t, get("/v1/users/bob/jobs").to(h), 200, `{"jobs":[]}`)
}

func TestPagesOfJobs(t *testing.T) {
	for query, want := range map[string]delivery.JobsQuery{
		"":                        {UserID: "alice", Limit: 50},
		"?limit=&before=":         {UserID: "alice", Limit: 50},
		"?limit=1":                {UserID: "alice", Limit: 1},
		"?limit=200&before=15-2":  {UserID: "alice", Limit: 200, Before: events.ID{Ms: 15, Seq: 2}},
		"?before=0-1&unheard-of=": {UserID: "alice", Limit: 50, Before: events.ID{Seq: 1}},
	} {
		b := new(backend)
		expect(t, get("/v1/users/alice/jobs"+query).to(api(t, b, smallLimits, silent())), 200, `{"jobs":[]}`)
		if b.query != want {
			t.Errorf("%s: asked for %+v", query, b.query)
		}
	}
}

// The interfaces that handlers ask for are those that delivery offers.
var (
	_ Publisher   = (*delivery.Service)(nil)
	_ UserService = (*delivery.Service)(nil)
	_ JobTeller   = (*delivery.Service)(nil)
)

// Whatever a user is called, its id survives the path.
func TestUserIDsInPaths(t *testing.T) {
	for path, want := range map[string]string{
		"alice":              "alice",
		"a%2Fb":              "a/b",
		"a%2fb":              "a/b",
		"%2F":                "/",
		"a%252Fb":            "a%2Fb",
		"a%252Fb%2Fc":        "a%2Fb/c",
		"100%25":             "100%",
		"a+b":                "a+b",
		"a+b%2Fc":            "a+b/c",
		"a%2Bb":              "a+b",
		"a%20b":              "a b",
		"a%20b%2F":           "a b/",
		"%C3%BC":             "ü",
		"%C3%BC%2F":          "ü/",
		"ü":                  "ü",
		"%F0%9F%98%80":       "😀",
		"a:b":                "a:b",
		"a@b.example":        "a@b.example",
		"a;b=c":              "a;b=c",
		"*":                  "*",
		":userId":            ":userId",
		"%3Fx%23y":           "?x#y",
		"counter":            "counter",
		"coun":               "coun",
		"c":                  "c",
		"%63ount":            "count",
		"query":              "query",
		"%2E%2E":             "..",
		"..%2F..":            "../..",
		"jobs":               "jobs",
		"disconnect":         "disconnect",
		"%22%5C%3C%3E%7B%7D": `"\<>{}`,
	} {
		t.Run(path, func(t *testing.T) {
			b := new(backend)
			h := api(t, b, smallLimits, silent())
			if w := get("/v1/presence/" + path).to(h); w.Code != 200 {
				t.Errorf("presence: %d %s", w.Code, w.Body)
			}
			if w := get("/v1/users/" + path + "/jobs").to(h); w.Code != 200 {
				t.Errorf("jobs: %d %s", w.Code, w.Body)
			}
			if len(b.asked) != 2 || b.asked[0] != want || b.asked[1] != want {
				t.Errorf("asked for %q, want %q twice", b.asked, want)
			}
			if w := disconnect("").on("/v1/users/" + path + "/disconnect").to(h); w.Code != 200 {
				t.Errorf("disconnect: %d %s", w.Code, w.Body)
			}
			if got := b.disconnected; !strings.HasPrefix(got, want+" ") {
				t.Errorf("disconnected %q", got)
			}
		})
	}
}
