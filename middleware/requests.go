package middleware

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gin-gonic/gin"
)

// durationBounds are the upper bounds of the buckets of a request's duration.
var durationBounds = [...]time.Duration{
	250 * time.Microsecond, time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond,
	10 * time.Millisecond, 25 * time.Millisecond, 100 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 5 * time.Second,
}

// Requests counts requests and their durations by route, for /metrics. Its
// size is bounded by the route table: what matches no route is counted as one.
type Requests struct {
	mu     sync.RWMutex
	routes map[routeKey]*routeCounts // guarded by mu; the counts inside are atomic
}

type routeKey struct{ method, route string }

type routeCounts struct {
	byStatus  [500]atomic.Uint64 // statuses 100 to 599
	byBucket  [len(durationBounds) + 1]atomic.Uint64
	nanoTotal atomic.Uint64
}

// NewRequests counts nothing yet.
func NewRequests() *Requests {
	return &Requests{routes: make(map[routeKey]*routeCounts)}
}

// Count is the middleware that counts. A request is counted at its end, also
// when it ends in a panic.
func (r *Requests) Count() gin.HandlerFunc {
	return func(c *gin.Context) {
		start := time.Now()
		defer func() {
			key := routeKey{c.Request.Method, routeOf(c)}
			if c.FullPath() == "" {
				key.method = "" // a stranger's invention
			}
			r.of(key).add(statusOf(c), time.Since(start))
		}()
		c.Next()
	}
}

func (r *Requests) of(key routeKey) *routeCounts {
	r.mu.RLock()
	counts := r.routes[key]
	r.mu.RUnlock()
	if counts != nil {
		return counts
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if counts = r.routes[key]; counts == nil {
		counts = new(routeCounts)
		r.routes[key] = counts
	}
	return counts
}

func (r *routeCounts) add(status int, took time.Duration) {
	if i := status - 100; i >= 0 && i < len(r.byStatus) {
		r.byStatus[i].Add(1)
	}
	bucket := 0
	for bucket < len(durationBounds) && took > durationBounds[bucket] {
		bucket++
	}
	r.byBucket[bucket].Add(1)
	r.nanoTotal.Add(uint64(max(took, 0)))
}

// WritePrometheus writes the counts in the text format of Prometheus, routes
// in order.
func (r *Requests) WritePrometheus(w io.Writer) {
	r.mu.RLock()
	keys := slices.SortedFunc(maps.Keys(r.routes), func(a, b routeKey) int {
		return cmp.Or(cmp.Compare(a.route, b.route), cmp.Compare(a.method, b.method))
	})
	routes := make([]*routeCounts, len(keys))
	for i, key := range keys {
		routes[i] = r.routes[key]
	}
	r.mu.RUnlock()

	for i, counts := range routes {
		labels := fmt.Sprintf("method=%q,route=%q", keys[i].method, keys[i].route)
		for s := range counts.byStatus {
			if n := counts.byStatus[s].Load(); n > 0 {
				fmt.Fprintf(w, "jobwire_http_requests_total{%s,code=\"%d\"} %d\n", labels, s+100, n)
			}
		}
		var total uint64
		for b := range counts.byBucket {
			total += counts.byBucket[b].Load()
			le := "+Inf"
			if b < len(durationBounds) {
				le = fmt.Sprint(durationBounds[b].Seconds())
			}
			fmt.Fprintf(w, "jobwire_http_request_duration_seconds_bucket{%s,le=%q} %d\n", labels, le, total)
		}
		seconds := time.Duration(counts.nanoTotal.Load()).Seconds()
		fmt.Fprintf(w, "jobwire_http_request_duration_seconds_sum{%s} %g\n", labels, seconds)
		fmt.Fprintf(w, "jobwire_http_request_duration_seconds_count{%s} %d\n", labels, total)
	}
}
