package middleware

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/gin-gonic/gin"

	"jobwire/internal/auth"
	"jobwire/internal/events"
	"jobwire/internal/realtime"
)

// KeyLookup knows the API keys of workers. Lookup compares in constant time and tells the name of the key, which is no secret.
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
	// Another scheme, such as the Basic of a proxy in front, must not hide an X-API-Key.
	if key, ok := auth.ParseBearer(r.Header.Get("Authorization")); ok {
		return key
	}
	return r.Header.Get("X-Api-Key")
}

// TokenVerifier checks a user's token. The error is an [*events.Error] when the token is at fault.
type TokenVerifier interface {
	Verify(ctx context.Context, token string) (auth.Identity, error)
}

// SocketAuth decides who a connecting socket is: by `auth.token` of the Socket.IO handshake, or else by the bearer token of the
// request that opened the connection. The query string is never read, since it ends up in logs.
func SocketAuth(verifier TokenVerifier) func(realtime.Handshake) (auth.Identity, error) {
	return func(h realtime.Handshake) (auth.Identity, error) {
		token, err := handshakeToken(h)
		if err != nil {
			return auth.Identity{}, err
		}
		return verifier.Verify(context.Background(), token)
	}
}

func handshakeToken(h realtime.Handshake) (string, error) {
	malformed := func(detail string) (string, error) {
		return "", &events.Error{Code: auth.CodeTokenMalformed, Detail: detail}
	}
	var payload map[string]json.RawMessage // a struct would take TOKEN, too
	if len(h.Auth) > 0 && json.Unmarshal(h.Auth, &payload) != nil {
		return malformed("the handshake's auth is not an object")
	}
	var token *string
	if text, has := payload["token"]; has && json.Unmarshal(text, &token) != nil {
		return malformed("auth.token is not a string")
	}
	if token == nil {
		token, _ := auth.ParseBearer(h.Authorization)
		return token, nil
	}
	return auth.TrimBearer(*token), nil
}
