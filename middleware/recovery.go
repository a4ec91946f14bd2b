package middleware

import (
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"

	"github.com/gin-gonic/gin"
)

// Recovery turns a panic of a handler into the answer `internal` and a log
// line with the stack. When an answer is already under way, or the connection
// was hijacked, nothing more may be written: the request is aborted instead,
// which closes the connection unless someone else owns it by now.
// http.ErrAbortHandler passes through, as net/http wants it.
func Recovery(log *slog.Logger, refuse Refuse) gin.HandlerFunc {
	return func(c *gin.Context) {
		defer func() {
			reason := recover()
			if reason == nil {
				return
			}
			if reason == http.ErrAbortHandler { //nolint:errorlint // net/http compares it the same way
				panic(reason)
			}
			log.LogAttrs(c.Request.Context(), slog.LevelError, "handler panicked",
				slog.String("panic", fmt.Sprint(reason)),
				slog.String("method", c.Request.Method),
				slog.String("route", routeOf(c)),
				slog.String("requestId", RequestID(c)),
				slog.String("stack", string(debug.Stack())),
			)
			c.Abort()
			if c.Writer.Written() {
				panic(http.ErrAbortHandler)
			}
			refuse(c, CodeInternal)
		}()
		c.Next()
	}
}
