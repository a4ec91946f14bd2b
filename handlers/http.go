// Package handlers answers: HTTP calls of workers and operators, and what happens on the sockets of users.
//
// In flow requests that middleware has let pass, and the calls of the hub; out flow calls to delivery, presence and the hub,
// and their answers. A handler binds, calls and answers. What the answers to errors are is chosen in problem.go and nowhere
// else.
//
// openapi.yaml describes the HTTP calls and is served; docs/protocol.md is the contract with frontends and workers in prose.
// Tests hold both to the code.
package handlers

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"

	"github.com/gin-gonic/gin"

	"jobwire/internal/events"
)

// Prepare sets up Gin's routing as the routes of this package need it: user ids in paths may hold encoded slashes, no path is
// redirected, and what matches nothing is answered with a problem.
func Prepare(engine *gin.Engine) {
	engine.UseRawPath = true
	engine.UnescapePathValues = false // Gin would turn + into a space; see userInPath
	engine.RedirectTrailingSlash = false
	engine.RedirectFixedPath = false
	engine.HandleMethodNotAllowed = true // Gin lists in Allow what the path has
	engine.ForwardedByClientIP = false   // middleware.Proxies knows better
	engine.NoRoute(func(c *gin.Context) { Problem(c, codeNotFound) })
	engine.NoMethod(func(c *gin.Context) { Problem(c, codeMethodNotAllowed) })
}

// Answer makes a handler of a call: 200 with what it returns, as JSON that no cache may keep, or the problem that its error is.
func Answer(call func(c *gin.Context) (any, error)) gin.HandlerFunc {
	return func(c *gin.Context) {
		var text bytes.Buffer
		encoder := json.NewEncoder(&text)
		encoder.SetEscapeHTML(false) // the data of workers comes back as they wrote it
		value, err := call(c)
		if err == nil {
			err = encoder.Encode(value)
		}
		if err != nil {
			fail(c, err)
			return
		}
		c.Writer.Header()["Cache-Control"] = noStore
		answerText(c, http.StatusOK, bytes.TrimSuffix(text.Bytes(), []byte("\n")))
	}
}

// header values that many answers share; they are not to be changed.
var (
	jsonType = []string{"application/json"}
	noStore  = []string{"no-store"}
)

// answerText writes JSON that is ready.
func answerText(c *gin.Context, status int, text []byte) {
	c.Writer.Header()["Content-Type"] = jsonType
	write(c, status, text)
}

func write(c *gin.Context, status int, body []byte) {
	c.Status(status)
	_, _ = c.Writer.Write(body) // fails only when the client is gone
}

// userInPath is the {userId} of the route. Gin matches the raw path when there is one and the decoded path otherwise, so only
// the former is left to be decoded.
func userInPath(c *gin.Context) (string, error) {
	id := c.Param("userId")
	if c.Request.URL.RawPath != "" {
		decoded, err := url.PathUnescape(id)
		if err != nil {
			return "", refuse(events.CodeInvalidUserID, "userId", "")
		}
		id = decoded
	}
	return id, events.CheckUserID(id)
}

// limitIn is ?limit, or preset when there is none. What is no number is out of every range.
func limitIn(query url.Values, preset int) int {
	text := query.Get("limit")
	if text == "" {
		return preset
	}
	limit, _ := strconv.Atoi(text)
	return limit
}

func checkLimit(limit, most int) error {
	if limit < 1 || limit > most {
		return refuse(codeInvalidLimit, "limit", "limit must be a number from 1 to "+strconv.Itoa(most))
	}
	return nil
}

// Readiness says whether this node should be given traffic. The error is an *events.Error with the code store_unavailable or
// shutting_down.
type Readiness interface {
	Ready(ctx context.Context) error
}

// Health answers the calls of operators. They need no API key, and tell nothing about users.
type Health struct {
	readiness Readiness
	metrics   http.Handler
}

// NewHealth answers from readiness, and scrapes from metrics.
func NewHealth(readiness Readiness, metrics http.Handler) *Health {
	return &Health{readiness: readiness, metrics: metrics}
}

// Live is GET /livez: the process answers. Whoever restarts what is not live must not look at more: a store that is away does
// not come back by that.
func (h *Health) Live(*gin.Context) (any, error) { return gin.H{"status": "alive"}, nil }

// Ready is GET /readyz: the node can do its work and means to go on.
func (h *Health) Ready(c *gin.Context) (any, error) {
	return gin.H{"status": "ready"}, h.readiness.Ready(c.Request.Context())
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
	c.Header("Content-Type", "application/yaml")
	c.Header("Cache-Control", "no-cache")
	write(c, http.StatusOK, openAPI)
}
