package middleware

import (
	"net/http"
	"strings"
	"testing"
)

// Whatever strangers write, the client is either the peer or an address that
// a trusted proxy has written.
func FuzzClientAddress(f *testing.F) {
	for _, seed := range []string{"198.51.100.9", "1.2.3.4, 10.0.0.9", "[2001:db8::1]:80,,", "unknown", "::ffff:1.2.3.4", "fe80::1%eth0", ",", "1.2.3.4:99999"} {
		f.Add("10.0.0.1:1", seed)
		f.Add("192.0.2.1:1", seed)
	}
	proxies := trusting("10.0.0.0/8")
	f.Fuzz(func(t *testing.T, remote, forwarded string) {
		r := &http.Request{RemoteAddr: remote, Header: http.Header{"X-Forwarded-For": {forwarded}}}
		client := proxies.Client(r)
		if from := peer(r); !proxies.trusts(from) && client != from {
			t.Fatalf("%q, which is not trusted, passed for %v", remote, client)
		}
		if client.Is4In6() || client.Zone() != "" {
			t.Fatalf("%v is not the one form of the address", client)
		}
		neighbourhood(client)
	})
}

// There is one spelling of an origin, and an origin that is not ours or
// listed never passes.
func FuzzOrigin(f *testing.F) {
	for _, seed := range []string{
		"https://srv.example", "https://srv.example:443", "http://srv.example:80", "null", "https://SRV.example/", "https://u@srv.example",
		"https://srv.example.evil.example", "//srv.example", "https://[::1]:80", "https://srv.example?x", "https://srv.example#", "a:b",
	} {
		f.Add(seed)
	}
	origins, err := NewOrigins([]string{"https://app.example"}, NewProxies(nil))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, origin string) {
		normal, ok := normalOrigin(origin)
		if ok {
			if again, ok := normalOrigin(normal); !ok || again != normal {
				t.Fatalf("%q becomes %q, and that %q, %v", origin, normal, again, ok)
			}
		}
		_, passes := origins.judge(&http.Request{Host: "srv.example", Header: http.Header{"Origin": {origin}}})
		_, host, _ := strings.Cut(normal, "://")
		if allowed := ok && (host == "srv.example" || normal == "https://app.example"); passes != allowed {
			t.Fatalf("%q: passes %v, allowed %v", origin, passes, allowed)
		}
	})
}
