package config

import (
	"cmp"
	"encoding/json"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"jobwire/internal/auth"
	"jobwire/internal/events"
)

// validate reports everything that is wrong with values that could be read.
func (cmd *Command) validate() []error {
	var problems []error
	for _, o := range slices.Concat(cmd.settings, cmd.own) {
		if cmd.reads(o) && !o.failed {
			if err := o.checkBounds(); err != nil {
				problems = append(problems, err)
				o.failed = true
			}
		}
	}
	// report is for checks by key: it keeps quiet about what the command does
	// not read and about what was reported already.
	byKey := index(slices.Concat(cmd.settings, cmd.own))
	report := func(key, detail string, args ...any) {
		if o := byKey[key]; o != nil && !o.failed && cmd.reads(o) {
			o.failed = true
			problems = append(problems, o.problem(detail, args...))
		}
	}
	cmd.checkListening(report)
	cmd.checkAuth(report)
	cmd.checkLimits(report)
	switch cmd.Name {
	case Token:
		cmd.checkToken(report)
	case Emit:
		cmd.checkEmit(report)
	}
	return problems
}

type reporter func(key, detail string, args ...any)

// checkBounds compares with min, max and enum.
func (o *option) checkBounds() error {
	if len(o.enum) > 0 && !slices.Contains(o.enum, format(o.target)) {
		return o.problem("is %s, want one of %s", o.quoted(), strings.Join(o.enum, ", "))
	}
	low, high := o.compare(o.min) < 0, o.compare(o.max) > 0
	switch {
	case !low && !high:
		return nil
	case o.min == "":
		return o.problem("is %s, want at most %s", format(o.target), o.max)
	}
	return o.problem("is %s, want %s to %s", format(o.target), o.min, o.max)
}

// compare compares the value with a bound, 0 when there is none.
func (o *option) compare(bound string) int {
	if bound == "" {
		return 0
	}
	switch value := o.target.(type) {
	case *int:
		return compareTo(*value, bound)
	case *time.Duration:
		return compareTo(*value, bound)
	case *Size:
		return compareTo(*value, bound)
	}
	panic("config: " + o.key + " has no order")
}

func compareTo[T cmp.Ordered](value T, bound string) int {
	var limit T
	if err := parse(&limit, bound); err != nil {
		panic("config: bound " + bound + " " + err.Error())
	}
	return cmp.Compare(value, limit)
}

func (cmd *Command) checkListening(report reporter) {
	s := &cmd.Settings
	host, port, err := net.SplitHostPort(s.Addr)
	switch _, portErr := strconv.ParseUint(port, 10, 16); {
	case err != nil || portErr != nil:
		report("addr", "is %q, which is no address; write it like :3000, 127.0.0.1:3000 or [::1]:3000", s.Addr)
	case s.Dev && !isLoopback(host):
		report("addr", "is %q, but --dev makes secrets for everybody and so must stay on this machine; use 127.0.0.1:%s, or leave out --dev", s.Addr, port)
	}
	if host, _, err := net.SplitHostPort(s.DebugAddr); s.DebugAddr != "" && (err != nil || !isLoopback(host)) {
		report("debug-addr", "is %q, which is no loopback address; profiles show what memory holds, so they stay on this machine", s.DebugAddr)
	}
	for i, origin := range s.Origins {
		normal, err := normalizeOrigin(origin)
		if err != nil {
			report("origins", "%v", err)
			continue
		}
		s.Origins[i] = normal
	}
	if slices.Contains(s.Origins, "*") && len(s.Origins) > 1 {
		report("origins", "has * beside others; * alone already allows all")
	}
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}

func (cmd *Command) checkAuth(report reporter) {
	s := &cmd.Settings
	if len(s.JWTSecrets) == 0 {
		report("jwt-secret", "is missing; set at least %d bytes, such as the output of: openssl rand -hex 32", auth.MinSecretLen)
	}
	if len(s.APIKeys) == 0 && cmd.Name != Emit {
		report("api-keys", "is missing; set name=key with at least %d characters, such as the output of: echo worker=$(openssl rand -hex 16)", auth.MinKeyLen)
	}
	for _, claim := range []struct{ key, name string }{{"jwt-user-claim", s.JWTUserClaim}, {"presence-tenant-claim", s.PresenceTenantClaim}} {
		switch claim.name {
		case "":
			report(claim.key, "is empty, want the name of a claim")
		case "exp", "iat", "nbf", "iss", "aud":
			report(claim.key, "is %q, which already has a meaning of its own", claim.name)
		}
	}
	if s.JWTUserClaim == s.PresenceTenantClaim {
		report("presence-tenant-claim", "is %q, which is the claim with the user id", s.PresenceTenantClaim)
	}
}

func (cmd *Command) checkLimits(report reporter) {
	s := &cmd.Settings
	if s.DataDir == "" {
		report("data-dir", "is empty; name a directory, or memory to keep nothing")
	}
	if s.RetentionBytes < s.MaxEventBytes {
		report("retention-bytes", "is %v, less than one event may have (max-event-bytes %v)", s.RetentionBytes, s.MaxEventBytes)
	}
	if s.MaxBatchBytes < s.MaxEventBytes {
		report("max-batch-bytes", "is %v, less than one event may have (max-event-bytes %v)", s.MaxBatchBytes, s.MaxEventBytes)
	}
	if s.MaxQueue < 2*s.MaxEventBytes {
		report("max-queue", "is %v, want at least twice max-event-bytes (%v), or a large event cuts off its receiver", s.MaxQueue, s.MaxEventBytes)
	}
}

func (cmd *Command) checkToken(report reporter) {
	if err := events.CheckUserID(cmd.Token.User); err != nil {
		report("user", "is no user id: 1 to %d bytes without control characters", events.MaxUserIDLen)
	}
	if tenant := cmd.Token.Tenant; tenant != "" && events.CheckUserID(tenant) != nil {
		report("tenant", "is too long or has control characters")
	}
}

func (cmd *Command) checkEmit(report reporter) {
	e := &cmd.Emit
	if err := events.CheckUserID(e.User); err != nil {
		report("user", "is no user id: 1 to %d bytes without control characters", events.MaxUserIDLen)
	}
	if err := events.CheckName(e.Event); err != nil {
		report("event", "is %q: %v", clip(e.Event), err)
	}
	if !json.Valid([]byte(e.Data)) {
		report("data", "is not valid JSON")
	}
	if e.IdempotencyKey != "" && events.CheckIdempotencyKey(e.IdempotencyKey) != nil {
		report("idempotency-key", "is too long or has control characters")
	}
	if e.APIKey == "" && len(cmd.Settings.APIKeys) > 0 {
		e.APIKey = Secret(cmd.Settings.APIKeys[0].Secret)
	}
	if e.APIKey == "" {
		report("api-key", "is missing, and there are no api-keys to take it from")
	}
	if e.URL == "" {
		e.URL = localURL(cmd.Settings.Addr)
	}
	e.URL = strings.TrimRight(e.URL, "/")
	if u, err := url.Parse(e.URL); err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		report("url", "is not a URL like http://127.0.0.1:3000")
	}
}

// localURL is where a server that listens on addr is reached from its own
// machine.
func localURL(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return ""
	}
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, port)
}
