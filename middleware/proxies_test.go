package middleware

import (
	"crypto/tls"
	"net/netip"
	"testing"
)

func trusting(prefixes ...string) *Proxies {
	var trusted []netip.Prefix
	for _, p := range prefixes {
		trusted = append(trusted, netip.MustParsePrefix(p))
	}
	return NewProxies(trusted)
}

func TestClientAddress(t *testing.T) {
	for name, tc := range map[string]struct {
		trusted   []string
		peer      string
		forwarded []string
		want      string
	}{
		"nobody trusted":                    {nil, "192.0.2.1:5", []string{"198.51.100.9"}, "192.0.2.1"},
		"peer not trusted":                  {[]string{"10.0.0.0/8"}, "192.0.2.1:5", []string{"198.51.100.9"}, "192.0.2.1"},
		"one proxy":                         {[]string{"10.0.0.0/8"}, "10.1.1.1:5", []string{"198.51.100.9"}, "198.51.100.9"},
		"no header":                         {[]string{"10.0.0.0/8"}, "10.1.1.1:5", nil, "10.1.1.1"},
		"two proxies":                       {[]string{"10.0.0.0/8"}, "10.1.1.1:5", []string{"198.51.100.9, 10.2.2.2"}, "198.51.100.9"},
		"the client's own claim":            {[]string{"10.0.0.0/8"}, "10.1.1.1:5", []string{"203.0.113.7, 198.51.100.9"}, "198.51.100.9"},
		"several headers":                   {[]string{"10.0.0.0/8"}, "10.1.1.1:5", []string{"203.0.113.7", "198.51.100.9,10.2.2.2"}, "198.51.100.9"},
		"all trusted":                       {[]string{"10.0.0.0/8"}, "10.1.1.1:5", []string{"10.3.3.3, 10.2.2.2"}, "10.3.3.3"},
		"nonsense ends it":                  {[]string{"10.0.0.0/8"}, "10.1.1.1:5", []string{"198.51.100.9, unknown, 10.2.2.2"}, "10.2.2.2"},
		"an empty element":                  {[]string{"10.0.0.0/8"}, "10.1.1.1:5", []string{"198.51.100.9,"}, "198.51.100.9"},
		"with a port":                       {[]string{"10.0.0.0/8"}, "10.1.1.1:5", []string{"198.51.100.9:4711"}, "198.51.100.9"},
		"IPv6 with a port":                  {[]string{"10.0.0.0/8"}, "10.1.1.1:5", []string{"[2001:db8::1]:4711"}, "2001:db8::1"},
		"IPv6 in brackets":                  {[]string{"10.0.0.0/8"}, "10.1.1.1:5", []string{"[2001:db8::1]"}, "2001:db8::1"},
		"IPv4 in IPv6 is IPv4, trusted too": {[]string{"10.0.0.0/8"}, "[::ffff:10.1.1.1]:5", []string{"::ffff:198.51.100.9"}, "198.51.100.9"},
		"zone":                              {nil, "[fe80::1%eth0]:5", nil, "fe80::1"},
		"a Unix socket":                     {nil, "@", []string{"198.51.100.9"}, "invalid IP"},
	} {
		t.Run(name, func(t *testing.T) {
			r := request("GET", "/")
			r.RemoteAddr = tc.peer
			r.Header["X-Forwarded-For"] = tc.forwarded
			if got := trusting(tc.trusted...).Client(r).String(); got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
		})
	}
}

func TestSchemeAndHost(t *testing.T) {
	for name, tc := range map[string]struct {
		peer         string
		tls          bool
		headers      []string
		scheme, host string
	}{
		"plain, maybe a proxy": {"192.0.2.1:5", false, nil, "", "example.com"},
		"our own TLS":          {"192.0.2.1:5", true, nil, "https", "example.com"},
		"a stranger's word":    {"192.0.2.1:5", false, []string{"X-Forwarded-Proto: https", "X-Forwarded-Host: evil.example"}, "", "example.com"},
		"a proxy's word":       {"10.0.0.1:5", false, []string{"X-Forwarded-Proto: HTTPS", "X-Forwarded-Host: app.example"}, "https", "app.example"},
		"the outermost proxy":  {"10.0.0.1:5", false, []string{"X-Forwarded-Proto: https, http", "X-Forwarded-Host: app.example, inner"}, "https", "app.example"},
		"websocket":            {"10.0.0.1:5", false, []string{"X-Forwarded-Proto: wss"}, "https", "example.com"},
		"plain websocket":      {"10.0.0.1:5", false, []string{"X-Forwarded-Proto: ws"}, "http", "example.com"},
		"a silent proxy":       {"10.0.0.1:5", false, nil, "", "example.com"},
	} {
		t.Run(name, func(t *testing.T) {
			r := request("GET", "/", append(tc.headers, "Host: example.com")...)
			r.RemoteAddr = tc.peer
			if tc.tls {
				r.TLS = &tls.ConnectionState{}
			}
			p := trusting("10.0.0.0/8")
			if scheme, host := p.scheme(r), p.host(r); scheme != tc.scheme || host != tc.host {
				t.Errorf("got %q %q, want %q %q", scheme, host, tc.scheme, tc.host)
			}
		})
	}
}
