package auth

import "strings"

// ParseBearer takes the credential out of the value of an Authorization
// header (RFC 6750). It reports false for every other scheme, for an empty
// credential and for one with spaces in it.
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
