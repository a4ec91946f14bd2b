package middleware

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"
)

const forbiddenBody = `{"code":4,"message":"Forbidden"}`

func originServer(t *testing.T, list ...string) (http.Handler, *Origins) {
	t.Helper()
	origins, err := NewOrigins(list, trusting("10.0.0.0/8"))
	if err != nil {
		t.Fatal(err)
	}
	engine := gin.New()
	engine.Any("/socket.io/", origins.Sockets(), func(c *gin.Context) { c.String(200, "passed") })
	engine.POST("/demo/token", origins.Guard(refuseForTest), func(c *gin.Context) { c.String(200, "passed") })
	return engine, origins
}

func TestOrigins(t *testing.T) {
	app := "https://app.example"
	for name, tc := range map[string]struct {
		list    []string
		headers []string
		pass    bool
		allow   string // Access-Control-Allow-Origin
	}{
		"no origin":                                {nil, nil, true, ""},
		"same origin":                              {nil, []string{"Host: srv.example", "Origin: https://srv.example"}, true, ""},
		"same origin over plain HTTP":              {nil, []string{"Host: srv.example:3000", "Origin: http://srv.example:3000"}, true, ""},
		"same origin, default port spelled out":    {nil, []string{"Host: srv.example:443", "Origin: https://srv.example"}, true, ""},
		"same origin in other case":                {nil, []string{"Host: Srv.Example", "Origin: https://srv.example"}, true, ""},
		"other port":                               {nil, []string{"Host: srv.example:3000", "Origin: http://srv.example:5173"}, false, ""},
		"other host":                               {nil, []string{"Host: srv.example", "Origin: https://evil.example"}, false, ""},
		"a host that only begins like ours":        {nil, []string{"Host: srv.example", "Origin: https://srv.example.evil.example"}, false, ""},
		"a subdomain":                              {nil, []string{"Host: srv.example", "Origin: https://sub.srv.example"}, false, ""},
		"another scheme that a proxy knows":        {nil, []string{"Peer: 10.0.0.1:1", "Host: srv.example", "X-Forwarded-Proto: https", "Origin: http://srv.example"}, false, ""},
		"the scheme that a proxy knows":            {nil, []string{"Peer: 10.0.0.1:1", "Host: srv.example", "X-Forwarded-Proto: https", "Origin: https://srv.example"}, true, ""},
		"the host that a proxy knows":              {nil, []string{"Peer: 10.0.0.1:1", "Host: inner:3000", "X-Forwarded-Host: srv.example", "Origin: https://srv.example"}, true, ""},
		"a forwarded host from a stranger":         {nil, []string{"Host: srv.example", "X-Forwarded-Host: evil.example", "Origin: https://evil.example"}, false, ""},
		"listed":                                   {[]string{app}, []string{"Origin: " + app}, true, app},
		"listed in other case and with a port":     {[]string{"HTTPS://App.Example:443"}, []string{"Origin: " + app}, true, app},
		"not listed":                               {[]string{app}, []string{"Origin: https://other.example"}, false, ""},
		"listed, other scheme":                     {[]string{app}, []string{"Origin: http://app.example"}, false, ""},
		"listed, other port":                       {[]string{app}, []string{"Origin: https://app.example:8443"}, false, ""},
		"one of two":                               {[]string{app, "http://localhost:5173"}, []string{"Origin: http://localhost:5173"}, true, "http://localhost:5173"},
		"same origin beside a list":                {[]string{app}, []string{"Host: srv.example", "Origin: https://srv.example"}, true, ""},
		"all":                                      {[]string{"*"}, []string{"Origin: https://any.example"}, true, "*"},
		"all, even without an origin to speak of":  {[]string{"*"}, []string{"Origin: null"}, true, "*"},
		"null is not our own":                      {nil, []string{"Origin: null"}, false, ""},
		"an app's own scheme":                      {[]string{"capacitor://localhost"}, []string{"Origin: capacitor://localhost"}, true, "capacitor://localhost"},
		"empty":                                    {nil, []string{"Origin:"}, false, ""},
		"garbage":                                  {[]string{app}, []string{"Origin: https://a b"}, false, ""},
		"null beside a list":                       {[]string{app}, []string{"Origin: null"}, false, ""},
		"a file beside a list":                     {[]string{app}, []string{"Origin: file://"}, false, ""},
		"all, a file":                              {[]string{"*"}, []string{"Origin: file://"}, true, "*"},
		"all, a file by its path":                  {[]string{"*"}, []string{"Origin: file:///android_asset/www"}, true, "*"},
		"all, an empty origin":                     {[]string{"*"}, []string{"Origin:"}, true, "*"},
		"all, garbage, which is not echoed":        {[]string{"*"}, []string{"Origin: https://a b"}, true, "*"},
		"all, and still our own":                   {[]string{"*"}, []string{"Host: srv.example", "Origin: https://srv.example"}, true, ""},
		"two":                                      {[]string{"*"}, []string{"Origin: " + app, "Origin: https://other.example"}, false, ""},
		"with a path, which no browser sends":      {[]string{app}, []string{"Origin: " + app + "/"}, false, ""},
		"with a user, which no browser sends":      {[]string{app}, []string{"Origin: https://srv.example@app.example"}, false, ""},
		"a list in one header, as no browser does": {[]string{app}, []string{"Origin: " + app + ", https://other.example"}, false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			h, origins := originServer(t, tc.list...)
			for _, kind := range []string{"GET", "POST", "OPTIONS", "HEAD", "PUT", "DELETE", "websocket", "preflight"} {
				method, headers := kind, slices.Clone(tc.headers)
				switch kind {
				case "websocket":
					method, headers = "GET", append(headers, "Connection: Upgrade", "Upgrade: websocket")
				case "preflight":
					method, headers = "OPTIONS", append(headers,
						"Access-Control-Request-Method: POST", "Access-Control-Request-Headers: content-type, x-custom")
				}
				r := request(method, "/socket.io/?EIO=4&transport=polling", headers...)
				if peer := r.Header.Get("Peer"); peer != "" {
					r.RemoteAddr = peer
				}
				w := do(h, r)
				header := w.Header()

				if !tc.pass {
					if w.Code != 403 || (method != "HEAD" && w.Body.String() != forbiddenBody) {
						t.Errorf("%s: %d %q", kind, w.Code, w.Body)
					}
					for name := range header {
						if strings.HasPrefix(name, "Access-Control-") {
							t.Errorf("%s: a refusal announces %s", kind, name)
						}
					}
				} else if w.Code != 200 && (kind != "preflight" || tc.allow == "" || w.Code != 204) {
					t.Errorf("%s: %d %q", kind, w.Code, w.Body)
				}
				if got := header.Get("Access-Control-Allow-Origin"); got != tc.allow {
					t.Errorf("%s: allow-origin %q, want %q", kind, got, tc.allow)
				}
				wantCredentials := ""
				if tc.allow != "" && tc.allow != "*" {
					wantCredentials = "true"
				}
				if got := header.Get("Access-Control-Allow-Credentials"); got != wantCredentials {
					t.Errorf("%s: allow-credentials %q, want %q", kind, got, wantCredentials)
				}
				if !slices.Contains(header.Values("Vary"), "Origin") {
					t.Errorf("%s: Vary %q", kind, header.Values("Vary"))
				}
				if kind == "preflight" && tc.allow != "" {
					if header.Get("Access-Control-Allow-Methods") != "GET, POST" ||
						header.Get("Access-Control-Allow-Headers") != "content-type, x-custom" ||
						!slices.Contains(header.Values("Vary"), "Access-Control-Request-Headers") {
						t.Errorf("preflight: %v", header)
					}
				}
			}
			if want := map[bool]uint64{true: 0, false: 8}[tc.pass]; origins.Refused() != want {
				t.Errorf("counted %d refusals, want %d", origins.Refused(), want)
			}
		})
	}
}

func TestGuardedByOrigin(t *testing.T) {
	h, origins := originServer(t, "https://app.example")
	for origin, want := range map[string]string{
		"http://srv.example":   "passed",
		"https://app.example":  "passed",
		"https://evil.example": CodeOriginForbidden,
	} {
		w := do(h, request("POST", "/demo/token", "Host: srv.example", "Origin: "+origin))
		if w.Body.String() != want {
			t.Errorf("%s: %d %q, want %q", origin, w.Code, w.Body, want)
		}
		if got := w.Header().Get("Access-Control-Allow-Origin"); got != "" {
			t.Errorf("%s: announced %q", origin, got)
		}
	}
	if got := origins.Refused(); got != 1 {
		t.Errorf("counted %d refusals", got)
	}
}

func TestOriginListIsChecked(t *testing.T) {
	bad := []string{"app.example", "https://app.example/", "https://app.example/x", "https://*.example", "https://", "", "https://u@h", "https://h?x", "https://h#", "null", "file://"}
	_, err := NewOrigins(append(slices.Clone(bad), "https://good.example", "*"), NewProxies(nil))
	if err == nil {
		t.Fatal("accepted")
	}
	if lines := strings.Split(err.Error(), "\n"); len(lines) != len(bad) {
		t.Errorf("%d of %d bad entries are named:\n%v", len(lines), len(bad), err)
	}
}
