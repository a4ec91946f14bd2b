// Package auth decides who is speaking: it verifies the tokens of users ([Verifier]) and knows the
// API keys of workers ([Keys]).
//
// In flow strings that clients and workers sent; out flow an [Identity], the name of a key, or an [*events.Error]. The package
// knows neither HTTP nor sockets, and never puts a token or a key into an error.
package auth

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/golang-jwt/jwt/v5"

	"jobwire/internal/events"
)

// Identity is what a verified token says about its bearer.
type Identity struct {
	UserID    string    // satisfies events.CheckUserID
	Tenant    string    // value of the tenant claim; "" when there is none
	ExpiresAt time.Time // never zero: tokens without an expiry are refused
}

// The codes of the [*events.Error] of a token that is not accepted. They are part of the contract with frontends.
const (
	CodeTokenMissing   = "token_missing"    // no token was sent
	CodeTokenMalformed = "token_malformed"  // not a JWT at all, or longer than MaxTokenLen
	CodeTokenExpired   = "token_expired"    // a genuine token whose time is over
	CodeTokenNotActive = "token_not_active" // a genuine token whose time has not come
	CodeTokenInvalid   = "token_invalid"    // anything else: signature, algorithm, issuer, audience, user
)

const (
	// MinSecretLen is how many bytes an HMAC secret has at least.
	MinSecretLen = 32
	// MaxTokenLen is how many bytes of a token are looked at, at most.
	MaxTokenLen = 8 << 10
	// DefaultUserClaim is the claim that names the user.
	DefaultUserClaim = "sub"
	// leeway is how far an issuer's clock may be ahead of ours, for nbf and iat.
	leeway = 30 * time.Second
)

// latestTime keeps times inside what RFC 3339 can write, the end of 9999 in Unix seconds. Tokens with an exp beyond it exist:
// some issuers count milliseconds.
const latestTime = 253402300799.0

// VerifierConfig says which tokens are accepted.
type VerifierConfig struct {
	Secrets     [][]byte         // for HS256, HS384, HS512; required; any of them may match, Mint uses the first
	UserClaim   string           // claim with the user id, a string or an integer; default "sub"
	TenantClaim string           // claim with the tenant, a string or an integer; none when empty
	Issuer      string           // required value of iss; not checked when empty
	Audience    []string         // aud must hold one of them; not checked when empty
	Now         func() time.Time // default time.Now
}

func (cfg VerifierConfig) withDefaults() (VerifierConfig, error) {
	if len(cfg.Secrets) == 0 {
		return cfg, errors.New("no secret to verify tokens with")
	}
	for i, secret := range cfg.Secrets {
		if len(secret) < MinSecretLen {
			return cfg, fmt.Errorf("secret %d has %d bytes, want at least %d", i+1, len(secret), MinSecretLen)
		}
	}
	cfg.UserClaim = cmp.Or(cfg.UserClaim, DefaultUserClaim)
	for _, claim := range []string{cfg.UserClaim, cfg.TenantClaim} {
		if HasMeaning(claim) {
			return cfg, fmt.Errorf("claim %q can name neither user nor tenant", claim)
		}
	}
	if cfg.UserClaim == cfg.TenantClaim {
		return cfg, fmt.Errorf("claim %q names both user and tenant", cfg.UserClaim)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return cfg, nil
}

// HasMeaning reports whether a claim says something of its own (RFC 7519), and so can name neither user nor tenant.
func HasMeaning(claim string) bool {
	return slices.Contains([]string{"exp", "iat", "nbf", "iss", "aud"}, claim)
}

// Verifier verifies the tokens of users. It is safe for concurrent use.
type Verifier struct {
	cfg     VerifierConfig
	parser  *jwt.Parser
	secrets jwt.VerificationKeySet // any of them may match
}

// NewVerifier fails when a secret is missing or has fewer than MinSecretLen bytes.
func NewVerifier(cfg VerifierConfig) (*Verifier, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	v := &Verifier{cfg: cfg}
	for _, secret := range cfg.Secrets {
		v.secrets.Keys = append(v.secrets.Keys, secret)
	}
	v.parser = jwt.NewParser(
		// Another algorithm is refused before a secret is tried: a public key can thus never pass for one.
		jwt.WithValidMethods([]string{"HS256", "HS384", "HS512"}),
		jwt.WithExpirationRequired(),
		jwt.WithIssuedAt(),
		jwt.WithLeeway(leeway),
		jwt.WithTimeFunc(cfg.Now),
		jwt.WithStrictDecoding(),
		jwt.WithIssuer(cfg.Issuer),
		jwt.WithAudience(cfg.Audience...),
	)
	return v, nil
}

// Verify returns who the bearer of token is, or an *events.Error. The context bounds what a verification may wait for.
//
// The expiry has no leeway: a connection ends at exactly that moment, and a token that could still open a new one would have
// its client come back in circles.
func (v *Verifier) Verify(_ context.Context, token string) (Identity, error) {
	switch {
	case token == "":
		return Identity{}, refuse(CodeTokenMissing, "no token was sent")
	case len(token) > MaxTokenLen:
		return Identity{}, refuse(CodeTokenMalformed, "the token is too long")
	case strings.ContainsAny(token, "\r\n"): // base64 decoders skip them: one token would have many spellings
		return Identity{}, refuse(CodeTokenMalformed, "the token has line breaks")
	}
	var claims claimSet
	parsed, err := v.parser.ParseWithClaims(token, &claims, func(*jwt.Token) (any, error) { return v.secrets, nil })
	if err != nil {
		return Identity{}, refusalFor(err)
	}
	// RFC 7515, 4.1.11: extensions that a token calls critical must be understood, and we understand none.
	if _, critical := parsed.Header["crit"]; critical {
		return Identity{}, invalid("the token requires extensions that are not supported")
	}
	return v.identity(claims)
}

func (v *Verifier) identity(claims claimSet) (Identity, error) {
	expiry, err := claims.GetExpirationTime()
	if err != nil || expiry == nil {
		return Identity{}, invalid("the token has no usable exp")
	}
	if !v.cfg.Now().Before(expiry.Time) {
		return Identity{}, expired()
	}
	id := Identity{ExpiresAt: expiry.UTC()}
	var ok bool
	if id.UserID, ok = label(claims.MapClaims[v.cfg.UserClaim]); !ok {
		return Identity{}, invalid("the token names no usable user")
	}
	if tenant := claims.MapClaims[v.cfg.TenantClaim]; v.cfg.TenantClaim != "" && tenant != nil && tenant != "" {
		if id.Tenant, ok = label(tenant); !ok {
			return Identity{}, invalid("the token names no usable tenant")
		}
	}
	return id, nil
}

// claimSet are the claims of a token. Its times are numbers of any size and with any fraction (RFC 7519, section 2).
type claimSet struct{ jwt.MapClaims }

// UnmarshalJSON gets one whole value. A decoder of the parser's own would not look at what follows it.
func (c *claimSet) UnmarshalJSON(text []byte) error {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber() // user ids may be integers beyond 2^53
	return decoder.Decode(&c.MapClaims)
}

// GetExpirationTime implements jwt.Claims.
func (c claimSet) GetExpirationTime() (*jwt.NumericDate, error) { return c.date("exp") }

// GetNotBefore implements jwt.Claims.
func (c claimSet) GetNotBefore() (*jwt.NumericDate, error) { return c.date("nbf") }

// GetIssuedAt implements jwt.Claims.
func (c claimSet) GetIssuedAt() (*jwt.NumericDate, error) { return c.date("iat") }

// date is the time of a claim, nil when there is none. What is beyond the years 1 to 9999 becomes their end.
func (c claimSet) date(claim string) (*jwt.NumericDate, error) {
	value, has := c.MapClaims[claim]
	if !has {
		return nil, nil //nolint:nilnil // as jwt.Claims asks
	}
	number, _ := value.(json.Number)
	seconds, err := number.Float64()
	if err != nil { // it is none, or one that nobody counts to
		return nil, fmt.Errorf("%s is no time: %w", claim, jwt.ErrInvalidType)
	}
	whole, fraction := math.Modf(max(-latestTime, min(seconds, latestTime)))
	return &jwt.NumericDate{Time: time.Unix(int64(whole), int64(fraction*1e9))}, nil
}

// label reads a claim that is a string or an integer of any size, and can name a user.
func label(claim any) (text string, ok bool) {
	switch value := claim.(type) {
	case string:
		// The decoder puts this rune where the text was not Unicode, and then two users could have one id.
		text, ok = value, !strings.ContainsRune(value, utf8.RuneError)
	case json.Number:
		text, ok = value.String(), value != "-0" && !strings.ContainsAny(value.String(), ".eE")
	}
	return text, ok && events.CheckUserID(text) == nil
}

// refusalFor turns what the parser says into a code. Whatever makes a token
// not genuine, or not meant for us, is told before its times.
func refusalFor(err error) *events.Error {
	switch {
	case errors.Is(err, jwt.ErrTokenMalformed):
		return refuse(CodeTokenMalformed, "the token is not a JWT")
	case errors.Is(err, jwt.ErrTokenUnverifiable), errors.Is(err, jwt.ErrTokenSignatureInvalid):
		return invalid("the token's signature or algorithm is not accepted")
	case errors.Is(err, jwt.ErrTokenRequiredClaimMissing):
		return invalid("the token lacks a required claim")
	case errors.Is(err, jwt.ErrTokenInvalidIssuer):
		return invalid("the token has another issuer")
	case errors.Is(err, jwt.ErrTokenInvalidAudience):
		return invalid("the token is for another audience")
	case errors.Is(err, jwt.ErrInvalidType):
		return invalid("a claim of the token has the wrong type")
	case errors.Is(err, jwt.ErrTokenExpired):
		return expired()
	case errors.Is(err, jwt.ErrTokenNotValidYet), errors.Is(err, jwt.ErrTokenUsedBeforeIssued):
		return refuse(CodeTokenNotActive, "the token is not valid yet")
	}
	return invalid("the token is not accepted")
}

func expired() *events.Error { return refuse(CodeTokenExpired, "the token has expired") }

func invalid(detail string) *events.Error { return refuse(CodeTokenInvalid, detail) }

func refuse(code, detail string) *events.Error { return &events.Error{Code: code, Detail: detail} }
