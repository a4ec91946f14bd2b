package engine

import (
	"testing"
)

func TestUpgrade(t *testing.T) {
	onBothPaths(t, Config{}, func(t *testing.T, s *testServer) {
		s.echo()
		sid, rec := s.openPoll(t)
		ws := s.websocket(t, sid)
		poll := inBackground(func() answer { return s.get(t, sid) })
		untilWaiting(t, rec.Conn)
		ws.text("2probe")
		ws.wantPacket("3probe")
		recv(t, poll, "answer").want(t, 200, "6")
		s.get(t, sid).want(t, 200, "6")
		if got := rec.Transport(); got != "polling" {
			t.Errorf("transport %q before the upgrade packet", got)
		}
		ws.text("5")
		ws.text("4hello")
		ws.wantPacket("4hello")
		if got := rec.Transport(); got != "websocket" {
			t.Errorf("transport %q after the upgrade packet", got)
		}
	})
}
