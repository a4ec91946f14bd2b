package middleware

import (
	"net/http"
	"time"

	"github.com/gin-gonic/gin"
)

// Deadlines bounds how long a client may take to send its request, and how
// long after that to take its answer. A zero duration is no limit, and it also lifts the limit that an
// earlier request on the same connection has left: net/http resets the one for
// reading by itself, but never the one for writing. So every group of routes
// needs this, the group of long polls with zeros.
//
// Who reads a body to its end and then works for long lifts the limit for
// reading; otherwise its end would look like the client's leaving.
func Deadlines(read, write time.Duration) gin.HandlerFunc {
	at := func(d time.Duration) time.Time {
		if d <= 0 {
			return time.Time{}
		}
		return time.Now().Add(d)
	}
	if write > 0 {
		write += max(read, 0) // even the refusal of a late body must get out
	}
	return func(c *gin.Context) {
		control := http.NewResponseController(c.Writer)
		// Only writers that are no connections refuse, and those do not wait.
		_ = control.SetReadDeadline(at(read))
		_ = control.SetWriteDeadline(at(write))
	}
}

// BodyDeadline bounds how long a client may take to send its body, if there
// is one. net/http reads even those that no handler wants before it answers,
// and without a deadline it would wait for them for ever.
func BodyDeadline(limit time.Duration) gin.HandlerFunc {
	return func(c *gin.Context) {
		if c.Request.ContentLength != 0 {
			_ = http.NewResponseController(c.Writer).SetReadDeadline(time.Now().Add(limit))
		}
	}
}
