package middleware

import (
	"net/http"
	"testing"

	"github.com/gin-gonic/gin"
)

// BenchmarkRequests is what counting costs a request: Gin alone, and Gin with Count on a route.
func BenchmarkRequests(b *testing.B) {
	requests := NewRequests()
	for _, c := range []struct {
		name, method, path string
		before             []gin.HandlerFunc
	}{
		{"uncounted", http.MethodPost, "/v1/events", nil},
		{"counted", http.MethodGet, "/v1/presence/count", []gin.HandlerFunc{requests.Count()}},
		{"counted POST", http.MethodPost, "/v1/events", []gin.HandlerFunc{requests.Count()}},
	} {
		b.Run(c.name, func(b *testing.B) {
			engine := gin.New()
			engine.Use(c.before...)
			engine.Handle(c.method, c.path, func(c *gin.Context) { c.Status(http.StatusAccepted) })
			request, w := request(c.method, c.path), discard{}
			b.ReportAllocs()
			for b.Loop() {
				engine.ServeHTTP(w, request)
			}
		})
	}
}

// discard is an answer that goes nowhere.
type discard struct{}

func (discard) Header() http.Header         { return nil }
func (discard) Write(b []byte) (int, error) { return len(b), nil }
func (discard) WriteHeader(int)             {}
