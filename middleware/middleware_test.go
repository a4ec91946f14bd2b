package middleware

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"

	"jobwire/internal/auth"
	"jobwire/internal/events"
	"jobwire/internal/realtime"
)

func TestMain(m *testing.M) {
	gin.SetMode(gin.ReleaseMode)
	os.Exit(m.Run())
}

// refuseForTest stands for the catalogue: the code becomes the body.
func refuseForTest(c *gin.Context, code string) {
	status := map[string]int{
		CodeAPIKeyMissing: 401, CodeAPIKeyInvalid: 401, CodeOriginForbidden: 403, CodeRateLimited: 429, CodeInternal: 500,
	}[code]
	c.Abort()
	c.String(status, code)
}

func do(h http.Handler, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// request builds a request from a method, a path and "Name: value" headers.
func request(method, path string, headers ...string) *http.Request {
	r := httptest.NewRequest(method, path, nil)
	for _, header := range headers {
		name, value, _ := strings.Cut(header, ":")
		value = strings.TrimSpace(value)
		if name == "Host" {
			r.Host = value
		} else {
			r.Header.Add(name, value)
		}
	}
	return r
}

// logTo is a logger at level that writes JSON lines, and a function that
// reads the lines written so far.
func logTo(t *testing.T, level slog.Level) (*slog.Logger, func() []map[string]any) {
	t.Helper()
	var buf bytes.Buffer
	log := slog.New(slog.NewJSONHandler(&buf, &slog.HandlerOptions{Level: level}))
	return log, func() []map[string]any {
		var lines []map[string]any
		for line := range strings.Lines(buf.String()) {
			var fields map[string]any
			if err := json.Unmarshal([]byte(line), &fields); err != nil {
				t.Fatalf("log line %q: %v", line, err)
			}
			lines = append(lines, fields)
		}
		return lines
	}
}

type keyMap map[string]string

func (k keyMap) Lookup(key string) (string, bool) {
	name, ok := k[key]
	return name, ok
}

func TestAPIKey(t *testing.T) {
	keys := keyMap{"secret-one": "one", "secret-two": "two"}
	engine := gin.New()
	engine.Use(APIKey(keys, refuseForTest))
	engine.GET("/", func(c *gin.Context) { c.String(200, keys[apiKey(c.Request)]) })

	for name, tc := range map[string]struct {
		headers   []string
		status    int
		body      string
		challenge string
	}{
		"bearer":                         {[]string{"Authorization: Bearer secret-one"}, 200, "one", ""},
		"bearer in any case":             {[]string{"Authorization: bEARER   secret-two "}, 200, "two", ""},
		"x-api-key":                      {[]string{"X-API-Key: secret-two"}, 200, "two", ""},
		"bearer wins":                    {[]string{"Authorization: Bearer secret-one", "X-API-Key: secret-two"}, 200, "one", ""},
		"bearer wins though wrong":       {[]string{"Authorization: Bearer wrong", "X-API-Key: secret-two"}, 401, CodeAPIKeyInvalid, `Bearer realm="jobwire", error="invalid_token"`},
		"a proxy's basic beside a key":   {[]string{"Authorization: Basic dTpw", "X-API-Key: secret-one"}, 200, "one", ""},
		"nothing":                        {nil, 401, CodeAPIKeyMissing, `Bearer realm="jobwire"`},
		"basic only":                     {[]string{"Authorization: Basic dTpw"}, 401, CodeAPIKeyMissing, `Bearer realm="jobwire"`},
		"bearer without a token":         {[]string{"Authorization: Bearer "}, 401, CodeAPIKeyMissing, `Bearer realm="jobwire"`},
		"unknown":                        {[]string{"X-API-Key: secret-three"}, 401, CodeAPIKeyInvalid, `Bearer realm="jobwire", error="invalid_token"`},
		"key without scheme is no token": {[]string{"Authorization: secret-one"}, 401, CodeAPIKeyMissing, `Bearer realm="jobwire"`},
	} {
		t.Run(name, func(t *testing.T) {
			w := do(engine, request("GET", "/", tc.headers...))
			if w.Code != tc.status || w.Body.String() != tc.body {
				t.Errorf("got %d %q, want %d %q", w.Code, w.Body, tc.status, tc.body)
			}
			if got := w.Header().Get("WWW-Authenticate"); got != tc.challenge {
				t.Errorf("WWW-Authenticate %q, want %q", got, tc.challenge)
			}
		})
	}
}

func TestRequestID(t *testing.T) {
	engine := gin.New()
	engine.Use(AssignRequestID())
	engine.GET("/", func(c *gin.Context) { c.String(200, RequestID(c)) })

	for name, tc := range map[string]struct {
		sent string
		kept bool
	}{
		"kept":           {"job-42.retry_1", true},
		"longest kept":   {strings.Repeat("a", 64), true},
		"too long":       {strings.Repeat("a", 65), false},
		"none":           {"", false},
		"space":          {"a b", false},
		"quote":          {`a"b`, false},
		"not ASCII":      {"ä", false},
		"pretended JSON": {`{"level":"ERROR"}`, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := do(engine, request("GET", "/", "X-Request-ID: "+tc.sent))
			got := w.Header().Get("X-Request-Id")
			if got != w.Body.String() {
				t.Errorf("header %q, handler saw %q", got, w.Body)
			}
			if kept := got == tc.sent; kept != tc.kept {
				t.Errorf("sent %q, got %q", tc.sent, got)
			}
			if !saneRequestID(got) {
				t.Errorf("id %q is not one we would accept", got)
			}
		})
	}

	a := do(engine, request("GET", "/")).Body.String()
	b := do(engine, request("GET", "/")).Body.String()
	if a == b || len(a) != 24 {
		t.Errorf("made ids %q and %q", a, b)
	}
}

func TestRefusalsOfEngineIO(t *testing.T) {
	engine := gin.New()
	engine.Any("/", func(c *gin.Context) { refuseEngine(c, 403, "Forbidden") })
	w := do(engine, request("GET", "/"))
	if got := w.Body.String(); got != `{"code":4,"message":"Forbidden"}` || w.Header().Get("Content-Type") != "application/json" {
		t.Errorf("body %q, headers %v", got, w.Header())
	}
	if w := do(engine, request("HEAD", "/")); w.Body.Len() != 0 || w.Code != 403 {
		t.Errorf("HEAD: %d with %d bytes", w.Code, w.Body.Len())
	}
}

// tokens lets everybody in, under the name that the token is.
type tokens struct{}

func (tokens) Verify(_ context.Context, token string) (auth.Identity, error) {
	return auth.Identity{UserID: token}, nil
}

func TestTokenOfAHandshake(t *testing.T) {
	for payload, want := range map[string]string{
		`{"token":"t"}`: "t", `{"token":"Bearer t"}`: "t", `{"token":null}`: "header", `{}`: "header", ``: "header",
		`{"TOKEN":"t"}`: "header", `{"Token":"t"}`: "header", `{"token":"t","TOKEN":"u"}`: "t",
		`{"token":7}`: "auth.token is not a string", `{"token":["t"]}`: "auth.token is not a string",
		`["t"]`: "the handshake's auth is not an object", `"t"`: "the handshake's auth is not an object",
	} {
		id, err := SocketAuth(tokens{})(realtime.Handshake{Auth: json.RawMessage(payload), Authorization: "Bearer header"})
		got := id.UserID
		var refusal *events.Error
		if errors.As(err, &refusal) {
			if got = refusal.Detail; refusal.Code != auth.CodeTokenMalformed {
				t.Errorf("%s: %v", payload, err)
			}
		}
		if got != want {
			t.Errorf("%s: %q, want %q", payload, got, want)
		}
	}
}
