package config

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
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

// String writes the size in the largest unit that divides it.
func (s Size) String() string {
	for _, unit := range sizeUnits[:3] {
		if s >= unit.bytes && s%unit.bytes == 0 {
			return strconv.FormatInt(int64(s/unit.bytes), 10) + unit.suffix
		}
	}
	return strconv.FormatInt(int64(s), 10) + "B"
}

func parseSize(text string) (Size, error) {
	for _, unit := range sizeUnits {
		digits, ok := strings.CutSuffix(text, unit.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
		if err != nil || n < 0 || Size(n) > (1<<62)/unit.bytes {
			break
		}
		return Size(n) * unit.bytes, nil
	}
	return 0, errors.New("is not a size; write it like 65536, 64KiB or 4MiB")
}

// parse reads text into target, which points to one of the types that a
// setting can have. Its errors complete the sentence "the value …" and quote
// nothing.
func parse(target any, text string) (err error) {
	switch target := target.(type) {
	case *string:
		*target = text
	case *Secret:
		*target = Secret(text)
	case *bool:
		if *target, err = strconv.ParseBool(text); err != nil {
			return errors.New("is neither true nor false")
		}
	case *int:
		if *target, err = strconv.Atoi(text); err != nil {
			return errors.New("is not a whole number")
		}
	case *time.Duration:
		if *target, err = time.ParseDuration(text); err != nil {
			return errors.New("is not a duration; write it like 500ms, 25s or 24h")
		}
	case *Size:
		*target, err = parseSize(text)
	case *slog.Level:
		*target, err = parseLevel(text)
	case *[]string:
		*target = split(text)
	case *[]Secret:
		*target, err = parseSecrets(text)
	case *[]auth.Key:
		if *target, err = auth.ParseKeys(text); err != nil {
			return errors.New("is not usable: " + strings.ReplaceAll(err.Error(), "\n", "; "))
		}
	case *[]netip.Prefix:
		*target, err = parsePrefixes(text)
	default:
		panic(fmt.Sprintf("config: no setting can be a %T", target))
	}
	return err
}

// format is the opposite of parse, with secrets hidden.
func format(target any) string {
	switch target := target.(type) {
	case *string:
		return *target
	case *Secret:
		return ifAny(*target != "", hidden)
	case *time.Duration:
		return shortDuration(*target)
	case *slog.Level:
		return strings.ToLower(target.String())
	case *[]string:
		return strings.Join(*target, ",")
	case *[]Secret:
		return ifAny(len(*target) > 0, fmt.Sprintf("%s (%d)", hidden, len(*target)))
	case *[]auth.Key:
		var parts []string
		for _, key := range *target {
			parts = append(parts, key.Name+"="+hidden)
		}
		return strings.Join(parts, ",")
	case *[]netip.Prefix:
		var parts []string
		for _, prefix := range *target {
			parts = append(parts, prefix.String())
		}
		return strings.Join(parts, ",")
	case *bool:
		return strconv.FormatBool(*target)
	case *int:
		return strconv.Itoa(*target)
	case *Size:
		return target.String()
	}
	panic(fmt.Sprintf("config: no setting can be a %T", target))
}

func ifAny(any bool, text string) string {
	if any {
		return text
	}
	return ""
}

// shortDuration is 24h where time.Duration writes 24h0m0s.
func shortDuration(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
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

func parseLevel(text string) (slog.Level, error) {
	switch text {
	case "debug":
		return slog.LevelDebug, nil
	case "info":
		return slog.LevelInfo, nil
	case "warn":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	}
	return 0, errors.New("is not one of debug, info, warn, error")
}

func parsePrefixes(text string) ([]netip.Prefix, error) {
	var prefixes []netip.Prefix
	for _, part := range split(text) {
		prefix, err := netip.ParsePrefix(part)
		switch {
		case err != nil:
			addr, addrErr := netip.ParseAddr(part)
			if addrErr != nil || addr.Zone() != "" {
				return nil, fmt.Errorf("has %q, which is neither an address nor a network; write it like 10.0.0.0/8,192.0.2.7", part)
			}
			addr = addr.Unmap()
			prefix = netip.PrefixFrom(addr, addr.BitLen())
		case prefix.Addr().Is4In6():
			// Peers are compared as IPv4 however they came, and no network of the longer form holds one of those.
			const mapped = 96 // bits before the IPv4 address
			if prefix.Bits() < mapped {
				return nil, fmt.Errorf("has %q, which is more than the IPv4 addresses; write it like 10.0.0.0/8", part)
			}
			prefix = netip.PrefixFrom(prefix.Addr().Unmap(), prefix.Bits()-mapped)
		}
		prefixes = append(prefixes, prefix.Masked())
	}
	return prefixes, nil
}

// normalizeOrigin writes an origin as browsers do: lower case, and without
// the port that the scheme implies.
func normalizeOrigin(origin string) (string, error) {
	u, err := url.Parse(origin)
	switch {
	case origin == "*":
		return origin, nil
	case err != nil || u.Scheme == "" || u.Hostname() == "" || u.Opaque != "":
		return "", fmt.Errorf("has %q, which is no origin; write it like https://app.example.com", origin)
	case strings.Contains(u.Host, "*"):
		return "", fmt.Errorf("has %q; name every origin, or * alone for all", origin)
	case u.Path != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil || strings.ContainsAny(origin, "?#"):
		return "", fmt.Errorf("has %q; an origin ends after host and port", origin)
	}
	scheme, host := strings.ToLower(u.Scheme), strings.ToLower(u.Host)
	switch {
	case scheme == "http":
		host = strings.TrimSuffix(host, ":80")
	case scheme == "https":
		host = strings.TrimSuffix(host, ":443")
	}
	return scheme + "://" + host, nil
}
