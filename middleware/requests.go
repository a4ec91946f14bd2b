package middleware

import (
	"maps"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"
)

// The values of the label call of jobwire_post_duration_seconds. A call that asks to wait for its user has one of its own,
// because the user decides how long it takes.
const (
	callEvents = "events"
	callBatch  = "batch"
	callWait   = "wait"
)

// Requests counts requests and their durations by route; it is a Collector of those metrics. Its size is bounded by the route
// table: what matches no route is counted as one.
type Requests struct {
	total     *prometheus.Desc
	durations *prometheus.HistogramVec // by method and route
	posts     *prometheus.HistogramVec // by call

	mu     sync.Mutex // held to add a route
	routes atomic.Pointer[routeMap]
}

// routeMap is never changed: with another route comes another map, so that a request finds its own without a lock.
type routeMap map[routeKey]*routeCounts

type routeKey struct{ method, route string }

// routeCounts are the counts of a route. Its observers are resolved once, with the first request.
type routeCounts struct {
	byStatus [500]atomic.Uint64 // statuses 100 to 599
	duration prometheus.Observer
	post     prometheus.Observer // nil for a route where no events are posted
	wait     prometheus.Observer // instead of post, for a request that prefers to wait
}

// NewRequests counts nothing yet.
func NewRequests() *Requests {
	r := &Requests{
		total: prometheus.NewDesc("jobwire_http_requests_total",
			"HTTP requests that have ended, by the template of their route.", []string{"method", "route", "code"}, nil),
		durations: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "jobwire_http_request_duration_seconds",
			Help:    "Time to answer an HTTP request; a long poll and a websocket take as long as they last.",
			Buckets: []float64{.00025, .001, .0025, .005, .01, .025, .1, .5, 1, 5},
		}, []string{"method", "route"}),
		posts: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "jobwire_post_duration_seconds",
			Help:    "Time to accept a POST of one event (events), of a batch (batch), of one event with a Prefer header (wait).",
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"call"}),
	}
	r.routes.Store(new(routeMap))
	for _, call := range []string{callEvents, callBatch, callWait} {
		r.posts.WithLabelValues(call) // shown from the start, so that the first one is seen as a rise
	}
	return r
}

// Count is the middleware that counts. A request is counted at its end, also when it ends in a panic.
func (r *Requests) Count() gin.HandlerFunc {
	return func(c *gin.Context) {
		start := time.Now()
		defer func() {
			key := routeKey{c.Request.Method, routeOf(c)}
			if c.FullPath() == "" {
				key.method = "" // the client's invention
			}
			r.of(key).add(statusOf(c), c.Request.Header, time.Since(start).Seconds())
		}()
		c.Next()
	}
}

func (r *Requests) of(key routeKey) *routeCounts {
	if counts := (*r.routes.Load())[key]; counts != nil {
		return counts
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	known := *r.routes.Load()
	if counts := known[key]; counts != nil {
		return counts
	}
	counts := &routeCounts{duration: r.durations.WithLabelValues(key.method, key.route)}
	switch key {
	case routeKey{http.MethodPost, "/v1/events"}:
		counts.post, counts.wait = r.posts.WithLabelValues(callEvents), r.posts.WithLabelValues(callWait)
	case routeKey{http.MethodPost, "/v1/events/batch"}:
		counts.post = r.posts.WithLabelValues(callBatch)
		counts.wait = counts.post // a batch does not wait
	}
	routes := routeMap{key: counts}
	maps.Copy(routes, known)
	r.routes.Store(&routes)
	return counts
}

func (r *routeCounts) add(status int, header http.Header, seconds float64) {
	if i := status - 100; i >= 0 && i < len(r.byStatus) {
		r.byStatus[i].Add(1)
	}
	r.duration.Observe(seconds)
	if r.post == nil || status >= 300 {
		return
	}
	if len(header["Prefer"]) > 0 {
		r.wait.Observe(seconds)
	} else {
		r.post.Observe(seconds)
	}
}

// Describe implements prometheus.Collector.
func (r *Requests) Describe(out chan<- *prometheus.Desc) {
	out <- r.total
	r.durations.Describe(out)
	r.posts.Describe(out)
}

// Collect implements prometheus.Collector.
func (r *Requests) Collect(out chan<- prometheus.Metric) {
	r.durations.Collect(out)
	r.posts.Collect(out)
	for key, counts := range *r.routes.Load() {
		for i := range counts.byStatus {
			if n := counts.byStatus[i].Load(); n > 0 {
				out <- prometheus.MustNewConstMetric(r.total, prometheus.CounterValue, float64(n),
					key.method, key.route, strconv.Itoa(100+i))
			}
		}
	}
}
