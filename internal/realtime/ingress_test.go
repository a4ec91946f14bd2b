package realtime

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"jobwire/internal/auth"
	"jobwire/internal/engine"
)

// Every case of what must close a connection: before and after it was authenticated, and never anybody else's.
func TestHostilePacketsCloseOnlyTheirConnection(t *testing.T) {
	s := newStand(t, Config{})
	alice := s.connect(t, "alice")
	for _, c := range []struct {
		name    string
		connect bool
		packets []string // "b:…" is binary
		reason  string
	}{
		{"event without payload", true, []string{"42"}, engine.ReasonParseError},
		{"event with id without payload", true, []string{"421"}, engine.ReasonParseError},
		{"binary event without payload", true, []string{"450-"}, engine.ReasonParseError},
		{"ack without payload", true, []string{"431"}, engine.ReasonParseError},
		{"ack without id", true, []string{"43[]"}, engine.ReasonParseError},
		{"object as event", true, []string{`42{}`}, engine.ReasonParseError},
		{"empty event", true, []string{`42[]`}, engine.ReasonParseError},
		{"reserved event", true, []string{`42["disconnect"]`}, engine.ReasonParseError},
		{"server's packet", true, []string{`44{"message":"x"}`}, engine.ReasonParseError},
		{"unknown type", true, []string{`4abc`}, engine.ReasonParseError},
		{"ack id is no number", true, []string{`42abc["x"]`}, engine.ReasonParseError},
		{"nested too deeply", true, []string{`42["x",` + strings.Repeat("[", 1000) + strings.Repeat("]", 1000) + `]`}, engine.ReasonParseError},
		{"nine attachments", true, []string{`459-["x"]`}, engine.ReasonParseError},
		{"text instead of an attachment", true, []string{`451-["x"]`, `42["y"]`}, engine.ReasonParseError},
		{"attachment out of nowhere", true, []string{"b:\x01"}, engine.ReasonParseError},
		{"attachments too large", true, []string{`452-["x"]`, "b:" + strings.Repeat("x", 600<<10), "b:" + strings.Repeat("x", 600<<10)}, engine.ReasonParseError},
		{"other namespace", true, []string{`42/other,["x"]`}, ReasonProtocol},
		{"goodbye to another namespace", true, []string{`41/other,`}, ReasonProtocol},
		{"second CONNECT", true, []string{`40{"token":"bob"}`}, ReasonProtocol},
		{"event after goodbye", true, []string{`41`, `42["x"]`}, ReasonProtocol},
		{"CONNECT after goodbye", true, []string{`41`, `40{"token":"bob"}`}, ReasonProtocol},
		{"event first", false, []string{`42["x"]`}, ReasonProtocol},
		{"ack first", false, []string{`431[]`}, ReasonProtocol},
		{"goodbye first", false, []string{`41`}, ReasonProtocol},
		{"binary event first", false, []string{`451-["x"]`}, ReasonProtocol}, // before its attachment
		{"garbage first", false, []string{`4abc`}, engine.ReasonParseError},
		{"CONNECT with an array", false, []string{`40["x"]`}, engine.ReasonParseError},
		{"CONNECT in msgpack", false, []string{"b:\x84\xa4type\x00\xa3nsp\xa1/\xa4data\x80"}, ReasonUnsupportedParser},
		{"CONNECT after a refusal", false, []string{`40`, `40{"token":"bob"}`}, ReasonProtocol},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := s.Stats().Closed[c.reason]
			cl := s.dial(t)
			if c.connect {
				cl.write(`40{"token":"eve"}`)
				cl.read()
			}
			for _, p := range c.packets {
				if data, ok := strings.CutPrefix(p, "b:"); ok {
					cl.writeBinary([]byte(data))
				} else {
					cl.write(p)
				}
			}
			cl.expectClosed()
			if c.connect {
				s.waitLeft(t)
			}
			eventually(t, "closed as "+c.reason, func() bool { return s.Stats().Closed[c.reason] == before+1 })
		})
	}
	s.EmitUser("alice", message("still", `"here"`, 0))
	alice.expect(`42["still","here",null]`)
}

// A client with socket.io-msgpack-parser is told in msgpack why it is not served; after a CONNECT_ERROR it stays away.
func TestMsgpackIsRefusedInItsOwnLanguage(t *testing.T) {
	const (
		hello   = "\x84\xa4type\x00\xa3nsp\xa1/\xa4data\x80"
		refusal = "\x83\xa4type\x04\xa3nsp\xa1/\xa4data\x81\xa7message\xb2unsupported parser"
	)
	s := newStand(t, Config{})
	c := s.dial(t)
	c.writeBinary([]byte(hello))
	if got := c.expectClosed(); len(got) != 1 || got[0] != refusal {
		t.Errorf("websocket: got %q", got)
	}
	p := s.poll(t)
	p.post("b" + base64.StdEncoding.EncodeToString([]byte(hello)))
	if got := p.get(); got != "b"+base64.StdEncoding.EncodeToString([]byte(refusal)) {
		t.Errorf("polling: got %q", got)
	}
	if got := p.get(); got != "1" {
		t.Errorf("polling: then %q", got)
	}
	eventually(t, "counted", func() bool { return s.Stats().Closed[ReasonUnsupportedParser] == 2 })
}

func TestForeignNamespacesAreAnsweredAFewTimes(t *testing.T) {
	s := newStand(t, Config{})
	c := s.connect(t, "alice")
	c.write("40/admin,{}")
	c.expect(`44/admin,{"message":"Invalid namespace"}`)
	s.EmitUser("alice", message("x", `1`, 0))
	c.expect(`42["x",1]`) // the main namespace goes on
	for range 50 {
		if c.tryWrite(1, []byte("40/flood")) != nil {
			break
		}
	}
	rest := c.expectClosed()
	answers := 0
	for _, m := range rest {
		if strings.HasPrefix(m, "44/flood,") {
			answers++
		}
	}
	if answers != maxForeignConnects-1 {
		t.Errorf("%d more answers: %q", answers, rest)
	}
	eventually(t, "counted", func() bool { return s.Stats().Closed[ReasonProtocol] == 1 })
}

func TestPipelinedConnectsMakeOneSession(t *testing.T) {
	s := newStand(t, Config{})
	for range 10 {
		c := s.dial(t)
		for range 50 {
			if c.tryWrite(1, []byte(`40{"token":"eve"}`)) != nil {
				break
			}
		}
		replies := 0
		for _, m := range c.expectClosed() {
			if strings.HasPrefix(m, "40{") {
				replies++
			}
		}
		if replies > 1 {
			t.Fatalf("%d CONNECT replies", replies)
		}
	}
	eventually(t, "all gone", func() bool { st := s.Stats(); return st.Sessions == 0 && st.Unauthenticated == 0 })
	if n := s.Stats().Connected; n > 10 {
		t.Errorf("%d sessions on 10 connections", n)
	}
}

func TestEventsBeforeTheConnectReplyClose(t *testing.T) {
	release := make(chan struct{})
	handled := make(chan struct{}, 1)
	s := newStand(t, Config{}, func(r *recorder, h *Hub) {
		r.authenticate = func(Handshake) (auth.Identity, error) { <-release; return auth.Identity{UserID: "eve"}, nil }
		Handle(h, "x", func(context.Context, *Session, struct{}) (any, error) { handled <- struct{}{}; return nil, nil })
	})
	c := s.dial(t)
	c.write(`40{"token":"eve"}`, `42["x"]`)
	eventually(t, "both arrived", func() bool { return s.Stats().Packets == 2 })
	close(release)
	c.expectClosed()
	if d := s.waitLeft(t); d.reason != ReasonProtocol {
		t.Errorf("%+v", d)
	}
	if len(handled) != 0 {
		t.Error("the event was handled")
	}
}

func TestUnaskedAcksAreIgnored(t *testing.T) {
	s := newStand(t, Config{}, func(_ *recorder, h *Hub) { handleEcho(h) })
	c := s.connect(t, "alice")
	c.write(`431[]`, `4399["x"]`, `461-3[{"_placeholder":true,"num":0}]`)
	c.writeBinary([]byte{1})
	c.write(`421["echo",1]`)
	c.expect(`431[1]`)
}

// handleEcho answers acks with the arguments.
func handleEcho(h *Hub) {
	HandleInOrder(h, "echo", func(_ context.Context, s *Session, args Args, _ func(any, error)) {
		switch n := len(args.Attachments); {
		case !args.Asked:
		case n == 0:
			s.Send(frames(fmt.Sprintf("3%d[", args.ID), args)...)
		default:
			s.Send(frames(fmt.Sprintf("6%d-%d[", n, args.ID), args)...)
		}
	})
}

// frames are a packet that begins so and ends with the arguments.
func frames(packet string, args Args) []*engine.Frame {
	all := []*engine.Frame{engine.TextFrame(appendValues([]byte(packet), args.Values))}
	for _, attachment := range args.Attachments {
		all = append(all, engine.BinaryFrame(attachment))
	}
	return all
}

// appendValues ends a JSON array with these elements.
func appendValues(dst []byte, values []json.RawMessage) []byte {
	for i, v := range values {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, v...)
	}
	return append(dst, ']')
}

func TestEventRateIsBounded(t *testing.T) {
	s := newStand(t, Config{EventRate: 1, EventBurst: 20}, func(_ *recorder, h *Hub) { handleEcho(h) })
	alice, eve := s.connect(t, "alice"), s.connect(t, "eve") // one packet each
	for i := range 19 {
		eve.write(fmt.Sprintf(`42%d["echo"]`, i))
	}
	for i := range 19 {
		eve.expect(fmt.Sprintf(`43%d[]`, i))
	}
	for range 5 { // the bucket may have got a token or two meanwhile
		if eve.tryWrite(1, []byte(`42["echo"]`)) != nil {
			break
		}
	}
	eve.expectClosed()
	if d := s.waitLeft(t); d.user != "eve" || d.reason != ReasonEventRate {
		t.Errorf("%+v", d)
	}
	alice.write(`421["echo"]`)
	alice.expect(`431[]`)
}

func TestEventsOfOneSocketAreHandledInOrder(t *testing.T) {
	const n = 2000
	var got []int
	s := newStand(t, Config{}, func(_ *recorder, h *Hub) {
		type payload struct {
			N int `json:"n"`
		}
		Handle(h, "n", func(_ context.Context, _ *Session, p payload) (any, error) {
			got = append(got, p.N) // unsynchronized: one at a time is what -race checks
			return p.N, nil
		})
	})
	c := s.connect(t, "alice")
	go func() {
		for i := range n {
			if c.tryWrite(1, fmt.Appendf(nil, `42%d["n",{"n":%d}]`, i, i)) != nil {
				return
			}
		}
	}()
	for i := range n {
		c.expect(fmt.Sprintf(`43%d[%d]`, i, i))
	}
	for i := range n {
		if got[i] != i {
			t.Fatalf("event %d came as number %d", got[i], i)
		}
	}
}

func TestSlowHandlerHoldsBackItsOwnClientOnly(t *testing.T) {
	release := make(chan struct{})
	s := newStand(t, Config{}, func(_ *recorder, h *Hub) {
		handleEcho(h)
		Handle(h, "slow", func(context.Context, *Session, struct{}) (any, error) { <-release; return nil, nil })
	})
	slow, alice := s.connect(t, "slow"), s.connect(t, "alice")
	slow.write(`42["slow"]`)
	wrote := make(chan struct{})
	go func() { // more than the inbox and the kernel's buffers hold
		defer close(wrote)
		big := []byte(`42["echo","` + strings.Repeat("x", 60<<10) + `"]`)
		for range 400 {
			if slow.tryWrite(1, big) != nil {
				return
			}
		}
	}()
	var seen uint64
	since := time.Now()
	eventually(t, "nothing more is taken in", func() bool {
		if n := s.Stats().Packets; n != seen {
			seen, since = n, time.Now()
		}
		return time.Since(since) > 200*time.Millisecond
	})
	for i := range 20 {
		alice.write(fmt.Sprintf(`42%d["echo"]`, i))
		alice.expect(fmt.Sprintf(`43%d[]`, i))
	}
	if n := s.Stats().Packets; n > 60 {
		t.Errorf("%d packets were taken in while the handler slept", n)
	}
	close(release)
	<-wrote
	slow.write(`427["echo"]`)
	slow.expect(`437[]`)
}

// What a client sent before it vanished is handled, in order, before its end.
func TestEventsBeforeTheEndAreHandled(t *testing.T) {
	handled := make(chan string, 1000)
	s := newStand(t, Config{}, func(_ *recorder, h *Hub) {
		Handle(h, "save", func(_ context.Context, s *Session, what string) (any, error) { handled <- what; return nil, nil })
	})
	for i := range 100 {
		c := s.connect(t, "alice")
		c.write(fmt.Sprintf(`42["save","%d"]`, i), "41")
		c.ws.Close(1000, "")
		s.waitLeft(t)
		if len(handled) != 1 {
			t.Fatalf("connection %d: %d events were handled", i, len(handled))
		}
		if got := <-handled; got != fmt.Sprint(i) {
			t.Fatal(got)
		}
	}
}

// The client emits as soon as it has read the CONNECT reply: nothing of it may be lost.
func TestEventRightAfterConnectIsNeverLost(t *testing.T) {
	n := 1000
	if testing.Short() {
		n = 200
	}
	s := newStand(t, Config{}, func(_ *recorder, h *Hub) { handleEcho(h) })
	for i := range n {
		c := s.connect(t, "alice")
		c.write(fmt.Sprintf(`42%d["echo",%d]`, i, i))
		c.expect(fmt.Sprintf(`43%d[%d]`, i, i))
		c.vanish()
	}
}

func TestPollingClientsAreServedTheSame(t *testing.T) {
	s := newStand(t, Config{}, func(_ *recorder, h *Hub) { handleEcho(h) })
	p := s.poll(t)
	p.post(`40{"token":"alice"}`)
	if got := p.get(); !strings.HasPrefix(got, "40{") {
		t.Fatal(got)
	}
	p.post("421[\"echo\",1]\x1e451-2[\"echo\",{\"_placeholder\":true,\"num\":0}]\x1ebAQID")
	var got []string
	for len(got) < 3 {
		got = append(got, strings.Split(p.get(), "\x1e")...)
	}
	want := []string{`431[1]`, `461-2[{"_placeholder":true,"num":0}]`, `bAQID`}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%q", got)
	}
	p.post("1")
	s.waitLeft(t)
}

func TestTokenBucketRefills(t *testing.T) {
	s := &Session{hub: &Hub{config: Config{EventBurst: 3}, tokenCost: int64(time.Second)}}
	now := time.Unix(1000, 0)
	spend := func(want bool) {
		t.Helper()
		if s.spend(now) != want {
			t.Errorf("at %v: not %v", now, want)
		}
	}
	spend(true)
	spend(true)
	spend(true)
	spend(false)
	now = now.Add(time.Second)
	spend(true)
	spend(false)
	now = now.Add(time.Hour)
	spend(true)
	spend(true)
	spend(true)
	spend(false)
}

// A clock that is set back makes nobody a flood: every client that had sent something lately would be closed.
func TestTheRateTakesAClockThatIsSetBack(t *testing.T) {
	s, now := &Session{hub: &Hub{config: Config{EventBurst: 3}, tokenCost: int64(time.Second)}}, time.Now()
	if !s.spend(now) || !s.spend(now.Add(-time.Hour)) || !s.spend(now.Add(-time.Hour)) {
		t.Error("refused")
	}
	if !s.spend(now.Add(-time.Hour)) || s.spend(now.Add(-time.Hour)) {
		t.Error("the burst is another one")
	}
}
