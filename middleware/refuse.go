package middleware

import (
	"net/http"
	"strconv"

	"github.com/gin-gonic/gin"
)

// Refuse ends a request with the answer that the catalogue of error codes has
// for code, and aborts the chain.
type Refuse func(c *gin.Context, code string)

// The codes with which this package refuses.
const (
	CodeAPIKeyMissing   = "api_key_missing"
	CodeAPIKeyInvalid   = "api_key_invalid"
	CodeOriginForbidden = "origin_forbidden"
	CodeRateLimited     = "rate_limited"
	CodeInternal        = "internal"
)

// engineForbidden is Engine.IO's own number for "Forbidden", the one that the
// official server also uses for refusals with a message of their own.
const engineForbidden = 4

// refuseEngine answers as an Engine.IO server refuses a request: clients show
// the message, and nothing else, in their connect_error. The message is plain
// ASCII.
func refuseEngine(c *gin.Context, status int, message string) {
	body := make([]byte, 0, 64)
	body = append(body, `{"code":`...)
	body = strconv.AppendInt(body, engineForbidden, 10)
	body = append(body, `,"message":`...)
	body = strconv.AppendQuote(body, message)
	body = append(body, '}')
	c.Abort()
	c.Header("Content-Type", "application/json")
	c.Header("Content-Length", strconv.Itoa(len(body)))
	c.Status(status)
	if c.Request.Method == http.MethodHead {
		c.Writer.WriteHeaderNow()
		return
	}
	_, _ = c.Writer.Write(body) // the client is gone: nobody is left to tell
}
