package auth

import "time"

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
