package webdemo

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"path"
	"strings"
	"testing"
	"time"
)

var expires = time.Date(2031, 2, 3, 4, 5, 6, 7, time.UTC)

func mint(userID, tenant string) (string, time.Time, error) {
	return "token of " + userID + "/" + tenant, expires, nil
}

func serve(t *testing.T, cfg Config, r *http.Request) *http.Response {
	t.Helper()
	if cfg.Mint == nil {
		cfg.Mint = mint
	}
	h, err := Handler(cfg)
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func decode(t *testing.T, res *http.Response) map[string]any {
	t.Helper()
	body := map[string]any{}
	if err := json.NewDecoder(res.Body).Decode(&body); err != nil {
		t.Fatalf("answer is not JSON: %v", err)
	}
	return body
}

func TestHandlerRefusesAConfigThatCannotBeMeant(t *testing.T) {
	if _, err := Handler(Config{}); err == nil {
		t.Error("a demo that cannot make tokens was accepted")
	}
	if _, err := Handler(Config{Mint: mint, APIKey: "k"}); err == nil {
		t.Error("a demo that gives its key to everybody was accepted")
	}
}

func TestPageIsServedWithItsTypes(t *testing.T) {
	for name, want := range map[string]string{
		"":          "text/html; charset=utf-8",
		"app.js":    "text/javascript; charset=utf-8",
		"style.css": "text/css; charset=utf-8",
		"icon.svg":  "image/svg+xml",
	} {
		res := serve(t, Config{}, httptest.NewRequest("GET", Path+name, nil))
		if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != want {
			t.Errorf("%q: got %d %q, want 200 %q", name, res.StatusCode, res.Header.Get("Content-Type"), want)
		}
	}
}

func TestEveryAnswerCarriesTheHeadersOfAGuardedPage(t *testing.T) {
	for _, path := range []string{"", "app.js", "config.json", "nothing.js"} {
		header := serve(t, Config{}, httptest.NewRequest("GET", Path+path, nil)).Header
		if got := header.Get("X-Content-Type-Options"); got != "nosniff" {
			t.Errorf("%q: X-Content-Type-Options is %q", path, got)
		}
		csp := header.Get("Content-Security-Policy")
		for _, part := range []string{"default-src 'none'", "frame-ancestors 'none'", "require-trusted-types-for 'script'"} {
			if !strings.Contains(csp, part) {
				t.Errorf("%q: the policy lacks %q: %s", path, part, csp)
			}
		}
		if strings.Contains(csp, "unsafe") {
			t.Errorf("%q: the policy allows something unsafe: %s", path, csp)
		}
	}
}

func TestPageIsRevalidated(t *testing.T) {
	first := serve(t, Config{}, httptest.NewRequest("GET", Path, nil))
	if got := first.Header.Get("Cache-Control"); got != "no-cache" {
		t.Errorf("Cache-Control is %q", got)
	}
	again := httptest.NewRequest("GET", Path, nil)
	again.Header.Set("If-None-Match", first.Header.Get("ETag"))
	if res := serve(t, Config{}, again); res.StatusCode != http.StatusNotModified {
		t.Errorf("an unchanged page answered %d", res.StatusCode)
	}
	again.Header.Set("If-None-Match", `"another"`)
	if res := serve(t, Config{}, again); res.StatusCode != http.StatusOK {
		t.Errorf("a changed page answered %d", res.StatusCode)
	}
}

func TestOnlyFilesOfThePageAreServed(t *testing.T) {
	for _, path := range []string{"lib/README.md", "lib/", "lib", "../handler.go", "handler.go", "%2e%2e/doc.go"} {
		res := serve(t, Config{}, httptest.NewRequest("GET", "/demo/"+path, nil))
		if res.StatusCode == http.StatusOK {
			t.Errorf("%q was served", path)
		}
	}
}

func TestOtherKindsOfFilesAreNotServed(t *testing.T) {
	for _, name := range []string{"README.md", "socket.io.min.js.gz", "LICENSE", ".js~"} {
		if contentTypes[path.Ext(name)] != "" {
			t.Errorf("%s would be served", name)
		}
	}
}

func TestAssetsHaveDistinctTags(t *testing.T) {
	names := map[string]string{}
	for _, name := range []string{"", "app.js", "style.css", "icon.svg"} {
		tag := serve(t, Config{}, httptest.NewRequest("GET", Path+name, nil)).Header.Get("ETag")
		if len(tag) != 18 || names[tag] != "" {
			t.Errorf("%q has the tag %s", name, tag)
		}
		names[tag] = "taken"
	}
}

// The page's policy runs no inline script, no inline style and nothing from
// elsewhere: what the sources ask for must be what they get.
func TestPageObeysItsOwnPolicy(t *testing.T) {
	index, err := fs.ReadFile(page, "page/index.html")
	if err != nil {
		t.Fatal(err)
	}
	for _, forbidden := range []string{"<style", "style=", "onclick=", "javascript:", "https://", "http://", "//cdn"} {
		if strings.Contains(string(index), forbidden) {
			t.Errorf("index.html contains %q", forbidden)
		}
	}
	err = fs.WalkDir(page, "page", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(name, ".js") || strings.HasPrefix(name, "page/lib/") {
			return err
		}
		source, err := fs.ReadFile(page, name)
		for _, sink := range []string{"innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "localStorage"} {
			if strings.Contains(string(source), sink) {
				t.Errorf("%s uses %s", name, sink)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestConfigGivesTheKeyOnlyWhenThereIsOne(t *testing.T) {
	res := serve(t, Config{APIKey: "k", LoopbackOnly: true}, httptest.NewRequest("GET", "http://localhost:3000"+Path+"config.json", nil))
	if body := decode(t, res); body["api"] != "/v1" || body["apiKey"] != "k" {
		t.Errorf("got %v", body)
	}
	if got := res.Header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("the key may be cached: %q", got)
	}
	body := decode(t, serve(t, Config{}, httptest.NewRequest("GET", Path+"config.json", nil)))
	if _, has := body["apiKey"]; has {
		t.Errorf("got %v", body)
	}
}

func ask(body string) *http.Request {
	r := httptest.NewRequest("POST", Path+"token", strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	return r
}

func TestTokenIsMadeForTheNamedUser(t *testing.T) {
	res := serve(t, Config{}, ask(`{"userId":"ada","tenant":"acme"}`))
	body := decode(t, res)
	if res.StatusCode != http.StatusOK || body["token"] != "token of ada/acme" || body["expiresAt"] != "2031-02-03T04:05:06Z" {
		t.Fatalf("got %d %v", res.StatusCode, body)
	}
	if got := res.Header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("a token may be cached: %q", got)
	}
}

func TestRefusals(t *testing.T) {
	with := func(r *http.Request, header, value string) *http.Request {
		r.Header.Set(header, value)
		return r
	}
	get := func(path string) *http.Request { return httptest.NewRequest("GET", Path+path, nil) }
	good := func() *http.Request { return ask(`{"userId":"ada"}`) }
	host := func(r *http.Request, host string) *http.Request { r.Host = host; return r }
	failing := func(string, string) (string, time.Time, error) { return "", time.Time{}, errors.New("secret reason") }

	for name, c := range map[string]struct {
		cfg    Config
		r      *http.Request
		status int
		code   string
	}{
		"another site's token":           {r: with(good(), "Sec-Fetch-Site", "cross-site"), status: 403, code: "origin_forbidden"},
		"another port of the same site":  {r: with(good(), "Sec-Fetch-Site", "same-site"), status: 403, code: "origin_forbidden"},
		"another origin, older browser":  {r: with(good(), "Origin", "http://evil.example"), status: 403, code: "origin_forbidden"},
		"an opaque origin":               {r: with(good(), "Origin", "null"), status: 403, code: "origin_forbidden"},
		"another site's key":             {cfg: Config{APIKey: "k", LoopbackOnly: true}, r: host(with(get("config.json"), "Sec-Fetch-Site", "cross-site"), "localhost"), status: 403, code: "origin_forbidden"},
		"a rebound name":                 {cfg: Config{LoopbackOnly: true}, r: host(good(), "evil.example:3000"), status: 421, code: "host_not_allowed"},
		"a rebound name asks for config": {cfg: Config{LoopbackOnly: true}, r: host(get("config.json"), "127.0.0.1.evil.example"), status: 421, code: "host_not_allowed"},
		"a form":                         {r: with(good(), "Content-Type", "application/x-www-form-urlencoded"), status: 415, code: "unsupported_media_type"},
		"text":                           {r: with(good(), "Content-Type", "text/plain"), status: 415, code: "unsupported_media_type"},
		"not JSON":                       {r: ask(`userId=ada`), status: 400, code: "invalid_json"},
		"no user":                        {r: ask(`{}`), status: 400, code: "invalid_user_id"},
		"a control character":            {r: ask(`{"userId":"a\u0000b"}`), status: 400, code: "invalid_user_id"},
		"a bad tenant":                   {r: ask(`{"userId":"ada","tenant":"\n"}`), status: 400, code: "invalid_tenant"},
		"a huge body":                    {r: ask(`{"userId":"` + strings.Repeat("a", maxTokenRequest) + `"}`), status: 413, code: "payload_too_large"},
		"no such file":                   {r: get("nothing"), status: 404, code: "not_found"},
		"a mint that fails":              {cfg: Config{Mint: failing}, r: good(), status: 500, code: "internal"},
	} {
		t.Run(name, func(t *testing.T) {
			res := serve(t, c.cfg, c.r)
			body := decode(t, res)
			if res.StatusCode != c.status || body["code"] != c.code {
				t.Fatalf("got %d %v, want %d %s", res.StatusCode, body, c.status, c.code)
			}
			if got := res.Header.Get("Content-Type"); got != "application/problem+json" {
				t.Errorf("Content-Type is %q", got)
			}
			if detail, _ := body["detail"].(string); detail == "" || strings.Contains(detail, "secret reason") {
				t.Errorf("detail is %q", detail)
			}
		})
	}
}

func TestItsOwnPageIsLetIn(t *testing.T) {
	for name, set := range map[string]func(*http.Request){
		"a browser":        func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "same-origin") },
		"an older browser": func(r *http.Request) { r.Header.Set("Origin", "http://example.com") },
		"a proxy changed Host": func(r *http.Request) {
			r.Header.Set("Sec-Fetch-Site", "same-origin")
			r.Header.Set("Origin", "https://x")
		},
		"no browser": func(*http.Request) {},
	} {
		r := ask(`{"userId":"ada"}`) // to example.com
		set(r)
		if res := serve(t, Config{}, r); res.StatusCode != http.StatusOK {
			t.Errorf("%s: got %d", name, res.StatusCode)
		}
	}
}

func TestNamesOfThisMachine(t *testing.T) {
	for host, want := range map[string]bool{
		"127.0.0.1:3000": true, "localhost:3000": true, "[::1]:3000": true, "127.0.0.1": true, "::1": true, "a.localhost:1": true,
		"127.8.9.1:1": true, "example.com": false, "10.0.0.1:3000": false, "127.0.0.1.nip.example:3000": false, "": false, "localhost.evil.example": false,
	} {
		if got := isLoopback(host); got != want {
			t.Errorf("isLoopback(%q) = %v", host, got)
		}
	}
}

func TestWrongMethodsAreRefused(t *testing.T) {
	for _, c := range []struct{ method, path, allow string }{
		{"GET", "token", "POST"}, {"HEAD", "token", "POST"}, {"OPTIONS", "token", "POST"},
		{"POST", "config.json", "GET, HEAD"}, {"POST", "", "GET, HEAD"}, {"DELETE", "app.js", "GET, HEAD"},
	} {
		res := serve(t, Config{}, httptest.NewRequest(c.method, Path+c.path, nil))
		if res.StatusCode != http.StatusMethodNotAllowed || res.Header.Get("Allow") != c.allow || res.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s %s: got %d %v", c.method, c.path, res.StatusCode, res.Header)
			continue
		}
		if body := decode(t, res); body["code"] != "method_not_allowed" {
			t.Errorf("%s %s: got %v", c.method, c.path, body)
		}
	}
}
