package config

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"jobwire/internal/auth"
)

// hidden stands for a secret wherever values are shown.
const hidden = "[hidden]"

// Secret is a value that no log, error or dump shows.
type Secret string

// String hides the secret; convert to string or []byte to use it.
func (Secret) String() string { return hidden }

// GoString hides the secret.
func (Secret) GoString() string { return hidden }

// MarshalText hides the secret.
func (Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// Size is a number of bytes.
type Size int64

// The units that sizes are written in.
const (
	KiB Size = 1 << 10
	MiB Size = 1 << 20
	GiB Size = 1 << 30
)

var sizeUnits = []struct {
	suffix string
	bytes  Size
}{{"GiB", GiB}, {"MiB", MiB}, {"KiB", KiB}, {"GB", 1e9}, {"MB", 1e6}, {"KB", 1e3}, {"B", 1}, {"", 1}}

func parseSize(text string) (Size, error) {
	for _, unit := range sizeUnits {
		if digits, ok := strings.CutSuffix(text, unit.suffix); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
			if err != nil || n < 0 || Size(n) > (1<<62)/unit.bytes {
				break
			}
			return Size(n) * unit.bytes, nil
		}
	}
	return 0, strconv.ErrSyntax
}

// parse reads text into target, which points to one of the types that a setting can have. Its errors
// complete a sentence that begins with the key, and quote nothing secret.
func parse(target any, text string) (err error) {
	var is string
	switch target := target.(type) {
	case *string:
		*target = text
	case *Secret:
		*target = Secret(text)
	case *bool:
		*target, err = strconv.ParseBool(text)
		is = "neither true nor false"
	case *int:
		*target, err = strconv.Atoi(text)
		is = "not a whole number"
	case *time.Duration:
		*target, err = time.ParseDuration(text)
		is = "not a duration; write it like 500ms, 25s or 24h"
	case *Size:
		*target, err = parseSize(text)
		is = "not a size; write it like 65536, 64KiB or 4MiB"
	case *slog.Level:
		err = target.UnmarshalText([]byte(text))
		is = "not one of debug, info, warn, error"
	case *[]string:
		*target = split(text)
	case *[]netip.Prefix:
		for _, part := range split(text) {
			prefix, err := parsePrefix(part)
			if err != nil {
				return err
			}
			*target = append(*target, prefix)
		}
	case *[]Secret:
		*target, err = parseSecrets(text)
		return err
	case *[]auth.Key:
		if *target, err = auth.ParseKeys(text); err != nil {
			return errors.New("is not usable: " + strings.ReplaceAll(err.Error(), "\n", "; "))
		}
	default:
		panic(fmt.Sprintf("config: no setting can be a %T", target))
	}
	if err != nil {
		return fmt.Errorf("is %.60q, which is %s", text, is)
	}
	return nil
}

// split reads a comma-separated list; spaces around its parts mean nothing.
func split(text string) []string {
	var parts []string
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part != "" {
			parts = append(parts, part)
		}
	}
	return parts
}

// parseSecrets does not trim: what signs the tokens may count every byte.
func parseSecrets(text string) ([]Secret, error) {
	var secrets []Secret
	for i, part := range strings.Split(text, ",") {
		switch {
		case part != strings.TrimSpace(part):
			return nil, fmt.Errorf("has spaces around secret %d; secrets are separated by a comma alone", i+1)
		case len(part) < auth.MinSecretLen:
			return nil, fmt.Errorf("is too weak: secret %d has %d bytes, want at least %d; try: openssl rand -hex 32", i+1, len(part), auth.MinSecretLen)
		}
		secrets = append(secrets, Secret(part))
	}
	return secrets, nil
}

// parsePrefix reads a network or an address. Peers are compared as IPv4 where they have such an
// address, so networks within ::ffff:0:0/96 become IPv4 too.
func parsePrefix(text string) (netip.Prefix, error) {
	prefix, err := netip.ParsePrefix(text)
	if addr, addrErr := netip.ParseAddr(text); addrErr == nil && addr.Zone() == "" {
		prefix, err = netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	const mapped = 96 // bits before the IPv4 address
	switch {
	case err != nil:
		return prefix, fmt.Errorf("has %.60q, which is neither an address nor a network; write it like 10.0.0.0/8,192.0.2.7", text)
	case !prefix.Addr().Is4In6():
		return prefix.Masked(), nil
	case prefix.Bits() < mapped:
		return prefix, fmt.Errorf("has %.60q, which is more than the IPv4 addresses; write it like 10.0.0.0/8", text)
	}
	return netip.PrefixFrom(prefix.Addr().Unmap(), prefix.Bits()-mapped).Masked(), nil
}
