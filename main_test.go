package main

import (
	"net"
	"strings"
	"testing"

	"jobwire/config"
	"jobwire/internal/auth"
)

func TestTheHintsNameWhatIsServed(t *testing.T) {
	addr := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 3000}
	for behaviour, tc := range map[string]struct{ demo bool }{"with the demo": {true}, "without the demo": {false}} {
		var hints strings.Builder
		printHints(&hints, config.Settings{Dev: true, Demo: tc.demo, APIKeys: []auth.Key{{Name: "dev", Secret: "the-key"}}}, addr)
		if got := strings.Contains(hints.String(), "http://127.0.0.1:3000/demo/"); got != tc.demo {
			t.Errorf("%s: %q", behaviour, hints.String())
		}
		if !strings.Contains(hints.String(), "curl http://127.0.0.1:3000/v1/events -H 'Authorization: Bearer the-key'") {
			t.Errorf("%s: how to send is missing: %q", behaviour, hints.String())
		}
	}
}
