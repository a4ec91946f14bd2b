package auth

import "strings"

// ParseBearer takes the credential out of the value of an Authorization header (RFC 6750). It reports false for every other
// scheme, for an empty credential and for one with spaces in it.
func ParseBearer(header string) (credential string, ok bool) {
	scheme, credential, found := strings.Cut(strings.Trim(header, " \t"), " ")
	if !found || !strings.EqualFold(scheme, "bearer") {
		return "", false
	}
	credential = strings.TrimLeft(credential, " ")
	if credential == "" || strings.ContainsAny(credential, " \t") {
		return "", false
	}
	return credential, true
}

// TrimBearer takes the scheme off a token that a client sent in a message:
// those that moved over from a header often keep it in front.
func TrimBearer(token string) string {
	if scheme, rest, ok := strings.Cut(token, " "); ok && strings.EqualFold(scheme, "bearer") {
		return rest
	}
	return token
}
