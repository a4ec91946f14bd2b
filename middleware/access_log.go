package middleware

import (
	"log/slog"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"
)

// AccessLog writes one line a request: method, route template, status, bytes,
// duration, request id, the name of the worker's key, and the errors that
// handlers attached with c.Error. Never a path, a query, an address or a body,
// since those name users.
//
// The level follows the status. 500 and up are errors, but 503 is a warning.
// What a worker did wrong (400, 413, …) is information. All else, that is
// successes and whatever a stranger can cause at will (401, 403, 404, 405,
// 429), has the level ordinary: at slog.LevelDebug, with a logger at
// slog.LevelInfo, the hot path builds no line at all.
func AccessLog(log *slog.Logger, ordinary slog.Level, keys KeyLookup) gin.HandlerFunc {
	return func(c *gin.Context) {
		start := time.Now()
		// Deferred, since an aborted request leaves as a panic.
		completed := false
		defer func() {
			status := statusOf(c)
			level := accessLevel(status, ordinary)
			if len(c.Errors) > 0 {
				level = max(level, slog.LevelWarn) // an item of a batch may fail within a 200
			}
			ctx := c.Request.Context()
			if !log.Enabled(ctx, level) {
				return
			}
			attrs := make([]slog.Attr, 0, 10)
			attrs = append(attrs,
				slog.String("method", c.Request.Method),
				slog.String("route", routeOf(c)),
				slog.Int("status", status),
				slog.Int("bytes", max(c.Writer.Size(), 0)),
				slog.Duration("duration", time.Since(start)),
				slog.String("requestId", RequestID(c)),
			)
			if name, ok := keys.Lookup(apiKey(c.Request)); ok {
				attrs = append(attrs, slog.String("key", name))
			}
			if len(c.Errors) > 0 {
				attrs = append(attrs, slog.Any("error", c.Errors.Last().Err))
			}
			if !completed {
				attrs = append(attrs, slog.Bool("aborted", true))
			}
			log.LogAttrs(ctx, level, "request", attrs...)
		}()
		c.Next()
		completed = true
	}
}

func accessLevel(status int, ordinary slog.Level) slog.Level {
	switch {
	case status == http.StatusServiceUnavailable:
		return slog.LevelWarn
	case status >= 500:
		return slog.LevelError
	case status < 400:
		return ordinary
	}
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound,
		http.StatusMethodNotAllowed, http.StatusTooManyRequests:
		return ordinary
	}
	return slog.LevelInfo
}

// routeOf is the template of the matched route: the path itself names users,
// and strangers choose it.
func routeOf(c *gin.Context) string {
	if route := c.FullPath(); route != "" {
		return route
	}
	return "unmatched"
}

// statusOf is the status that the client saw. Who takes over a connection for
// a websocket answers by itself, which Gin's writer takes for an empty 200.
func statusOf(c *gin.Context) int {
	status := c.Writer.Status()
	if status == http.StatusOK && c.Writer.Size() == 0 && c.IsWebsocket() {
		return http.StatusSwitchingProtocols
	}
	return status
}
