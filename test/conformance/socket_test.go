package conformance

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// The clauses of the Socket.IO protocol, revision 5, in the order of the document.

// connected is a websocket in the main namespace, past the "auth" event.
func connected(t *testing.T) *wsConn {
	t.Helper()
	c, _ := openWS(t, socketIO)
	c.send("40")
	wantConnect(t, c.read(), "40")
	c.expect(`42["auth",{}]`)
	return c
}

// wantConnect checks a CONNECT reply and returns the session id in it.
func wantConnect(t *testing.T, packet, prefix string) string {
	t.Helper()
	text, ok := strings.CutPrefix(packet, prefix)
	var reply struct{ Sid string }
	if !ok || json.Unmarshal([]byte(text), &reply) != nil || reply.Sid == "" {
		t.Fatalf("%q is no CONNECT reply", packet)
	}
	return reply.Sid
}

func TestSocketConnect(t *testing.T) {
	c, o := openWS(t, socketIO)
	c.send("40")
	if sid := wantConnect(t, c.read(), "40"); sid == o.Sid {
		t.Error("the Socket.IO id is the Engine.IO id, which is a secret")
	}
	c.expect(`42["auth",{}]`)
}

func TestSocketConnectWithPayload(t *testing.T) {
	c, _ := openWS(t, socketIO)
	c.send(`40{"token":"123"}`)
	wantConnect(t, c.read(), "40")
	c.expect(`42["auth",{"token":"123"}]`)
}

func TestSocketConnectOverPolling(t *testing.T) {
	p := openPolling(t, socketIO)
	p.send(`40{"token":"123"}`)
	var got []string
	for len(got) < 2 {
		got = append(got, p.receive()...)
	}
	wantConnect(t, got[0], "40")
	if got[1] != `42["auth",{"token":"123"}]` {
		t.Errorf("%q", got)
	}
}

// The server either has a namespace or says that it may not be connected to; the main one is not affected.
func TestSocketConnectToANamespaceIsAnswered(t *testing.T) {
	c := connected(t)
	c.send("40/custom,")
	switch reply := c.read(); {
	case strings.HasPrefix(reply, "40/custom,"):
		wantConnect(t, reply, "40/custom,")
		c.expect(`42/custom,["auth",{}]`)
	default:
		wantConnectError(t, reply, "44/custom,")
	}
	c.send(`42["message",1]`)
	c.expect(`42["message-back",1]`)
}

func TestSocketConnectToAnUnknownNamespace(t *testing.T) {
	for _, packet := range []string{"40/random", "40/random,"} {
		c, _ := openWS(t, socketIO)
		c.send(packet)
		wantConnectError(t, c.read(), "44/random,")
	}
}

func wantConnectError(t *testing.T, packet, prefix string) {
	t.Helper()
	text, ok := strings.CutPrefix(packet, prefix)
	var reply struct{ Message string }
	if !ok || json.Unmarshal([]byte(text), &reply) != nil || reply.Message == "" {
		t.Fatalf("%q is no CONNECT_ERROR", packet)
	}
}

func TestSocketConnectMustComeFirst(t *testing.T) {
	for _, packet := range []string{`42["message"]`, `41`, `431[]`, `4abc`} {
		c, _ := openWS(t, socketIO)
		c.send(packet)
		c.expectClosed()
	}
}

func TestSocketConnectMustComeInTime(t *testing.T) {
	t.Parallel()
	c, _ := openWS(t, socketIO)
	c.expectClosed()
}

func TestSocketEvent(t *testing.T) {
	c := connected(t)
	c.send(`42["message"]`, `42["message",1,"2",{"3":[true]}]`)
	c.expect(`42["message-back"]`, `42["message-back",1,"2",{"3":[true]}]`) // no namespace: it is the main one
}

func TestSocketEventOverPolling(t *testing.T) {
	p := openPolling(t, socketIO)
	p.send("40")
	for got := p.receive(); got[len(got)-1] != `42["auth",{}]`; got = p.receive() {
	}
	p.send(`42["message","hello"]`, `42["message","world"]`)
	p.expect(`42["message-back","hello"]`, `42["message-back","world"]`)
}

func TestSocketEventsKeepTheirOrder(t *testing.T) {
	const n = 500
	c := connected(t)
	go func() {
		for i := range n {
			c.send(fmt.Sprintf(`42["message",%d]`, i))
		}
	}()
	for i := range n {
		c.expect(fmt.Sprintf(`42["message-back",%d]`, i))
	}
}

func TestSocketEventPayloadMustBeANonEmptyArray(t *testing.T) {
	for _, packet := range []string{`42`, `421`, `42{}`, `42[]`, `42"message"`, `42["message"`, `421{}`} {
		t.Run(packet, func(t *testing.T) {
			c := connected(t)
			c.send(packet)
			c.expectClosed()
		})
	}
}

func TestSocketBinaryEvent(t *testing.T) {
	c := connected(t)
	c.send(`452-["message",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]`)
	c.sendBinary(1, 2, 3)
	c.sendBinary(4, 5, 6)
	c.expect(`452-["message-back",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]`)
	c.expectBinary(1, 2, 3)
	c.expectBinary(4, 5, 6)
}

func TestSocketBinaryEventOverPolling(t *testing.T) {
	p := openPolling(t, socketIO)
	p.send("40")
	for got := p.receive(); got[len(got)-1] != `42["auth",{}]`; got = p.receive() {
	}
	p.send(`451-["message",{"_placeholder":true,"num":0}]`, "bAQIDBA==")
	p.expect(`451-["message-back",{"_placeholder":true,"num":0}]`, "bAQIDBA==")
}

func TestSocketBinaryEventNeedsItsAttachments(t *testing.T) {
	c := connected(t)
	c.send(`451-["message",{"_placeholder":true,"num":0}]`, `42["message"]`)
	c.expectClosed()
	c = connected(t)
	c.sendBinary(1)
	c.expectClosed()
}

func TestSocketAcknowledgement(t *testing.T) {
	c := connected(t)
	c.send(`42456["message-with-ack",1,"2",{"3":[false]}]`, `420["message-with-ack"]`)
	c.expect(`43456[1,"2",{"3":[false]}]`, `430[]`)
}

func TestSocketAcknowledgementWithBinary(t *testing.T) {
	c := connected(t)
	c.send(`452-789["message-with-ack",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]`)
	c.sendBinary(1, 2, 3)
	c.sendBinary(4, 5, 6)
	c.expect(`462-789[{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]`)
	c.expectBinary(1, 2, 3)
	c.expectBinary(4, 5, 6)
}

func TestSocketAcknowledgementIdMustBeANumber(t *testing.T) {
	c := connected(t)
	c.send(`42abc["message-with-ack",1]`)
	c.expectClosed()
}

// Acks that nobody asked for do not hurt: an emit may have timed out.
func TestSocketAcknowledgementUnasked(t *testing.T) {
	c := connected(t)
	c.send(`4399["x"]`, `42["message"]`)
	c.expect(`42["message-back"]`)
}

// No response is expected, and the low-level connection may stay: the next thing is its heartbeat, or its end.
func TestSocketDisconnect(t *testing.T) {
	t.Parallel()
	c := connected(t)
	c.send("41")
	if _, data, err := c.tryRead(); err == nil && string(data) != "2" && string(data) != "1" {
		t.Errorf("DISCONNECT was answered %q", data)
	}
}

func TestSocketEncodingUnknownTypeCloses(t *testing.T) {
	for _, packet := range []string{`4abc`, `47`, `4`, `49["message"]`} {
		c := connected(t)
		c.send(packet)
		c.expectClosed()
	}
}

func TestSocketEncodingMainNamespaceMayBeNamed(t *testing.T) {
	c, _ := openWS(t, socketIO)
	c.send(`40/,{"a":1}`)
	wantConnect(t, c.read(), "40")
	c.expect(`42["auth",{"a":1}]`)
	c.send(`42/,["message"]`)
	c.expect(`42["message-back"]`)
}

func TestSocketEncodingSampleSession(t *testing.T) {
	p := openPolling(t, socketIO)
	p.send("40")
	for got := p.receive(); got[len(got)-1] != `42["auth",{}]`; got = p.receive() {
	}
	p.send(`42["message","hello"]`)
	p.expect(`42["message-back","hello"]`)
	c, err := dialWS(t, strings.Replace(p.url, "polling", "websocket", 1))
	if err != nil {
		t.Fatal(err)
	}
	c.send("2probe")
	c.expect("3probe")
	c.send("5", `42["message","world"]`, `421["message-with-ack","tellme"]`)
	c.expect(`42["message-back","world"]`, `431["tellme"]`)
	c.send("1")
	c.expectClosed()
}
