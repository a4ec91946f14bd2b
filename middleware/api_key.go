package middleware

import (
	"net/http"

	"github.com/gin-gonic/gin"

	"jobwire/internal/auth"
)

// KeyLookup knows the API keys of workers. Lookup compares in constant time
// and tells the name of the key, which is no secret.
type KeyLookup interface {
	Lookup(key string) (name string, ok bool)
}

// APIKey lets only requests pass that carry a known API key, as a bearer
// token or in X-API-Key; a bearer token wins when there are both.
func APIKey(keys KeyLookup, refuse Refuse) gin.HandlerFunc {
	return func(c *gin.Context) {
		key := apiKey(c.Request)
		if key == "" {
			c.Header("WWW-Authenticate", `Bearer realm="jobwire"`)
			refuse(c, CodeAPIKeyMissing)
			return
		}
		if _, ok := keys.Lookup(key); !ok {
			c.Header("WWW-Authenticate", `Bearer realm="jobwire", error="invalid_token"`)
			refuse(c, CodeAPIKeyInvalid)
			return
		}
	}
}

// apiKey is the key that a request carries; "" when there is none.
func apiKey(r *http.Request) string {
	// Another scheme, such as the Basic of a proxy in front, must not hide an
	// X-API-Key.
	if key, ok := auth.ParseBearer(r.Header.Get("Authorization")); ok {
		return key
	}
	return r.Header.Get("X-Api-Key")
}
