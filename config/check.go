package config

import (
	"cmp"
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"jobwire/internal/auth"
	"jobwire/internal/events"
)

// check reports what is wrong with values that could be read, and completes those of emit.
func (cmd *Command) check() {
	for _, o := range cmd.options {
		cmd.checkBounds(o)
	}
	s, a := &cmd.Settings, &cmd.Args

	host, port, err := net.SplitHostPort(s.Addr)
	_, portErr := strconv.ParseUint(port, 10, 16)
	cmd.require("addr", err == nil && portErr == nil, "is %.60q, which is no address; write it like :3000, 127.0.0.1:3000 or [::1]:3000", s.Addr)
	cmd.require("addr", !s.Dev || isLoopback(host), "is %.60q, but --dev shows its secrets and so must stay on this machine; use 127.0.0.1:%s, or leave out --dev", s.Addr, port)
	host, _, err = net.SplitHostPort(s.DebugAddr)
	cmd.require("debug-addr", s.DebugAddr == "" || err == nil && isLoopback(host), "is %.60q, which is no loopback address; profiles show what memory holds, so they stay on this machine", s.DebugAddr)
	for i, origin := range s.Origins {
		s.Origins[i], err = normalizeOrigin(origin)
		cmd.require("origins", err == nil, "has %.60q; %v", origin, err)
	}
	cmd.require("origins", len(s.Origins) < 2 || !slices.Contains(s.Origins, "*"), "has * beside others; * alone already allows all")

	cmd.require("jwt-secret", len(s.JWTSecrets) > 0, "is missing; set at least %d bytes, such as the output of: openssl rand -hex 32", auth.MinSecretLen)
	cmd.require("api-keys", len(s.APIKeys) > 0 || cmd.Name == Emit, "is missing; set name=key with at least %d characters, such as the output of: echo worker=$(openssl rand -hex 16)", auth.MinKeyLen)
	for _, key := range []string{"jwt-user-claim", "presence-tenant-claim"} {
		claim := cmd.byKey[key].raw
		cmd.require(key, claim != "", "is empty, want the name of a claim")
		cmd.require(key, !auth.HasMeaning(claim), "is %.60q, which already has a meaning of its own", claim)
	}
	cmd.require("presence-tenant-claim", s.PresenceTenantClaim != s.JWTUserClaim, "is %.60q, which is the claim with the user id", s.PresenceTenantClaim)

	cmd.require("data-dir", s.DataDir != "", "is empty; name a directory, or memory to keep nothing")
	atLeast := func(key string, size Size, events Size, what string) {
		cmd.require(key, size >= events*s.MaxEventBytes, "is %s, less than %s; raise it, or lower max-event-bytes (%s)", cmd.byKey[key].raw, what, cmd.byKey["max-event-bytes"].raw)
	}
	atLeast("retention-bytes", s.RetentionBytes, 1, "one event may have")
	atLeast("retention-jobs-bytes", s.RetentionJobsBytes, 2, "a job's progress and its end may have")
	atLeast("max-batch-bytes", s.MaxBatchBytes, 1, "one event may have")
	atLeast("max-queue", s.MaxQueue, 2, "two events may have, so that a large one would cut off its receiver")
	cmd.require("max-store-bytes", s.MaxStoreBytes == 0 || s.MaxStoreBytes >= s.RetentionBytes+s.RetentionJobsBytes, "is %s, less than one user may fill; raise it, or lower retention-bytes and retention-jobs-bytes", cmd.byKey["max-store-bytes"].raw)

	cmd.require("user", events.CheckUserID(a.User) == nil, "is no user id: 1 to %d bytes without control characters", events.MaxUserIDLen)
	cmd.require("tenant", a.Tenant == "" || events.CheckUserID(a.Tenant) == nil, "is too long or has control characters")
	err = events.CheckName(a.Event)
	cmd.require("event", err == nil, "is %.60q: %v", a.Event, err)
	cmd.require("data", json.Valid([]byte(a.Data)), "is not valid JSON")
	cmd.require("idempotency-key", a.IdempotencyKey == "" || events.CheckIdempotencyKey(a.IdempotencyKey) == nil, "is too long or has control characters")
	if a.APIKey == "" && len(s.APIKeys) > 0 {
		a.APIKey = Secret(s.APIKeys[0].Secret)
	}
	cmd.require("api-key", a.APIKey != "", "is missing, and there are no api-keys to take it from")
	a.URL = strings.TrimRight(cmp.Or(a.URL, localURL(s.Addr)), "/")
	u, err := url.Parse(a.URL)
	cmd.require("url", err == nil && u.Host != "" && (u.Scheme == "http" || u.Scheme == "https"), "is not a URL like http://127.0.0.1:3000")
}

func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.Unmap().IsLoopback()
}

// normalizeOrigin writes an origin as browsers do: lower case, without the port that the scheme implies.
func normalizeOrigin(origin string) (string, error) {
	u, err := url.Parse(origin)
	switch {
	case origin == "*":
		return origin, nil
	case err != nil || u.Scheme == "" || u.Hostname() == "":
		return "", errors.New("write it like https://app.example.com")
	case strings.Contains(u.Host, "*"):
		return "", errors.New("name every origin, or * alone for all")
	case !strings.EqualFold(origin, u.Scheme+"://"+u.Host):
		return "", errors.New("an origin ends after host and port")
	}
	impliedPort := map[string]string{"http": ":80", "https": ":443"}[u.Scheme]
	return u.Scheme + "://" + strings.TrimSuffix(strings.ToLower(u.Host), impliedPort), nil
}

// localURL is where a server that listens on addr is reached from its own machine.
func localURL(addr string) string {
	host, port, _ := net.SplitHostPort(addr)
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, port)
}
