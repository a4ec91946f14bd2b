//go:build linux

package hostile

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"jobwire/internal/auth"
)

// raw is a token with any header and claims, signed as HS256 whatever the header says.
func rawToken(header, claims, secret string) string {
	signed := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString([]byte(claims))
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(signed))
	return signed + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

const hs256 = `{"alg":"HS256","typ":"JWT"}`

// claims are good ones of mallory, with more in front.
func claims(more string) string {
	return fmt.Sprintf(`{%s"sub":"mallory","exp":%d}`, more, time.Now().Add(time.Hour).Unix())
}

type badToken struct {
	name  string
	token any // what stands in auth.token
	code  string
}

func badTokens(t *testing.T) []badToken {
	key := must[*rsa.PrivateKey](t)(rsa.GenerateKey(rand.Reader, 2048))
	public := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: must[[]byte](t)(x509.MarshalPKIXPublicKey(&key.PublicKey))}))
	sign := func(method jwt.SigningMethod, key any) string {
		return must[string](t)(jwt.NewWithClaims(method, jwt.MapClaims{"sub": "mallory", "exp": time.Now().Add(time.Hour).Unix()}).SignedString(key))
	}
	good := rawToken(hs256, claims(""), jwtSecret)
	parts := strings.Split(good, ".")
	at := func(d time.Duration) int64 { return time.Now().Add(d).Unix() }
	timed := func(format string, args ...any) string {
		return rawToken(hs256, fmt.Sprintf(format, args...), jwtSecret)
	}
	huge := must[string](t)(auth.Mint(verifier(), "mallory", "", time.Hour, map[string]any{"bomb": strings.Repeat("x", 40_000)}))
	return []badToken{
		{"none", nil, auth.CodeTokenMissing},
		{"an empty one", "", auth.CodeTokenMissing},
		{"a number", 42, auth.CodeTokenMalformed},
		{"an object", map[string]any{"toString": "x"}, auth.CodeTokenMalformed},
		{"a list", []string{good}, auth.CodeTokenMalformed},
		{"garbage", "garbage", auth.CodeTokenMalformed},
		{"three dots", "...", auth.CodeTokenMalformed},
		{"60,000 dots", strings.Repeat(".", 60_000), auth.CodeTokenMalformed},
		{"one of 50 kB, signed", huge, auth.CodeTokenMalformed},
		{"one nested 5,000 deep", rawToken(hs256, claims(`"a":`+strings.Repeat("[", 2500)+strings.Repeat("]", 2500)+","), jwtSecret), ""},
		{"one with a line break", parts[0] + ".\n" + parts[1] + "." + parts[2], auth.CodeTokenMalformed},
		{"claims that are no object", rawToken(hs256, `[1]`, jwtSecret), auth.CodeTokenMalformed},
		{"a header that is no object", rawToken(`"HS256"`, claims(""), jwtSecret), auth.CodeTokenMalformed},
		{"no signature", parts[0] + "." + parts[1] + ".", auth.CodeTokenInvalid},
		{"somebody else's signature", rawToken(hs256, claims(""), "another secret of more than 32 bytes"), auth.CodeTokenInvalid},
		{"changed claims", parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(claims(`"a":1,`))) + "." + parts[2], auth.CodeTokenInvalid},
		{"alg none", rawToken(`{"alg":"none"}`, claims(""), jwtSecret), auth.CodeTokenInvalid},
		{"alg none without a signature", must[string](t)(jwt.NewWithClaims(jwt.SigningMethodNone, jwt.MapClaims{"sub": "mallory", "exp": at(time.Hour)}).SignedString(jwt.UnsafeAllowNoneSignatureType)), auth.CodeTokenInvalid},
		{"alg nOnE", rawToken(`{"alg":"nOnE"}`, claims(""), jwtSecret), auth.CodeTokenInvalid},
		{"alg hs256", rawToken(`{"alg":"hs256"}`, claims(""), jwtSecret), auth.CodeTokenInvalid},
		{"alg a number", rawToken(`{"alg":256}`, claims(""), jwtSecret), auth.CodeTokenInvalid},
		{"no alg", rawToken(`{"typ":"JWT"}`, claims(""), jwtSecret), auth.CodeTokenInvalid},
		{"RS256", sign(jwt.SigningMethodRS256, key), auth.CodeTokenInvalid},
		{"PS256", sign(jwt.SigningMethodPS256, key), auth.CodeTokenInvalid},
		{"HS256 with a public key as the secret", rawToken(hs256, claims(""), public), auth.CodeTokenInvalid},
		{"a key id that is a path", rawToken(`{"alg":"HS256","kid":"../../../../dev/null"}`, claims(""), ""), auth.CodeTokenInvalid},
		{"a key in its own header", rawToken(`{"alg":"HS256","jwk":{"kty":"oct","k":"AAAA"}}`, claims(""), "\x00\x00\x00"), auth.CodeTokenInvalid},
		{"critical extensions", rawToken(`{"alg":"HS256","crit":["exp"],"exp":1}`, claims(""), jwtSecret), auth.CodeTokenInvalid},
		{"expired", timed(`{"sub":"mallory","exp":%d}`, at(-time.Second)), auth.CodeTokenExpired},
		{"long expired", timed(`{"sub":"mallory","exp":1}`), auth.CodeTokenExpired},
		{"not active yet", timed(`{"sub":"mallory","exp":%d,"nbf":%d}`, at(time.Hour), at(10*time.Minute)), auth.CodeTokenNotActive},
		{"issued in the future", timed(`{"sub":"mallory","exp":%d,"iat":%d}`, at(time.Hour), at(10*time.Minute)), auth.CodeTokenNotActive},
		{"no expiry", timed(`{"sub":"mallory"}`), auth.CodeTokenInvalid},
		{"an expiry of null", timed(`{"sub":"mallory","exp":null}`), auth.CodeTokenInvalid},
		{"an expiry in words", timed(`{"sub":"mallory","exp":"tomorrow"}`), auth.CodeTokenInvalid},
		{"an expiry that no clock can show", timed(`{"sub":"mallory","exp":1e400}`), auth.CodeTokenInvalid},
		{"no user", timed(`{"exp":%d}`, at(time.Hour)), auth.CodeTokenInvalid},
		{"an empty user", timed(`{"sub":"","exp":%d}`, at(time.Hour)), auth.CodeTokenInvalid},
		{"a user that is an object", timed(`{"sub":{"a":1},"exp":%d}`, at(time.Hour)), auth.CodeTokenInvalid},
		{"a user that is a fraction", timed(`{"sub":1.5,"exp":%d}`, at(time.Hour)), auth.CodeTokenInvalid},
		{"a user with a line break", timed(`{"sub":"a\r\nX-Evil: 1","exp":%d}`, at(time.Hour)), auth.CodeTokenInvalid},
		{"a user with a NUL", timed(`{"sub":"a\u0000b","exp":%d}`, at(time.Hour)), auth.CodeTokenInvalid},
		{"a user with a lone surrogate", timed(`{"sub":"a\ud800b","exp":%d}`, at(time.Hour)), auth.CodeTokenInvalid},
		{"a user of 129 bytes", timed(`{"sub":"%s","exp":%d}`, strings.Repeat("u", 129), at(time.Hour)), auth.CodeTokenInvalid},
	}
}

// No token but a good one opens a session, and every other gets its own code.
func TestBadTokens(t *testing.T) {
	t.Parallel()
	n := start(t, "--log-level=debug")
	watch(t, n)
	opened := n.scrape(t)["sessions_opened_total"]
	var attempts []stall
	for _, bad := range badTokens(t) {
		if bad.code == "" {
			opened += 2
		}
		for _, transport := range []string{"websocket", "polling"} {
			attempts = append(attempts, stall{bad.name + "/" + transport, func() error { return n.tryToken(bad, transport) }})
		}
	}
	together(t, attempts) // each is closed only when its client has had time to read why
	if now := n.scrape(t)["sessions_opened_total"]; now != opened {
		t.Errorf("%v sessions were opened", now-opened)
	}
	n.stillServes(t)
}

// tryToken connects with a token and checks what it is told, and that this is all.
func (n *node) tryToken(bad badToken, transport string) error {
	payload, err := json.Marshal(map[string]any{"token": bad.token})
	if err != nil {
		return err
	}
	l, err := n.link(transport)
	if err != nil {
		return err
	}
	defer l.close(true)
	code, err := connectError(l, "40"+string(payload))
	if err != nil {
		return err
	}
	if code != bad.code {
		return fmt.Errorf("code %q, want %q", code, bad.code)
	}
	if code == "" { // strange, but good
		return nil
	}
	return ended(l)
}

// connectError writes a CONNECT and returns the code of its CONNECT_ERROR, "" when it was accepted.
func connectError(l link, packet string) (string, error) {
	if err := l.write(packet); err != nil {
		return "", err
	}
	for {
		got, err := l.read()
		if err != nil {
			return "", err
		}
		if strings.HasPrefix(got, "40") {
			return "", nil
		}
		if text, found := strings.CutPrefix(got, "44"); found {
			var why refusal
			if err := json.Unmarshal([]byte(text), &why); err != nil {
				return "", err
			}
			if why.Message != "unauthorized" || why.Data.Message == "" {
				return "", fmt.Errorf("CONNECT_ERROR %s", text)
			}
			return why.Data.Code, nil
		}
	}
}

// Tokens in the places of the handshake request: the header counts, however long it is; the query never does.
func TestTokensInTheRequest(t *testing.T) {
	t.Parallel()
	n := start(t)
	watch(t, n)
	good := token("header")
	for _, c := range []struct{ name, query, header, code string }{
		{"in the header", "", "Authorization: Bearer " + good, ""},
		{"in the header, 8 kB and more", "", "Authorization: Bearer " + good + strings.Repeat("x", 9000), auth.CodeTokenMalformed},
		{"in the header, 24 kB", "", "Authorization: Bearer " + good + strings.Repeat("x", 24_000), auth.CodeTokenMalformed},
		{"in the header, of another scheme", "", "Authorization: Basic " + good, auth.CodeTokenMissing},
		{"in the query", "&token=" + good, "X: y", auth.CodeTokenMissing},
		{"in the query as auth", "&auth=" + good + "&access_token=" + good, "X: y", auth.CodeTokenMissing},
		{"in a cookie", "", "Cookie: token=" + good, auth.CodeTokenMissing},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := must[*wire](t)(n.wire(nil))
			defer w.Close()
			if _, err := w.Write(upgradeRequest(n.addr, c.query, c.header)); err != nil {
				t.Fatal(err)
			}
			if err := w.switched(); err != nil {
				t.Fatal(err)
			}
			if code, err := connectError(&direct{wire: w}, "40"); err != nil || code != c.code {
				t.Errorf("code %q, %v, want %q", code, err, c.code)
			}
			n.stillServes(t)
		})
	}
	if log := n.book.tail(); strings.Contains(log, good) {
		t.Error("a token is in the log")
	}
}

// A session cannot be turned into somebody else's, and ends with its token.
func TestTokensOfALiveSession(t *testing.T) {
	t.Parallel()
	n := start(t)
	watch(t, n)
	tab := must[*tab](t)(n.open(visit{user: "live"}))
	for _, c := range []struct{ name, token, code string }{
		{"somebody else's", token("bystander-ann"), "user_mismatch"},
		{"garbage", "garbage", auth.CodeTokenMalformed},
		{"empty", "", auth.CodeTokenMissing},
		{"expired", rawToken(hs256, `{"sub":"live","exp":1}`, jwtSecret), auth.CodeTokenExpired},
		{"unsigned", rawToken(hs256, claims(""), "no"), auth.CodeTokenInvalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			ack, err := tab.call("authenticate", map[string]string{"token": c.token})
			if err != nil || !strings.Contains(string(ack), fmt.Sprintf(`{"error":{"code":%q`, c.code)) {
				t.Errorf("ack %s, %v, want %s", ack, err, c.code)
			}
		})
	}
	if answer, err := n.post("live", "job_completed", `{"jobId":"1"}`); err != nil || answer.Sockets != 1 {
		t.Fatalf("the session is %+v, %v", answer, err)
	}
	if _, err := tab.wait("job_completed"); err != nil {
		t.Error(err)
	}
	t.Run("a token that runs out", func(t *testing.T) {
		short := must[string](t)(auth.Mint(verifier(), "live", "", 2*time.Second, nil))
		if ack, err := tab.call("authenticate", map[string]string{"token": short}); err != nil || strings.Contains(string(ack), "error") {
			t.Fatalf("ack %s, %v", ack, err)
		}
		last, err := tab.wait("unauthorized")
		if err != nil || !strings.Contains(string(last.data), auth.CodeTokenExpired) {
			t.Errorf("%s, %v", last.data, err)
		}
		select {
		case <-tab.gone:
		case <-time.After(patience):
			t.Error("the session goes on")
		}
		if !errors.Is(tab.err, closeError(1000)) {
			t.Errorf("ended with %v", tab.err)
		}
		if _, err := n.open(visit{user: "live", token: short}); err == nil || !strings.Contains(err.Error(), auth.CodeTokenExpired) {
			t.Errorf("the same token again: %v", err)
		}
	})
	n.stillServes(t)
}

// Pages of other origins get nowhere, on any transport and with any method; CORS headers tell only those who may.
func TestOrigins(t *testing.T) {
	t.Parallel()
	n := start(t, "--origins=https://app.example.com,http://localhost:5173")
	watch(t, n)
	p := must[*polling](t)(n.polling())
	defer p.close(true)
	path := "/socket.io/?EIO=4&transport=polling"
	for _, c := range []struct {
		origin  []string
		allowed bool
		cors    string
	}{
		{nil, true, ""},
		{[]string{"http://" + n.addr}, true, ""},
		{[]string{"https://app.example.com"}, true, "https://app.example.com"},
		{[]string{"HTTPS://APP.EXAMPLE.COM:443"}, true, "HTTPS://APP.EXAMPLE.COM:443"},
		{[]string{"http://localhost:5173"}, true, "http://localhost:5173"},
		{[]string{"https://evil.example"}, false, ""},
		{[]string{"https://app.example.com.evil.example"}, false, ""},
		{[]string{"https://evil.example/https://app.example.com"}, false, ""},
		{[]string{"https://app.example.com@evil.example"}, false, ""},
		{[]string{"https://app.example.com", "https://evil.example"}, false, ""},
		{[]string{"http://app.example.com"}, false, ""},
		{[]string{"https://app.example.com:8443"}, false, ""},
		{[]string{"https://" + n.addr}, true, ""}, // a TLS proxy in front that is not trusted to say so
		{[]string{"null"}, false, ""},
		{[]string{""}, false, ""},
		{[]string{"*"}, false, ""},
		{[]string{"file://"}, false, ""},
	} {
		lines := ""
		for _, origin := range c.origin {
			lines += "Origin: " + origin + "\r\n"
		}
		head := " HTTP/1.1\r\nHost: " + n.addr + "\r\n" + lines
		for _, r := range []struct {
			name, request string
			allowed       int
		}{
			{"polling GET", "GET " + path + head + "\r\n", 200},
			{"polling POST", "POST " + path + "&sid=" + p.sid + head + "Content-Length: 4\r\n\r\n40/x", 200},
			{"polling preflight", "OPTIONS " + path + head + "Access-Control-Request-Method: POST\r\n\r\n", 204},
			{"websocket", strings.Replace(string(upgradeRequest(n.addr, "")), "\r\n\r\n", "\r\n"+lines+"\r\n", 1), 101},
			{"websocket of a session", strings.Replace(string(upgradeRequest(n.addr, "&sid="+p.sid)), "\r\n\r\n", "\r\n"+lines+"\r\n", 1), 101},
		} {
			if c.allowed && strings.HasPrefix(r.name, "polling POST") {
				continue // the victim's session is for the attackers
			}
			t.Run(fmt.Sprintf("%q/%s", c.origin, r.name), func(t *testing.T) {
				w := must[*wire](t)(n.wire(nil))
				defer w.Close()
				if _, err := io.WriteString(w, r.request); err != nil {
					t.Fatal(err)
				}
				response, err := w.response()
				if err != nil {
					t.Fatal(err)
				}
				defer response.Body.Close()
				want := r.allowed
				if !c.allowed {
					want = http.StatusForbidden
				}
				if response.StatusCode != want {
					t.Errorf("status %s, want %d", response.Status, want)
				}
				if got := response.Header.Get("Access-Control-Allow-Origin"); got != c.cors {
					t.Errorf("allowed origin %q, want %q", got, c.cors)
				}
				if !c.allowed {
					if text, err := io.ReadAll(response.Body); err != nil || string(text) != `{"code":4,"message":"Forbidden"}` {
						t.Errorf("body %s, %v", text, err)
					}
				}
			})
		}
	}
	if err := ask(p, `40{"token":"`+token("origin")+`"}`, "40{"); err != nil {
		t.Errorf("the session that strangers tried to use: %v", err)
	}
	n.stillServes(t)
}

// isRefusal reports whether err is a CONNECT_ERROR with that code.
func isRefusal(err error, code string) bool {
	var why *refusal
	return errors.As(err, &why) && why.Data.Code == code
}
