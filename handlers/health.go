package handlers

import (
	"context"
	_ "embed"
	"net/http"

	"github.com/gin-gonic/gin"
)

// Readiness says whether this node should be given traffic. The error is an
// *events.Error with the code store_unavailable or shutting_down.
type Readiness interface {
	Ready(ctx context.Context) error
}

// Health answers the calls of operators. They need no API key, and tell
// nothing about users.
type Health struct {
	readiness Readiness
	metrics   http.Handler
}

// NewHealth answers from readiness, and scrapes from metrics.
func NewHealth(readiness Readiness, metrics http.Handler) *Health {
	return &Health{readiness: readiness, metrics: metrics}
}

var (
	alive = []byte(`{"status":"alive"}`)
	ready = []byte(`{"status":"ready"}`)
)

// Live is GET /livez: the process answers. Whoever restarts what is not live
// must not look at more: a store that is away does not come back by that.
func (h *Health) Live(c *gin.Context) { answerFresh(c, alive) }

// Ready is GET /readyz: the node can do its work and means to go on.
func (h *Health) Ready(c *gin.Context) {
	if err := h.readiness.Ready(c.Request.Context()); err != nil {
		fail(c, err)
		return
	}
	answerFresh(c, ready)
}

// Metrics is GET /metrics, in the format of Prometheus that the scraper asks for.
func (h *Health) Metrics(c *gin.Context) {
	c.Header("Cache-Control", "no-store")
	h.metrics.ServeHTTP(c.Writer, c.Request)
}

//go:embed openapi.yaml
var openAPI []byte

// OpenAPI is GET /openapi.yaml: the description of the HTTP API.
func OpenAPI(c *gin.Context) {
	header := c.Writer.Header()
	header.Set("Content-Type", "application/yaml")
	header.Set("Cache-Control", "no-cache")
	write(c, http.StatusOK, openAPI)
}
