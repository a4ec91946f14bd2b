package middleware

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gin-gonic/gin"
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
		for i := range 100 { // a stranger cannot make it grow
			do(engine, request(fmt.Sprintf("METHOD%d", i), fmt.Sprintf("/path/%d", i)))
		}

		var text strings.Builder
		requests.WritePrometheus(&text)
		for _, line := range []string{
			`jobwire_http_requests_total{method="GET",route="/v1/presence/:userId",code="200"} 3`,
			`jobwire_http_request_duration_seconds_bucket{method="GET",route="/v1/presence/:userId",le="0.001"} 0`,
			`jobwire_http_request_duration_seconds_bucket{method="GET",route="/v1/presence/:userId",le="0.0025"} 3`,
			`jobwire_http_request_duration_seconds_bucket{method="GET",route="/v1/presence/:userId",le="+Inf"} 3`,
			`jobwire_http_request_duration_seconds_sum{method="GET",route="/v1/presence/:userId"} 0.006`,
			`jobwire_http_request_duration_seconds_count{method="GET",route="/v1/presence/:userId"} 3`,
			`jobwire_http_requests_total{method="POST",route="/v1/events",code="202"} 1`,
			`jobwire_http_requests_total{method="POST",route="/v1/events",code="500"} 1`,
			`jobwire_http_requests_total{method="",route="unmatched",code="404"} 100`,
		} {
			if !strings.Contains(text.String(), line+"\n") {
				t.Errorf("missing %s in\n%s", line, text.String())
			}
		}
		if got := strings.Count(text.String(), "_count{"); got != 3 {
			t.Errorf("%d routes", got)
		}
	})
}
