package handlers

import (
	"context"
	_ "embed"
	"net/http"

	"github.com/VictoriaMetrics/metrics"
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
	metrics   *metrics.Set
}

// NewHealth answers from readiness, and with the metrics in set.
func NewHealth(readiness Readiness, set *metrics.Set) *Health {
	return &Health{readiness: readiness, metrics: set}
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

// Metrics is GET /metrics, in the text format of Prometheus.
func (h *Health) Metrics(c *gin.Context) {
	header := c.Writer.Header()
	header.Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	header.Set("Cache-Control", "no-store")
	c.Status(http.StatusOK)
	h.metrics.WritePrometheus(c.Writer)
	metrics.WriteProcessMetrics(c.Writer)
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
