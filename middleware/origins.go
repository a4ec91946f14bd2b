package middleware

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"

	"github.com/gin-gonic/gin"
)

const corsMaxAge = "600" // seconds for which a browser may remember a preflight

// Origins decides which web pages may talk to us: one list for polling and websocket alike. CORS headers are only its
// announcement to the browser. The check itself is ours, since a browser opens websockets to anyone.
type Origins struct {
	any     bool
	allowed map[string]bool
	proxies *Proxies
	refused atomic.Uint64
}

// NewOrigins allows the page's own origin (that of the server, as the client sees it) and the listed ones, such as
// "https://app.example.com" or "http://localhost:5173"; "*" allows all, even those without an origin to speak of. These cannot
// be listed: "null" is sent by every sandboxed frame. The error names every entry that is not an origin.
func NewOrigins(list []string, proxies *Proxies) (*Origins, error) {
	o := &Origins{allowed: make(map[string]bool, len(list)), proxies: proxies}
	var errs []error
	for _, entry := range list {
		if entry == "*" {
			o.any = true
			continue
		}
		origin, ok := normalOrigin(entry)
		if !ok || strings.Contains(entry, "*") { // no patterns: they would never match
			errs = append(errs, fmt.Errorf("%q is not an origin: want scheme://host[:port] or *", entry))
			continue
		}
		o.allowed[origin] = true
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return o, nil
}

// Sockets guards /socket.io/. A request from a forbidden origin, whatever its method and transport, gets 403 and
// {"code":4,"message":"Forbidden"}; a preflight from an allowed one is answered here. Requests without an Origin do not come
// from another site's scripts, and pass.
func (o *Origins) Sockets() gin.HandlerFunc {
	return func(c *gin.Context) {
		c.Writer.Header().Add("Vary", "Origin")
		if origin, ok := o.judge(c.Request); !ok {
			o.refused.Add(1)
			refuseEngine(c, http.StatusForbidden, "Forbidden")
		} else if origin != "" {
			announce(c, origin)
		}
	}
}

// Guard refuses requests from forbidden origins with origin_forbidden. It announces nothing, so pages of other origins cannot
// read the answers: it is for calls that only our own pages make.
func (o *Origins) Guard(refuse Refuse) gin.HandlerFunc {
	return func(c *gin.Context) {
		if _, ok := o.judge(c.Request); !ok {
			o.refused.Add(1)
			refuse(c, CodeOriginForbidden)
		}
	}
}

// Refused counts the requests from forbidden origins since the start.
func (o *Origins) Refused() uint64 { return o.refused.Load() }

// judge reports whether a request may pass. Then announce is the origin that CORS headers have to name; "" for none, and for
// the server's own.
func (o *Origins) judge(r *http.Request) (announce string, ok bool) {
	values, present := r.Header["Origin"]
	if !present {
		return "", true
	}
	if len(values) != 1 {
		return "", false // no browser does that
	}
	origin, ok := normalOrigin(values[0])
	switch {
	case ok && o.isOwn(origin, r):
		return "", true
	case o.any: // also "null", "file://" and what else apps call their pages
		return "*", true
	}
	return values[0], ok && o.allowed[origin]
}

// isOwn reports whether the page came from this very server. The scheme counts where it is known; see Proxies.scheme.
func (o *Origins) isOwn(origin string, r *http.Request) bool {
	scheme, host, _ := strings.Cut(origin, "://")
	if known := o.proxies.scheme(r); known != "" && known != scheme {
		return false
	}
	return host == normalHost(scheme, o.proxies.host(r))
}

// announce writes the CORS headers, and the whole answer to a preflight. "*" never comes with credentials: it would lend every
// page on the web the cookies that a proxy in front of us may ask for. What is echoed instead is always an origin that was
// listed.
func announce(c *gin.Context, origin string) {
	header := c.Writer.Header()
	header.Set("Access-Control-Allow-Origin", origin)
	if origin != "*" {
		header.Set("Access-Control-Allow-Credentials", "true")
	}
	if c.Request.Method != http.MethodOptions || c.Request.Header.Get("Access-Control-Request-Method") == "" {
		return
	}
	header.Set("Access-Control-Allow-Methods", "GET, POST")
	// Clients may be told to send any header (extraHeaders), and the token that counts is checked later.
	if wanted := c.Request.Header.Get("Access-Control-Request-Headers"); wanted != "" {
		header.Add("Vary", "Access-Control-Request-Headers")
		header.Set("Access-Control-Allow-Headers", wanted)
	}
	header.Set("Access-Control-Max-Age", corsMaxAge)
	c.AbortWithStatus(http.StatusNoContent)
}

// normalOrigin is the one spelling of an origin: lower case, no default port.
func normalOrigin(s string) (string, bool) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme == "" || u.Hostname() == "" || u.User != nil ||
		u.Path != "" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.HasSuffix(s, "#") {
		return "", false
	}
	scheme := strings.ToLower(u.Scheme)
	return scheme + "://" + normalHost(scheme, u.Host), true
}

func normalHost(scheme, host string) string {
	impliedPort := map[string]string{"http": ":80", "https": ":443"}[scheme]
	return strings.TrimSuffix(strings.ToLower(host), impliedPort)
}
