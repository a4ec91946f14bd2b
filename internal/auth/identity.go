package auth

import "time"

// Identity is what a verified token says about its bearer.
type Identity struct {
	UserID    string    // satisfies events.CheckUserID
	Tenant    string    // value of the tenant claim; "" when there is none
	ExpiresAt time.Time // never zero: tokens without an expiry are refused
}

// The codes of a [Refusal]. They are part of the contract with frontends.
const (
	CodeTokenMissing   = "token_missing"    // no token was sent
	CodeTokenMalformed = "token_malformed"  // not a JWT at all, or longer than MaxTokenLen
	CodeTokenExpired   = "token_expired"    // a genuine token whose time is over
	CodeTokenNotActive = "token_not_active" // a genuine token whose time has not come
	CodeTokenInvalid   = "token_invalid"    // anything else: signature, algorithm, issuer, audience, user
)

// Refusal says why a token was not accepted. Both fields are safe to show to
// whoever sent the token.
type Refusal struct {
	Code    string // one of the Code constants
	Message string // one sentence for a developer
}

// Error is the code and the message.
func (r *Refusal) Error() string { return r.Code + ": " + r.Message }
