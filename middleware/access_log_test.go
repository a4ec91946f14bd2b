package middleware

import (
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"
)

func TestAccessLog(t *testing.T) {
	serve := func(log *slog.Logger) http.Handler {
		keys := keyMap{"the-key-itself": "worker-a"}
		engine := gin.New()
		engine.Use(AssignRequestID(), AccessLog(log, slog.LevelDebug, keys), Recovery(log, refuseForTest))
		engine.GET("/v1/presence/:userId", func(c *gin.Context) { c.String(200, "12345") })
		engine.GET("/bad", func(c *gin.Context) { c.Status(400) })
		engine.GET("/denied", func(c *gin.Context) { c.Status(401) })
		engine.GET("/away", func(c *gin.Context) { _ = c.Error(errors.New("disk full")); c.Status(503) })
		engine.GET("/partly", func(c *gin.Context) { _ = c.Error(errors.New("one of many")); c.Status(200) })
		engine.GET("/broken", func(c *gin.Context) { panic("oops") })
		engine.GET("/keyed", APIKey(keys, refuseForTest), func(c *gin.Context) { c.Status(204) })
		engine.GET("/aborted", func(*gin.Context) { panic(http.ErrAbortHandler) })
		return engine
	}
	for name, tc := range map[string]struct {
		path, level string // level "" means that nothing is logged at info
		want        map[string]any
	}{
		"success is quiet":          {"/v1/presence/alice", "", nil},
		"a stranger is quiet":       {"/denied", "", nil},
		"no route is quiet":         {"/alice/secret", "", nil},
		"a worker's fault":          {"/bad?key", "INFO", map[string]any{"route": "/bad", "status": 400.0, "key": "worker-a"}},
		"a stranger's is quiet":     {"/bad", "", nil},
		"not available":             {"/away", "WARN", map[string]any{"status": 503.0, "error": "disk full"}},
		"trouble within a success":  {"/partly", "WARN", map[string]any{"status": 200.0, "error": "one of many"}},
		"a panic":                   {"/broken", "ERROR", map[string]any{"status": 500.0, "route": "/broken"}},
		"a panic that is no fault ": {"/aborted", "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			log, lines := logTo(t, slog.LevelInfo)
			func() {
				defer func() { _ = recover() }() // net/http does so for /aborted
				headers := []string{"X-Request-Id: r1"}
				if strings.HasSuffix(tc.path, "?key") {
					headers = append(headers, "X-Api-Key: the-key-itself")
				}
				do(serve(log), request("GET", tc.path, headers...))
			}()
			var got map[string]any
			for _, line := range lines() {
				if line["msg"] == "request" {
					got = line
				}
			}
			if tc.level == "" {
				if got != nil {
					t.Fatalf("logged %v", got)
				}
				return
			}
			if got["level"] != tc.level || got["requestId"] != "r1" || got["method"] != "GET" {
				t.Errorf("line %v", got)
			}
			for key, want := range tc.want {
				if got[key] != want {
					t.Errorf("%s is %v, want %v", key, got[key], want)
				}
			}
		})
	}

	t.Run("facts and no users", func(t *testing.T) {
		log, lines := logTo(t, slog.LevelDebug)
		h := serve(log)
		do(h, request("GET", "/v1/presence/alice?cursor=bob"))
		do(h, request("GET", "/keyed", "X-Api-Key: the-key-itself"))
		do(h, request("GET", "/carol"))
		got := lines()
		if len(got) != 3 {
			t.Fatalf("%d lines", len(got))
		}
		if got[0]["route"] != "/v1/presence/:userId" || got[0]["bytes"] != 5.0 || got[0]["duration"].(float64) <= 0 {
			t.Errorf("line %v", got[0])
		}
		if got[1]["key"] != "worker-a" || got[1]["status"] != 204.0 {
			t.Errorf("line %v", got[1])
		}
		if got[2]["route"] != "unmatched" || got[2]["status"] != 404.0 {
			t.Errorf("line %v", got[2])
		}
		for _, line := range got {
			for key, value := range line {
				text, _ := value.(string)
				for _, secret := range []string{"alice", "bob", "carol", "the-key-itself"} {
					if strings.Contains(text, secret) {
						t.Errorf("%s tells %q", key, text)
					}
				}
			}
		}
	})

	t.Run("aborted", func(t *testing.T) {
		log, lines := logTo(t, slog.LevelDebug)
		func() {
			defer func() {
				if r := recover(); r != http.ErrAbortHandler { //nolint:errorlint // as net/http does
					t.Errorf("recovered %v", r)
				}
			}()
			do(serve(log), request("GET", "/aborted"))
		}()
		if got := lines(); len(got) != 1 || got[0]["aborted"] != true {
			t.Errorf("lines %v", got)
		}
	})
}
