package middleware

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/gin-gonic/gin"
)

// Proxies knows which peers are our own reverse proxies, and so whose word
// about the client counts. It is the one place that reads X-Forwarded-*.
type Proxies struct {
	trusted []netip.Prefix
}

// NewProxies trusts the peers within trusted; none means that every peer is the client itself.
func NewProxies(trusted []netip.Prefix) *Proxies {
	return &Proxies{trusted: trusted}
}

// Client is the address of the client: the peer, or behind trusted proxies the rightmost address of X-Forwarded-For that is not
// itself trusted. What stands further left anyone may have written. The zero Addr means that the peer has no address, as on a
// Unix socket.
func (p *Proxies) Client(r *http.Request) netip.Addr {
	client := peer(r)
	if !p.trusts(client) {
		return client
	}
	addresses := strings.Split(strings.Join(r.Header["X-Forwarded-For"], ","), ",")
	for _, address := range slices.Backward(addresses) {
		if address = strings.TrimSpace(address); address == "" {
			continue // lists may have empty elements
		}
		addr, ok := parseAddr(address)
		if !ok {
			return client // the last one that made sense
		}
		if client = addr; !p.trusts(client) {
			return client
		}
	}
	return client
}

// ShowClient makes the client's address the RemoteAddr of the request, for those behind that only know the peer.
func (p *Proxies) ShowClient() gin.HandlerFunc {
	return func(c *gin.Context) {
		if client := p.Client(c.Request); client.IsValid() && client != peer(c.Request) {
			c.Request.RemoteAddr = netip.AddrPortFrom(client, 0).String()
		}
	}
}

// scheme is "http" or "https" when that is certain, and "" when it is not: a
// peer without TLS may be a proxy that nobody has declared.
func (p *Proxies) scheme(r *http.Request) string {
	if r.TLS != nil {
		return "https"
	}
	if !p.trusts(peer(r)) {
		return ""
	}
	switch proto := strings.ToLower(first(r.Header.Get("X-Forwarded-Proto"))); proto {
	case "ws": // some proxies name the protocol of an upgrade
		return "http"
	case "wss":
		return "https"
	default:
		return proto
	}
}

// host is the host that the client asked for, as a trusted proxy or else the request itself says.
func (p *Proxies) host(r *http.Request) string {
	if p.trusts(peer(r)) {
		if host := first(r.Header.Get("X-Forwarded-Host")); host != "" {
			return host
		}
	}
	return r.Host
}

func (p *Proxies) trusts(addr netip.Addr) bool {
	return slices.ContainsFunc(p.trusted, func(prefix netip.Prefix) bool { return prefix.Contains(addr) })
}

func peer(r *http.Request) netip.Addr {
	addr, _ := parseAddr(r.RemoteAddr)
	return addr
}

// parseAddr reads an address with or without a port, as proxies write both. Zones are dropped: they mean something on one
// machine only, and would make several addresses of one.
func parseAddr(s string) (netip.Addr, bool) {
	addr, err := netip.ParseAddr(strings.Trim(s, "[]"))
	if err != nil {
		var withPort netip.AddrPort
		if withPort, err = netip.ParseAddrPort(s); err != nil {
			return netip.Addr{}, false
		}
		addr = withPort.Addr()
	}
	return addr.Unmap().WithZone(""), true
}

// first is the first element of a comma-separated header: what the outermost proxy saw.
func first(header string) string {
	value, _, _ := strings.Cut(header, ",")
	return strings.TrimSpace(value)
}
