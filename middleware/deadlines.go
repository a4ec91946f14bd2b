package middleware

import (
	"net/http"
	"time"

	"github.com/gin-gonic/gin"
)

// LongPolls lifts the deadlines that http.Server's ReadTimeout and WriteTimeout
// have set for the request: a poll takes as long as it takes. The one for
// reading stays when there is a body, until whoever wants it sets another:
// net/http reads even a body that no handler wants before it answers.
func LongPolls() gin.HandlerFunc {
	return func(c *gin.Context) {
		control := http.NewResponseController(c.Writer)
		// Only writers that are no connections refuse, and those do not wait.
		_ = control.SetWriteDeadline(time.Time{})
		if c.Request.ContentLength == 0 {
			_ = control.SetReadDeadline(time.Time{})
		}
	}
}
