package auth

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"jobwire/internal/events"
)

var (
	latest    = time.Unix(latestTime, 0).UTC()
	now       = time.Date(2025, 11, 23, 10, 0, 0, 500e6, time.UTC)
	secret    = []byte("0123456789abcdef0123456789abcdef")
	oldSecret = []byte("an older secret, still accepted for a while")
)

func verifier(t testing.TB, change func(*VerifierConfig)) *Verifier {
	t.Helper()
	cfg := VerifierConfig{Secrets: [][]byte{secret, oldSecret}, TenantClaim: "tenant", Now: func() time.Time { return now }}
	if change != nil {
		change(&cfg)
	}
	v, err := NewVerifier(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

type claims = jwt.MapClaims

// with is a set of claims that passes, with changes; nil removes a claim.
func with(changes claims) claims {
	c := claims{"sub": "u1", "exp": now.Add(time.Hour).Unix()}
	for name, value := range changes {
		if c[name] = value; value == nil {
			delete(c, name)
		}
	}
	return c
}

func sign(t testing.TB, method jwt.SigningMethod, key any, c claims) string {
	t.Helper()
	token, err := jwt.NewWithClaims(method, c).SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// raw signs any header and payload, also those that no library would write.
func raw(t testing.TB, header, payload string) string {
	t.Helper()
	text := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString([]byte(payload))
	signature, err := jwt.SigningMethodHS256.Sign(text, secret)
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(signature)
}

const hs256 = `{"alg":"HS256","typ":"JWT"}`

func TestGenuineTokensAreAccepted(t *testing.T) {
	hour := now.Add(time.Hour).Truncate(time.Second)
	strict := func(cfg *VerifierConfig) { cfg.Issuer, cfg.Audience = "https://id.example", []string{"jobs", "alt"} }
	for _, tc := range []struct {
		behaviour string
		change    func(*VerifierConfig)
		token     string
		want      Identity
	}{
		{"HS256", nil, sign(t, jwt.SigningMethodHS256, secret, with(nil)), Identity{"u1", "", hour}},
		{"HS384", nil, sign(t, jwt.SigningMethodHS384, secret, with(nil)), Identity{"u1", "", hour}},
		{"HS512", nil, sign(t, jwt.SigningMethodHS512, secret, with(nil)), Identity{"u1", "", hour}},
		{"an older secret during rotation", nil, sign(t, jwt.SigningMethodHS256, oldSecret, with(nil)), Identity{"u1", "", hour}},
		{"issuer and audience as configured", strict, sign(t, jwt.SigningMethodHS256, secret, with(claims{"iss": "https://id.example", "aud": "jobs"})), Identity{"u1", "", hour}},
		{"one of several audiences", strict, sign(t, jwt.SigningMethodHS256, secret, with(claims{"iss": "https://id.example", "aud": []string{"x", "alt"}})), Identity{"u1", "", hour}},
		{"issuer and audience are ignored when not configured", nil, sign(t, jwt.SigningMethodHS256, secret, with(claims{"iss": 7, "aud": "x"})), Identity{"u1", "", hour}},
		{"a tenant", nil, sign(t, jwt.SigningMethodHS256, secret, with(claims{"tenant": "acme"})), Identity{"u1", "acme", hour}},
		{"an integer tenant", nil, sign(t, jwt.SigningMethodHS256, secret, with(claims{"tenant": 12})), Identity{"u1", "12", hour}},
		{"an empty tenant is none", nil, sign(t, jwt.SigningMethodHS256, secret, with(claims{"tenant": ""})), Identity{"u1", "", hour}},
		{"the tenant claim is not read when not configured", func(cfg *VerifierConfig) { cfg.TenantClaim = "" },
			sign(t, jwt.SigningMethodHS256, secret, with(claims{"tenant": []int{1}})), Identity{"u1", "", hour}},
		{"another user claim", func(cfg *VerifierConfig) { cfg.UserClaim = "https://x/uid" },
			sign(t, jwt.SigningMethodHS256, secret, with(claims{"https://x/uid": "u2"})), Identity{"u2", "", hour}},
		{"an integer user id", nil, sign(t, jwt.SigningMethodHS256, secret, with(claims{"sub": 42})), Identity{"42", "", hour}},
		{"an integer user id that no float can hold", nil, raw(t, hs256, `{"sub":900719925474099312345,"exp":1763900000}`),
			Identity{"900719925474099312345", "", time.Unix(1763900000, 0).UTC()}},
		{"nbf and iat a little in the future", nil, sign(t, jwt.SigningMethodHS256, secret, with(claims{"nbf": now.Unix() + 29, "iat": now.Unix() + 29})), Identity{"u1", "", hour}},
		{"an exp in milliseconds", nil, sign(t, jwt.SigningMethodHS256, secret, with(claims{"exp": now.UnixMilli()})), Identity{"u1", "", latest}},
		{"an exp that a clock cannot show", nil, raw(t, hs256, `{"sub":"u1","exp":9223372036854775807}`), Identity{"u1", "", latest}},
		{"an exp beyond that", nil, raw(t, hs256, `{"sub":"u1","exp":1e19}`), Identity{"u1", "", latest}},
		{"an exp with a fraction", nil, raw(t, hs256, fmt.Sprintf(`{"sub":"u1","exp":%d.75}`, now.Unix())), Identity{"u1", "", time.Unix(now.Unix(), 750e6).UTC()}},
		{"the last second", nil, sign(t, jwt.SigningMethodHS256, secret, with(claims{"exp": now.Unix() + 1})), Identity{"u1", "", time.Unix(now.Unix()+1, 0).UTC()}},
	} {
		got, err := verifier(t, tc.change).Verify(t.Context(), tc.token)
		if err != nil || got != tc.want {
			t.Errorf("%s: %+v, %v\nwant %+v", tc.behaviour, got, err, tc.want)
		}
	}
}

func TestRefusals(t *testing.T) {
	good := sign(t, jwt.SigningMethodHS256, secret, with(nil))
	header, rest, _ := strings.Cut(good, ".")
	payload, signature, _ := strings.Cut(rest, ".")
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	strict := func(cfg *VerifierConfig) { cfg.Issuer, cfg.Audience = "https://id.example", []string{"jobs"} }
	hs := func(c claims) string { return sign(t, jwt.SigningMethodHS256, secret, with(c)) }
	for _, tc := range []struct {
		behaviour, code string
		change          func(*VerifierConfig)
		token           string
	}{
		{"no token", CodeTokenMissing, nil, ""},

		{"garbage", CodeTokenMalformed, nil, "garbage"},
		{"dots only", CodeTokenMalformed, nil, ".."},
		{"many dots", CodeTokenMalformed, nil, strings.Repeat(".", MaxTokenLen)},
		{"two parts", CodeTokenMalformed, nil, header + "." + payload},
		{"four parts", CodeTokenMalformed, nil, good + ".x"},
		{"a scheme in front", CodeTokenMalformed, nil, "Bearer " + good},
		{"a line break in the signature", CodeTokenMalformed, nil, good[:len(good)-4] + "\n" + good[len(good)-4:]},
		{"padding", CodeTokenMalformed, nil, header + "." + payload + "." + signature + "="},
		{"a header that is no JSON", CodeTokenMalformed, nil, raw(t, `alg`, `{"sub":"u","exp":1763900000}`)},
		{"a payload that is no JSON", CodeTokenMalformed, nil, raw(t, hs256, `{"sub":`)},
		{"a payload that is no object", CodeTokenMalformed, nil, raw(t, hs256, `["sub"]`)},
		{"a token inside a token", CodeTokenMalformed, nil, raw(t, hs256, good)},
		{"an encrypted token (five parts)", CodeTokenMalformed, nil, "a.b.c.d.e"},
		{"longer than the limit, though genuine", CodeTokenMalformed, nil, hs(claims{"pad": strings.Repeat("x", MaxTokenLen)})},
		{"enormous", CodeTokenMalformed, nil, strings.Repeat("A", 10<<20)},

		{"claims with something behind them", CodeTokenMalformed, nil, raw(t, hs256, `{"sub":"u","exp":1763900000}x`)},
		{"two objects of claims", CodeTokenMalformed, nil, raw(t, hs256, `{"sub":"u","exp":1763900000}{}`)},

		{"expired", CodeTokenExpired, nil, hs(claims{"exp": now.Add(-time.Hour).Unix()})},
		{"expired within the leeway for other times", CodeTokenExpired, nil, hs(claims{"exp": now.Unix() - 1})},
		{"expiring this very moment", CodeTokenExpired, nil, hs(claims{"exp": now.Unix()})},
		{"not yet valid", CodeTokenNotActive, nil, hs(claims{"nbf": now.Unix() + 32})},
		{"an exp before all times", CodeTokenExpired, nil, raw(t, hs256, `{"sub":"u","exp":-1e300}`)},
		{"not yet valid, by far", CodeTokenNotActive, nil, raw(t, hs256, `{"sub":"u","exp":1763900000,"nbf":9223372036854775808}`)},
		{"not valid ever", CodeTokenNotActive, nil, raw(t, hs256, `{"sub":"u","exp":1763900000,"nbf":1e300}`)},
		{"an nbf that nobody counts to", CodeTokenInvalid, nil, raw(t, hs256, `{"sub":"u","exp":1763900000,"nbf":1e999}`)},
		{"issued in a far future", CodeTokenNotActive, nil, raw(t, hs256, `{"sub":"u","exp":1763900000,"iat":1e19}`)},
		{"issued in the future", CodeTokenNotActive, nil, hs(claims{"iat": now.Unix() + 32})},

		{"another secret", CodeTokenInvalid, nil, sign(t, jwt.SigningMethodHS256, []byte("not the secret that was agreed upon"), with(nil))},
		{"a signature cut off", CodeTokenInvalid, nil, header + "." + payload + "."},
		{"a payload exchanged", CodeTokenInvalid, nil, header + "." + base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"admin","exp":1763900000}`)) + "." + signature},
		{"alg none", CodeTokenInvalid, nil, sign(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, with(nil))},
		{"alg None, in capitals", CodeTokenInvalid, nil, raw(t, `{"alg":"None"}`, `{"sub":"u","exp":1763900000}`)},
		{"no alg", CodeTokenInvalid, nil, raw(t, `{}`, `{"sub":"u","exp":1763900000}`)},
		{"alg of another type", CodeTokenInvalid, nil, raw(t, `{"alg":["HS256"]}`, `{"sub":"u","exp":1763900000}`)},
		{"an alg that nobody has", CodeTokenInvalid, nil, raw(t, `{"alg":"HS257"}`, `{"sub":"u","exp":1763900000}`)},
		{"RS256 where only secrets are configured", CodeTokenInvalid, nil, sign(t, jwt.SigningMethodRS256, rsaKey, with(nil))},
		{"RS256 in the header over an HMAC with the secret", CodeTokenInvalid, nil, raw(t, `{"alg":"RS256"}`, `{"sub":"u","exp":1763900000}`)},
		{"critical extensions", CodeTokenInvalid, nil, raw(t, `{"alg":"HS256","crit":["b64"],"b64":false}`, `{"sub":"u","exp":1763900000}`)},
		{"no exp", CodeTokenInvalid, nil, hs(claims{"exp": nil})},
		{"exp null", CodeTokenInvalid, nil, raw(t, hs256, `{"sub":"u","exp":null}`)},
		{"exp of another type", CodeTokenInvalid, nil, hs(claims{"exp": "tomorrow"})},
		{"nbf of another type", CodeTokenInvalid, nil, hs(claims{"nbf": "now"})},
		{"no issuer", CodeTokenInvalid, strict, hs(claims{"aud": "jobs"})},
		{"another issuer", CodeTokenInvalid, strict, hs(claims{"iss": "https://id.example/", "aud": "jobs"})},
		{"no audience", CodeTokenInvalid, strict, hs(claims{"iss": "https://id.example"})},
		{"another audience", CodeTokenInvalid, strict, hs(claims{"iss": "https://id.example", "aud": []string{"job", "jobs2"}})},
		{"another audience, and expired too", CodeTokenInvalid, strict, hs(claims{"iss": "https://id.example", "aud": "x", "exp": 1})},
		{"another secret, and expired too", CodeTokenInvalid, nil, sign(t, jwt.SigningMethodHS256, []byte("not the secret that was agreed upon"), with(claims{"exp": 1}))},
		{"no user", CodeTokenInvalid, nil, hs(claims{"sub": nil})},
		{"an empty user", CodeTokenInvalid, nil, hs(claims{"sub": ""})},
		{"a user with control characters", CodeTokenInvalid, nil, hs(claims{"sub": "a\nb"})},
		{"a user that is too long", CodeTokenInvalid, nil, hs(claims{"sub": strings.Repeat("x", 129)})},
		{"a fraction for a user", CodeTokenInvalid, nil, hs(claims{"sub": 1.5})},
		{"an exponent for a user", CodeTokenInvalid, nil, raw(t, hs256, `{"sub":1e3,"exp":1763900000}`)},
		{"minus zero for a user", CodeTokenInvalid, nil, raw(t, hs256, `{"sub":-0,"exp":1763900000}`)},
		{"true for a user", CodeTokenInvalid, nil, hs(claims{"sub": true})},
		{"a list for a user", CodeTokenInvalid, nil, hs(claims{"sub": []string{"u"}})},
		{"a user that is not UTF-8", CodeTokenInvalid, nil, raw(t, hs256, "{\"sub\":\"a\xff\",\"exp\":1763900000}")},
		{"a user with half a surrogate pair", CodeTokenInvalid, nil, raw(t, hs256, `{"sub":"a\ud800","exp":1763900000}`)},
		{"an object for a tenant", CodeTokenInvalid, nil, hs(claims{"tenant": claims{"id": 1}})},
		{"a tenant that is too long", CodeTokenInvalid, nil, hs(claims{"tenant": strings.Repeat("x", 129)})},
	} {
		id, err := verifier(t, tc.change).Verify(t.Context(), tc.token)
		var refusal *events.Error
		if !errors.As(err, &refusal) {
			t.Errorf("%s: %+v, %v", tc.behaviour, id, err)
			continue
		}
		if refusal.Code != tc.code || refusal.Detail == "" {
			t.Errorf("%s: %v, want %s", tc.behaviour, refusal, tc.code)
		}
		if id != (Identity{}) {
			t.Errorf("%s: refused, and still %+v", tc.behaviour, id)
		}
	}
}

// An exp that overflows must never turn into a token for ever.
func TestAbsurdExpiriesDoNotLiveForEver(t *testing.T) {
	for _, exp := range []string{"1e400", "-1e400", "-1", "0"} {
		if id, err := verifier(t, nil).Verify(t.Context(), raw(t, hs256, `{"sub":"u","exp":`+exp+`}`)); err == nil {
			t.Errorf("exp %s gives %+v", exp, id)
		}
	}
}

func TestWeakConfigurationsAreRefused(t *testing.T) {
	for behaviour, cfg := range map[string]VerifierConfig{
		"no secret":              {},
		"a short secret":         {Secrets: [][]byte{secret[:31]}},
		"one short of two":       {Secrets: [][]byte{secret, secret[:31]}},
		"an empty one":           {Secrets: [][]byte{secret, nil}},
		"exp as the user":        {Secrets: [][]byte{secret}, UserClaim: "exp"},
		"aud as the tenant":      {Secrets: [][]byte{secret}, TenantClaim: "aud"},
		"one claim for two jobs": {Secrets: [][]byte{secret}, TenantClaim: "sub"},
	} {
		if _, err := NewVerifier(cfg); err == nil {
			t.Errorf("%s was accepted", behaviour)
		} else if strings.Contains(err.Error(), string(secret[:31])) {
			t.Errorf("%s: the error shows the secret", behaviour)
		}
	}
}

func TestMintedTokensAreAccepted(t *testing.T) {
	cfg := VerifierConfig{Secrets: [][]byte{secret, oldSecret}, UserClaim: "uid", TenantClaim: "org", Issuer: "i", Audience: []string{"a", "b"},
		Now: func() time.Time { return now }}
	token, err := Mint(cfg, "Zoë", "acme", time.Minute, map[string]any{"name": "Zoë", "exp": 1, "uid": "root"})
	if err != nil {
		t.Fatal(err)
	}
	id, err := verifier(t, func(c *VerifierConfig) { *c = cfg }).Verify(t.Context(), token)
	if want := (Identity{"Zoë", "acme", now.Add(time.Minute).Truncate(time.Second)}); err != nil || id != want {
		t.Errorf("%+v, %v, want %+v", id, err, want)
	}
}

func TestMintRefusesWhatVerifyWould(t *testing.T) {
	good := VerifierConfig{Secrets: [][]byte{secret}}
	for behaviour, err := range map[string]error{
		"no secret":             second(Mint(VerifierConfig{}, "u", "", time.Hour, nil)),
		"no user":               second(Mint(good, "", "", time.Hour, nil)),
		"no time":               second(Mint(good, "u", "", 0, nil)),
		"a tenant for no claim": second(Mint(good, "u", "acme", time.Hour, nil)),
	} {
		if err == nil {
			t.Errorf("%s was accepted", behaviour)
		}
	}
}

func second(_ string, err error) error { return err }

// Nobody without the secret gets in, whatever they send.
func FuzzVerify(f *testing.F) {
	good := sign(f, jwt.SigningMethodHS256, secret, with(nil))
	for _, token := range []string{
		good, good + ".", good + "\n", good[:len(good)-1], "..", "a.b.c", sign(f, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, with(nil)),
		sign(f, jwt.SigningMethodHS512, oldSecret, with(nil)), raw(f, `{"alg":"RS256"}`, `{}`),
	} {
		f.Add(token)
	}
	v := verifier(f, nil)
	genuine := map[string]bool{good: true, sign(f, jwt.SigningMethodHS512, oldSecret, with(nil)): true}
	codes := []string{CodeTokenMissing, CodeTokenMalformed, CodeTokenExpired, CodeTokenNotActive, CodeTokenInvalid}
	f.Fuzz(func(t *testing.T, token string) {
		id, err := v.Verify(t.Context(), token)
		var refusal *events.Error
		switch {
		case err == nil && !genuine[token]:
			t.Fatalf("%q is %+v", token, id)
		case err != nil && (!errors.As(err, &refusal) || !slices.Contains(codes, refusal.Code)):
			t.Fatalf("%q: %v", token, err)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	v := verifier(b, nil)
	for _, tc := range []struct {
		name  string
		token string
	}{
		{"first secret", sign(b, jwt.SigningMethodHS256, secret, with(claims{"iat": now.Unix(), "tenant": "acme"}))},
		{"second secret", sign(b, jwt.SigningMethodHS256, oldSecret, with(claims{"iat": now.Unix(), "tenant": "acme"}))},
		{"garbage of the longest length", strings.Repeat("A", MaxTokenLen)},
	} {
		b.Run(tc.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = v.Verify(b.Context(), tc.token)
			}
		})
	}
}
