package middleware

import (
	"math"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gin-gonic/gin"
	"golang.org/x/time/rate"
)

// DefaultLimiterAddresses is how many addresses a Limiter tells apart.
const DefaultLimiterAddresses = 1 << 16

// LimiterConfig says how often one address may ask.
type LimiterConfig struct {
	Rate      float64 // requests a second and address in the long run; 0 or less: no limit
	Burst     int     // requests at once; less than 1 means 1
	Addresses int     // addresses remembered, about 200 bytes each; 0 means DefaultLimiterAddresses
}

// Limiter is one token bucket for each client address; the addresses of an IPv6 /64, which one customer is given, share one.
//
// The memory is bounded by two generations of buckets: an address moves to the young one when it asks, and the old one is
// dropped as a whole when the young one is full or has lasted as long as a bucket takes to fill. So what is forgotten is either
// full again, or the longest silent of too many.
type Limiter struct {
	cfg     LimiterConfig
	proxies *Proxies
	refill  time.Duration // from empty to full
	refused atomic.Uint64

	mu         sync.Mutex
	young, old map[netip.Prefix]*rate.Limiter // guarded by mu
	since      time.Time                      // of the young generation; guarded by mu
}

// NewLimiter limits the clients that proxies tells apart.
func NewLimiter(cfg LimiterConfig, proxies *Proxies) *Limiter {
	cfg.Burst = max(cfg.Burst, 1)
	if cfg.Addresses <= 0 {
		cfg.Addresses = DefaultLimiterAddresses
	}
	l := &Limiter{cfg: cfg, proxies: proxies, young: make(map[netip.Prefix]*rate.Limiter)}
	if cfg.Rate > 0 {
		// The cap keeps a tiny rate from overflowing a Duration.
		seconds := min(float64(cfg.Burst)/cfg.Rate, (24 * time.Hour).Seconds())
		l.refill = time.Duration(seconds * float64(time.Second))
	}
	return l
}

// Sockets limits the handshakes on /socket.io/. A request with a session id is none: if the engine knows the id it belongs to a
// connection that was counted, and if not its refusal is cheap. Refused are handshakes with 429, Retry-After and
// {"code":4,"message":"Too many requests"}; clients keep trying with their usual backoff.
func (l *Limiter) Sockets() gin.HandlerFunc {
	return func(c *gin.Context) {
		if c.Request.URL.Query().Get("sid") == "" && !l.allows(c) {
			refuseEngine(c, http.StatusTooManyRequests, "Too many requests")
		}
	}
}

// Guard limits all requests of a route, and refuses with rate_limited.
func (l *Limiter) Guard(refuse Refuse) gin.HandlerFunc {
	return func(c *gin.Context) {
		if !l.allows(c) {
			refuse(c, CodeRateLimited)
		}
	}
}

// allows takes a token for the client of a request, or tells it when to come back.
func (l *Limiter) allows(c *gin.Context) bool {
	wait := l.take(l.proxies.Client(c.Request), time.Now())
	if wait > 0 {
		c.Header("Retry-After", strconv.Itoa(int(math.Ceil(wait.Seconds())))) // rounded down it would only be refused again
	}
	return wait == 0
}

// Refused counts the requests that were refused since the start.
func (l *Limiter) Refused() uint64 { return l.refused.Load() }

// take asks for one token: 0 when there is one, else how long until there is.
func (l *Limiter) take(addr netip.Addr, now time.Time) time.Duration {
	if l.cfg.Rate <= 0 {
		return 0
	}
	bucket := l.bucket(neighbourhood(addr), now)
	if bucket.AllowN(now, 1) {
		return 0
	}
	l.refused.Add(1)
	missing := 1 - bucket.TokensAt(now)
	return max(time.Duration(missing/l.cfg.Rate*float64(time.Second)), 1)
}

func (l *Limiter) bucket(key netip.Prefix, now time.Time) *rate.Limiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	bucket := l.young[key]
	if bucket != nil && now.Sub(l.since) < l.refill {
		return bucket
	}
	if half := max(l.cfg.Addresses/2, 1); len(l.young) >= half || now.Sub(l.since) >= l.refill {
		l.old, l.young, l.since = l.young, make(map[netip.Prefix]*rate.Limiter), now
	}
	if bucket = l.old[key]; bucket == nil {
		bucket = rate.NewLimiter(rate.Limit(l.cfg.Rate), l.cfg.Burst)
	}
	delete(l.old, key)
	l.young[key] = bucket
	return bucket
}

// neighbourhood is what counts as one client.
func neighbourhood(addr netip.Addr) netip.Prefix {
	bits := addr.BitLen()
	if addr.Is6() {
		bits = 64
	}
	prefix, err := addr.Prefix(bits)
	if err != nil {
		return netip.Prefix{} // no address: all such peers are one
	}
	return prefix
}
