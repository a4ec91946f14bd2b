package auth

import (
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"jobwire/internal/events"
)

// Mint makes a token that a Verifier with the same configuration accepts for ttl from now on. It is for the demo, for tests and
// for operators; products mint their own. extra claims are added as they are, but never replace those that say who, from whom,
// for whom and until when.
func Mint(cfg VerifierConfig, userID, tenant string, ttl time.Duration, extra map[string]any) (string, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return "", err
	}
	if err := events.CheckUserID(userID); err != nil {
		return "", err
	}
	if ttl < time.Second {
		return "", errors.New("a token must be valid for at least a second")
	}
	claims := jwt.MapClaims{}
	maps.Copy(claims, extra)
	now := cfg.Now()
	claims["iat"] = now.Unix()
	claims["exp"] = now.Add(ttl).Unix()
	claims[cfg.UserClaim] = userID
	if tenant != "" {
		if cfg.TenantClaim == "" {
			return "", errors.New("a tenant was given, but no claim for it is configured")
		}
		if events.CheckUserID(tenant) != nil {
			return "", errors.New("not a usable tenant")
		}
		claims[cfg.TenantClaim] = tenant
	}
	if cfg.Issuer != "" {
		claims["iss"] = cfg.Issuer
	}
	if len(cfg.Audience) > 0 {
		claims["aud"] = cfg.Audience[0]
	}
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString(cfg.Secrets[0])
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	return token, nil
}
