package middleware

import (
	"github.com/gin-gonic/gin"

	"jobwire/auth"
)

// KeyLookup knows the API keys of workers. Lookup compares in constant time
// and tells the name of the key, which is no secret.
type KeyLookup interface {
	Lookup(key string) (name string, ok bool)
}

// APIKey lets only requests pass that carry a known API key, as a bearer
// token or in X-API-Key; a bearer token wins when there are both. The key's
// name is then what [KeyName] tells. The key itself is kept nowhere.
func APIKey(keys KeyLookup, refuse Refuse) gin.HandlerFunc {
	return func(c *gin.Context) {
		// Another scheme, such as the Basic of a proxy in front, must not
		// hide an X-API-Key.
		key, ok := auth.ParseBearer(c.Request.Header.Get("Authorization"))
		if !ok {
			key = c.Request.Header.Get("X-Api-Key")
		}
		if key == "" {
			c.Header("WWW-Authenticate", `Bearer realm="jobwire"`)
			refuse(c, CodeAPIKeyMissing)
			return
		}
		name, ok := keys.Lookup(key)
		if !ok {
			c.Header("WWW-Authenticate", `Bearer realm="jobwire", error="invalid_token"`)
			refuse(c, CodeAPIKeyInvalid)
			return
		}
		factsOf(c).keyName = name
	}
}

// KeyName is the name of the API key that the request carried; "" before
// [APIKey] has accepted one.
func KeyName(c *gin.Context) string { return factsOf(c).keyName }
