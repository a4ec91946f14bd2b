package middleware

import (
	"encoding/hex"
	"math/rand/v2"

	"github.com/gin-gonic/gin"
)

const (
	requestIDHeader = "X-Request-Id"
	maxRequestIDLen = 64
)

// AssignRequestID gives every request an id: the one in its X-Request-Id header
// when that is 1 to 64 letters, digits or ._-, else a random one. The answer
// carries it in the same header.
func AssignRequestID() gin.HandlerFunc {
	return func(c *gin.Context) {
		id := c.Request.Header.Get(requestIDHeader)
		if !saneRequestID(id) {
			id = newRequestID()
		}
		c.Writer.Header()[requestIDHeader] = []string{id}
	}
}

// RequestID is the id of the request; "" where [AssignRequestID] is not in use.
func RequestID(c *gin.Context) string { return c.Writer.Header().Get(requestIDHeader) }

// saneRequestID keeps out what could break a log line or pretend to be more
// than an id.
func saneRequestID(id string) bool {
	if id == "" || len(id) > maxRequestIDLen {
		return false
	}
	for i := range len(id) {
		c := id[i]
		letter := 'a' <= c|0x20 && c|0x20 <= 'z'
		if !letter && (c < '0' || c > '9') && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

// newRequestID is 96 random bits: enough never to meet twice in one log. It
// guards nothing, so it needs no system call.
func newRequestID() string {
	var raw [12]byte
	high, low := rand.Uint64(), rand.Uint32()
	for i := range 8 {
		raw[i] = byte(high >> (8 * i))
	}
	for i := range 4 {
		raw[8+i] = byte(low >> (8 * i))
	}
	var text [2 * len(raw)]byte
	hex.Encode(text[:], raw[:])
	return string(text[:])
}
