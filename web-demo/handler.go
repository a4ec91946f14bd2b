// Package webdemo is the demo page: a frontend on the official socket.io-client and, beside it, a panel that plays the worker
// through the real HTTP API.
//
// The page is embedded. The client script is an npm dependency and not tracked: `make demo` and `make build` bring it to
// page/lib before the binary is built. A binary built without it works; its page names the command.
//
// Whoever can reach the page may become any user, so [Handler] is mounted only
// where the operator asked for a demo (--dev, --demo).
package webdemo

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"jobwire/internal/events"
)

//go:embed page
var page embed.FS

// contentTypes are the kinds of file that the page is made of. They are spelled out because the host's own MIME tables differ,
// and a browser under nosniff refuses a script that comes with the wrong one. A file of another kind, such as the note in
// page/lib, is not served.
var contentTypes = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
}

// Path is where [Handler] is to be mounted, with everything below it. Without
// its slash at the end it may be mounted too: it is redirected to the page.
const Path = "/demo/"

// maxTokenRequest bounds the body of a token request, in bytes.
const maxTokenRequest = 4 << 10

// contentSecurityPolicy lets the page run its own files and talk to its own server, and nothing else. Trusted Types make the
// browser itself enforce that what users and workers send is only ever shown as text.
const contentSecurityPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; " +
	"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; " +
	"require-trusted-types-for 'script'; trusted-types 'none'"

// Config says what the demo may hand out.
type Config struct {
	// Mint makes a token for a user of a tenant ("" for none) and says until when it is good. Required.
	Mint func(userID, tenant string) (token string, expires time.Time, err error)
	// APIKey is given to the page so that its worker panel works at once. Set it only for a server that nobody but its
	// developer reaches, which is why it requires LoopbackOnly; without it the panel asks for a key.
	APIKey string
	// LoopbackOnly refuses requests for any host but this machine. A server that listens on loopback is still reachable from a
	// web page elsewhere whose owner points a name at 127.0.0.1 (DNS rebinding), and to a browser that page is of the same
	// origin.
	LoopbackOnly bool
}

// Handler serves the page, its settings (config.json) and demo tokens (token) below [Path].
func Handler(cfg Config) (http.Handler, error) {
	if cfg.Mint == nil {
		return nil, errors.New("webdemo: Config.Mint is required")
	}
	if cfg.APIKey != "" && !cfg.LoopbackOnly {
		return nil, errors.New("webdemo: Config.APIKey requires LoopbackOnly")
	}
	d := &demo{cfg}
	mux := http.NewServeMux()
	mux.HandleFunc(Path, only(d.asset, http.MethodGet, http.MethodHead))
	mux.HandleFunc(Path+"config.json", only(d.config, http.MethodGet, http.MethodHead))
	mux.HandleFunc(Path+"token", only(d.token, http.MethodPost))
	return d.guard(mux), nil
}

type demo struct{ cfg Config }

// guard sets what every answer carries and refuses what is not from this page.
func (d *demo) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", contentSecurityPolicy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		if d.cfg.LoopbackOnly && !isLoopback(r.Host) {
			refuse(w, http.StatusMisdirectedRequest, "host_not_allowed",
				"this demo answers only to this machine's own names: use 127.0.0.1 or localhost")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// only lets these methods pass. The mux knows methods too, but refuses others in
// plain text, and would look for a file called token.
func only(next http.HandlerFunc, methods ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !slices.Contains(methods, r.Method) {
			w.Header().Set("Allow", strings.Join(methods, ", "))
			refuse(w, http.StatusMethodNotAllowed, "method_not_allowed", "the path has no such method, see Allow")
			return
		}
		next(w, r)
	}
}

func (d *demo) asset(w http.ResponseWriter, r *http.Request) {
	name := cmp.Or(strings.TrimPrefix(r.URL.Path, Path), "index.html")
	contentType, servable := contentTypes[path.Ext(name)]
	content, err := page.ReadFile("page/" + name)
	if err != nil || !servable {
		refuse(w, http.StatusNotFound, "not_found", "the demo has no such file")
		return
	}
	sum := sha256.Sum256(content)
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("ETag", `"`+base64.RawURLEncoding.EncodeToString(sum[:12])+`"`)
	w.Header().Set("Cache-Control", "no-cache") // a new binary's page is seen at the next load
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
}

// config tells the page where the worker API is and, under --dev, the key.
func (d *demo) config(w http.ResponseWriter, r *http.Request) {
	// Not left to CORS: a server that allows every origin would allow reading the key.
	if !sameOrigin(r) {
		refuseOrigin(w)
		return
	}
	answer(w, http.StatusOK, "application/json", struct {
		API    string `json:"api"`
		APIKey string `json:"apiKey,omitempty"`
	}{API: "/v1", APIKey: d.cfg.APIKey})
}

func (d *demo) token(w http.ResponseWriter, r *http.Request) {
	if !sameOrigin(r) {
		refuseOrigin(w)
		return
	}
	// JSON only: a form on another site can post anything but this unasked.
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		refuse(w, http.StatusUnsupportedMediaType, "unsupported_media_type", "send Content-Type: application/json")
		return
	}
	var ask struct {
		UserID string `json:"userId"`
		Tenant string `json:"tenant"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxTokenRequest)).Decode(&ask); err != nil {
		if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
			refuse(w, http.StatusRequestEntityTooLarge, "payload_too_large",
				fmt.Sprintf("a token request has at most %d bytes", maxTokenRequest))
			return
		}
		refuse(w, http.StatusBadRequest, events.CodeInvalidJSON, `send {"userId": "…", "tenant": "…"}; tenant is optional`)
		return
	}
	if err := events.CheckUserID(ask.UserID); err != nil {
		refuse(w, http.StatusBadRequest, events.CodeInvalidUserID, err.Error())
		return
	}
	if ask.Tenant != "" && events.CheckUserID(ask.Tenant) != nil {
		refuse(w, http.StatusBadRequest, "invalid_tenant", "a tenant is named by the same rule as a user")
		return
	}
	token, expires, err := d.cfg.Mint(ask.UserID, ask.Tenant)
	if err != nil {
		refuse(w, http.StatusInternalServerError, "internal", "no token could be made")
		return
	}
	answer(w, http.StatusOK, "application/json", struct {
		Token     string    `json:"token"`
		ExpiresAt time.Time `json:"expiresAt"`
	}{token, expires.UTC().Truncate(time.Second)})
}

// sameOrigin says whether the request comes from this server's own pages, or from no page at all.
func sameOrigin(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "same-origin", "none":
		return true
	case "": // an old browser, plain HTTP to another machine, or no browser
	default:
		return false
	}
	origin := r.Header.Get("Origin")
	if origin == "" {
		return true
	}
	from, err := url.Parse(origin)
	return err == nil && from.Host == r.Host
}

// isLoopback says whether a Host header names this machine in a way that no name server was asked about.
func isLoopback(host string) bool {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = strings.Trim(host, "[]")
	}
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return true
	}
	addr, err := netip.ParseAddr(name)
	return err == nil && addr.IsLoopback()
}

func refuseOrigin(w http.ResponseWriter) {
	refuse(w, http.StatusForbidden, "origin_forbidden", "only the demo page itself may ask for this")
}

// refuse answers as the rest of the server does, with RFC 9457 problem details.
func refuse(w http.ResponseWriter, status int, code, detail string) {
	answer(w, status, "application/problem+json", struct {
		Type   string `json:"type"`
		Title  string `json:"title"`
		Status int    `json:"status"`
		Code   string `json:"code"`
		Detail string `json:"detail"`
	}{"about:blank", http.StatusText(status), status, code, detail})
}

// answer never lets a token, a key or a refusal be kept by a cache.
func answer(w http.ResponseWriter, status int, contentType string, body any) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	// An error here means that the client has gone; there is nobody to tell.
	_ = json.NewEncoder(w).Encode(body)
}
