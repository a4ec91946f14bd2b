package handlers

import (
	"context"
	"encoding/json"
	"errors"
	"testing"

	"jobwire/internal/auth"
	"jobwire/internal/realtime"
	"jobwire/middleware"
)

// recorder refuses every token, and remembers it.
type recorder struct{ token string }

func (r *recorder) Verify(_ context.Context, token string) (auth.Identity, error) {
	r.token = token
	return auth.Identity{}, errors.New("refused")
}

// However a client writes its token, a handshake and `authenticate` read the same.
func TestTokensAreReadAlike(t *testing.T) {
	for sent, want := range map[string]string{
		"a.b.c":        "a.b.c",
		"Bearer a.b.c": "a.b.c",
		"bearer a.b.c": "a.b.c",
		"BEARER ":      "",
		"Bearer":       "Bearer",
		"Basic a.b.c":  "Basic a.b.c",
		"":             "",
	} {
		handshake, refresh := new(recorder), new(recorder)
		payload, err := json.Marshal(tokenPayload{sent})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := middleware.SocketAuth(handshake)(realtime.Handshake{Auth: payload}); err == nil {
			t.Errorf("%q: let in", sent)
		}
		if _, err := refreshToken(refresh)(t.Context(), nil, tokenPayload{sent}); err == nil {
			t.Errorf("%q: refreshed", sent)
		}
		if handshake.token != want || refresh.token != want {
			t.Errorf("%q: a handshake reads %q, authenticate %q, want %q", sent, handshake.token, refresh.token, want)
		}
	}
}
