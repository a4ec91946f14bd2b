package auth

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"strings"
)

// MinKeyLen is how many bytes an API key has at least.
const MinKeyLen = 24

// maxKeyNameLen bounds the name of a key, which goes into logs and metrics.
const maxKeyNameLen = 64

// Key is an API key of workers and the name by which logs know it.
type Key struct {
	Name, Secret string
}

// String is the name of the key. The key itself stays out of logs.
func (k Key) String() string { return k.Name }

// GoString is like String.
func (k Key) GoString() string { return k.Name }

// MarshalText is like String.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.Name), nil }

// ParseKeys reads "name=key,name=key". Spaces around the parts are ignored; a key may contain '='. Every bad part is reported,
// none is quoted: it could be a key whose name was forgotten.
func ParseKeys(list string) ([]Key, error) {
	var keys []Key
	var errs []error
	for i, part := range strings.Split(list, ",") {
		name, secret, found := strings.Cut(part, "=")
		key := Key{Name: strings.TrimSpace(name), Secret: strings.TrimSpace(secret)}
		if !found {
			errs = append(errs, fmt.Errorf("part %d is not name=key", i+1))
			continue
		}
		keys = append(keys, key)
	}
	if err := errors.Join(append(errs, checkKeys(keys))...); err != nil {
		return nil, err
	}
	return keys, nil
}

func checkKeys(keys []Key) error {
	var errs []error
	names, secrets := map[string]bool{}, map[string]bool{}
	for i, key := range keys {
		switch {
		case !isKeyName(key.Name):
			errs = append(errs, fmt.Errorf("part %d: a name has 1 to %d letters, digits or _.-", i+1, maxKeyNameLen))
			continue // what stands where a name should be could be a key
		case names[key.Name]:
			errs = append(errs, fmt.Errorf("two keys are named %q", key.Name))
		case len(key.Secret) < MinKeyLen:
			errs = append(errs, fmt.Errorf("key %q has %d bytes, want at least %d", key.Name, len(key.Secret), MinKeyLen))
		case !isBearer(key.Secret):
			errs = append(errs, fmt.Errorf("key %q has characters that no Authorization header carries; use ASCII without spaces", key.Name))
		case secrets[key.Secret]:
			errs = append(errs, fmt.Errorf("key %q repeats the value of one before", key.Name))
		}
		names[key.Name], secrets[key.Secret] = true, true
	}
	return errors.Join(errs...)
}

func isKeyName(name string) bool {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-"
	return name != "" && len(name) <= maxKeyNameLen && strings.Trim(name, letters) == ""
}

// isBearer reports whether a bearer header can carry the key: all of it is visible ASCII.
func isBearer(key string) bool {
	return !strings.ContainsFunc(key, func(r rune) bool { return r < '!' || r > '~' })
}

// Keys knows the API keys of workers, as hashes only. It is safe for concurrent use.
type Keys struct {
	entries []keyEntry
}

type keyEntry struct {
	name string
	sum  [sha256.Size]byte
}

// NewKeys fails when there is no key, when a name or a key is there twice, when a key has fewer than MinKeyLen bytes, and when
// no bearer header can carry it.
func NewKeys(keys []Key) (*Keys, error) {
	if len(keys) == 0 {
		return nil, errors.New("no API key")
	}
	if err := checkKeys(keys); err != nil {
		return nil, err
	}
	k := &Keys{}
	for _, key := range keys {
		k.entries = append(k.entries, keyEntry{key.Name, sha256.Sum256([]byte(key.Secret))})
	}
	return k, nil
}

// Lookup finds the name of a key. It takes the same time whichever key matches and whether or how far one does: hashes have one
// length, all are compared, and what matched is chosen without a branch.
func (k *Keys) Lookup(key string) (name string, ok bool) {
	sum := sha256.Sum256(append(make([]byte, 0, 128), key...)) // on the stack, as a conversion would not be
	found := -1
	for i := range k.entries {
		match := subtle.ConstantTimeCompare(sum[:], k.entries[i].sum[:])
		found = subtle.ConstantTimeSelect(match, i, found)
	}
	if found < 0 {
		return "", false
	}
	return k.entries[found].name, true
}

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
