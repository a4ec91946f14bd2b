package handlers

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"jobwire/internal/presence"
	"jobwire/middleware"
)

func TestPresenceOfOne(t *testing.T) {
	left := time.Date(2026, 1, 2, 4, 4, 5, 678901234, time.FixedZone("", 3600))
	b := &backend{count: 42, status: func(id string) presence.Status {
		if id == "gone" {
			return presence.Status{UserID: id, LastSeen: left}
		}
		return presence.Status{UserID: id, Online: id != "never", Sockets: len(id) % 5}
	}}
	h := api(t, b, smallLimits, silent())
	expect(t, get("/v1/presence/ann").to(h), 200, `{"userId":"ann","online":true,"sockets":3}`)
	expect(t, get("/v1/presence/gone").to(h), 200, `{"userId":"gone","online":false,"sockets":0,"lastSeen":"2026-01-02T03:04:05.678Z"}`)
	expect(t, get("/v1/presence/never").to(h), 200, `{"userId":"never","online":false,"sockets":0}`)
	expect(t, get("/v1/presence/count").to(h), 200, `{"count":42}`)
	expect(t, query(`{"userIds":["ann", 7, "count", "a/b", "-", -12, "<ü>"]}`).to(h), 200, `{"users":[`+
		`{"userId":"ann","online":true,"sockets":3},`+
		`{"userId":"7","online":true,"sockets":1},`+
		`{"userId":"count","online":true,"sockets":0},`+
		`{"userId":"a/b","online":true,"sockets":3},`+
		`{"userId":"-","online":true,"sockets":1},`+
		`{"userId":"-12","online":true,"sockets":3},`+
		`{"userId":"<ü>","online":true,"sockets":4}]}`)
	expect(t, query(`{"userIds":[]}`).to(h), 200, `{"users":[]}`)
}

func TestPresencePages(t *testing.T) {
	for path, tc := range map[string]struct {
		cursor string
		limit  int
	}{
		"/v1/presence":                      {"", 100},
		"/v1/presence?limit=1":              {"", 1},
		"/v1/presence?limit=1000":           {"", 1000},
		"/v1/presence?limit=&cursor=":       {"", 100},
		"/v1/presence?cursor=a%2Fb+c%26&x=": {"a/b c&", 100},
	} {
		b := &backend{list: func(string, int) ([]presence.Status, string) {
			return []presence.Status{{UserID: "a&b", Online: true, Sockets: 1}}, "a&b"
		}}
		w := get(path).to(api(t, b, smallLimits, silent()))
		expect(t, w, 200, `{"users":[{"userId":"a&b","online":true,"sockets":1}],"next":"a&b"}`)
		if b.cursor != tc.cursor || b.limit != tc.limit {
			t.Errorf("%s: asked for %q, %d", path, b.cursor, b.limit)
		}
	}
	expect(t, get("/v1/presence").to(api(t, new(backend), smallLimits, silent())), 200, `{"users":[]}`)
}

// A presence that cannot be asked is an error of the server's, not an empty answer.
func TestPresencePassesErrorsOn(t *testing.T) {
	away := errors.New("the store is away")
	h := api(t, &backend{away: away, disconnect: away}, smallLimits, silent())
	for name, c := range map[string]call{
		"list": get("/v1/presence"), "count": get("/v1/presence/count"), "one": get("/v1/presence/ann"),
		"query": query(`{"userIds":["ann"]}`), "disconnect": disconnect(""),
	} {
		if w := c.to(h); w.Code != http.StatusInternalServerError || problemIn(t, w).Code != middleware.CodeInternal {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
}

// The interface that handlers ask for is the one that presence offers.
var _ PresenceReader = (*presence.Service)(nil)
