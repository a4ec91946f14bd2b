package middleware

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

func TestRequestsAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		requests := NewRequests()
		engine := gin.New()
		engine.Use(requests.Count(), gin.CustomRecoveryWithWriter(io.Discard, func(c *gin.Context, _ any) { c.AbortWithStatus(500) }))
		engine.GET("/v1/presence/:userId", func(c *gin.Context) {
			time.Sleep(2 * time.Millisecond)
			c.Status(200)
		})
		engine.POST("/v1/events", func(c *gin.Context) {
			if c.Query("panic") != "" {
				panic("oops")
			}
			c.Status(202)
		})
		for _, user := range []string{"alice", "bob", "carol"} {
			do(engine, request("GET", "/v1/presence/"+user))
		}
		do(engine, request("POST", "/v1/events"))
		do(engine, request("POST", "/v1/events?panic=1"))
		for i := range 100 { // what a client invents cannot make it grow
			do(engine, request(fmt.Sprintf("METHOD%d", i), fmt.Sprintf("/path/%d", i)))
		}

		text := scrape(t, requests)
		for _, line := range []string{
			`jobwire_http_requests_total{code="200",method="GET",route="/v1/presence/:userId"} 3`,
			`jobwire_http_request_duration_seconds_bucket{method="GET",route="/v1/presence/:userId",le="0.001"} 0`,
			`jobwire_http_request_duration_seconds_bucket{method="GET",route="/v1/presence/:userId",le="0.0025"} 3`,
			`jobwire_http_request_duration_seconds_bucket{method="GET",route="/v1/presence/:userId",le="+Inf"} 3`,
			`jobwire_http_request_duration_seconds_sum{method="GET",route="/v1/presence/:userId"} 0.006`,
			`jobwire_http_request_duration_seconds_count{method="GET",route="/v1/presence/:userId"} 3`,
			`jobwire_http_requests_total{code="202",method="POST",route="/v1/events"} 1`,
			`jobwire_http_requests_total{code="500",method="POST",route="/v1/events"} 1`,
			`jobwire_http_requests_total{code="404",method="",route="unmatched"} 100`,
		} {
			if !strings.Contains(text, line+"\n") {
				t.Errorf("missing %s in\n%s", line, text)
			}
		}
		if got := strings.Count(text, "jobwire_http_request_duration_seconds_count{"); got != 3 {
			t.Errorf("%d routes", got)
		}
	})
}

func TestPostsOfEventsAreTimedByCall(t *testing.T) {
	const none = `events"} 0 batch"} 0 wait"} 0`
	for name, c := range map[string]struct {
		request *http.Request
		status  int
		want    string // the seconds that each call took
	}{
		"an event":                   {request("POST", "/v1/events"), 202, `events"} 0.002 batch"} 0 wait"} 0`},
		"a batch":                    {request("POST", "/v1/events/batch"), 200, `events"} 0 batch"} 0.002 wait"} 0`},
		"an event that waits":        {request("POST", "/v1/events", "Prefer: wait=3"), 202, `events"} 0 batch"} 0 wait"} 0.002`},
		"a batch that would wait":    {request("POST", "/v1/events/batch", "Prefer: wait=3"), 200, `events"} 0 batch"} 0.002 wait"} 0`},
		"an event that is refused":   {request("POST", "/v1/events"), 400, none},
		"a store that fails":         {request("POST", "/v1/events/batch"), 503, none},
		"another call":               {request("POST", "/v1/presence/query"), 200, none},
		"a method that it is not":    {request("GET", "/v1/events"), 200, none},
		"a path that is nearly that": {request("POST", "/v1/events/"), 202, none},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				requests := NewRequests()
				engine := gin.New()
				engine.RedirectTrailingSlash = false
				engine.Use(requests.Count())
				for _, path := range []string{"/v1/events", "/v1/events/batch", "/v1/presence/query"} {
					engine.Any(path, func(g *gin.Context) {
						time.Sleep(2 * time.Millisecond)
						g.Status(c.status)
					})
				}
				do(engine, c.request)
				var got []string
				for _, call := range []string{"events", "batch", "wait"} {
					_, seconds, _ := strings.Cut(scrape(t, requests), `jobwire_post_duration_seconds_sum{call="`+call)
					seconds, _, _ = strings.Cut(seconds, "\n")
					got = append(got, call+seconds)
				}
				if got := strings.Join(got, " "); got != c.want {
					t.Errorf("got %s, want %s", got, c.want)
				}
			})
		})
	}
}

func TestTheFirstRequestsOfManyRoutesAtOnceAreAllCounted(t *testing.T) {
	const routes, clients = 20, 8
	requests := NewRequests()
	engine := gin.New()
	engine.Use(requests.Count())
	for i := range routes {
		engine.GET(fmt.Sprintf("/%d", i), func(c *gin.Context) { c.Status(http.StatusOK) })
	}
	var running sync.WaitGroup
	for range clients {
		running.Go(func() {
			for i := range routes {
				do(engine, request("GET", fmt.Sprintf("/%d", i)))
			}
		})
	}
	scrape(t, requests) // meanwhile
	running.Wait()
	text := scrape(t, requests)
	for i := range routes {
		for _, name := range []string{`jobwire_http_requests_total{code="200",`, "jobwire_http_request_duration_seconds_count{"} {
			if line := fmt.Sprintf(`%smethod="GET",route="/%d"} %d`, name, i, clients); !strings.Contains(text, line+"\n") {
				t.Errorf("missing %s", line)
			}
		}
	}
}

func TestCountingDoesNotAllocate(t *testing.T) {
	requests := NewRequests()
	if n := testing.AllocsPerRun(100, func() {
		requests.of(routeKey{"POST", "/v1/events"}).add(http.StatusAccepted, nil, .001)
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// scrape is the text of what c collects.
func scrape(t *testing.T, c prometheus.Collector) string {
	t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(c)
	w := do(promhttp.HandlerFor(registry, promhttp.HandlerOpts{}), request("GET", "/metrics"))
	if w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	return w.Body.String()
}
