package conformance

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"jobwire/test/conformance/server"
)

// The clauses of the Engine.IO protocol, revision 4, in the order of the document.

func TestEngineTransportsPollingQueryParameters(t *testing.T) {
	for _, query := range []string{
		"transport=polling", "EIO=abc&transport=polling", "EIO=3&transport=polling", "EIO=&transport=polling", // EIO is mandatory, and 4
		"EIO=4", "EIO=4&transport=abc", "EIO=4&transport=", // transport is mandatory
		"EIO=4&transport=polling&sid=unknown", // so is a known sid
	} {
		status, body := request(t, "GET", engineIO+"?"+query, "")
		wantStatus(t, query, 400, status, body)
	}
}

func TestEngineTransportsHandshakeMethod(t *testing.T) {
	for _, method := range []string{"POST", "PUT"} {
		status, body := request(t, method, engineIO+"?EIO=4&transport=polling", "")
		wantStatus(t, method, 400, status, body)
	}
}

func TestEngineTransportsPollingSendAnswersOk(t *testing.T) {
	p := openPolling(t, engineIO)
	p.send("4hello") // wants 200 and "ok"
	p.expect("4hello")
}

func TestEngineTransportsPollingSendNeedsAKnownSession(t *testing.T) {
	status, body := request(t, "POST", engineIO+"?EIO=4&transport=polling&sid=unknown", "4hello")
	wantStatus(t, "POST", 400, status, body)
}

func TestEngineTransportsPollingOverlappingSendsCloseTheSession(t *testing.T) {
	p := openPolling(t, engineIO)
	u, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	nc, err := net.Dial("tcp", u.Host)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	// Half a body: the request is active until the rest comes.
	fmt.Fprintf(nc, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: text/plain\r\nContent-Length: 100\r\n\r\n4hel", p.url, u.Host)
	// Whichever of the two comes second is the offender; it cannot be told from here when the server has begun the first.
	var status int
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		if status, _ = request(t, "POST", p.url, "4second"); status != 200 {
			break
		}
		nc.SetReadDeadline(time.Now().Add(time.Millisecond))
		if line, _ := bufio.NewReader(nc).ReadString('\n'); strings.Contains(line, " 400 ") || time.Now().After(end) {
			status = 400
			break
		}
	}
	if status != 400 && status != 0 && status != 500 {
		t.Errorf("the second POST was answered %d", status)
	}
	p.expectClosed()
}

func TestEngineTransportsPollingOverlappingReceivesCloseTheSession(t *testing.T) {
	p := openPolling(t, engineIO)
	first := make(chan int, 1)
	go func() {
		status, _ := request(t, "GET", p.url, "")
		first <- status
	}()
	// Sooner or later the first is there, and the second one too many. The document asks for 400; the reference
	// implementation answers 500, and its suite accepts that.
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		if status, _ := request(t, "GET", p.url, ""); status == 400 || status == 500 || status == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("overlapping polls are served")
		}
	}
	<-first
	p.expectClosed()
}

func TestEngineTransportsPollingReceiveWaitsForPackets(t *testing.T) {
	p := openPolling(t, engineIO)
	answered := make(chan string, 1)
	go func() {
		_, body := request(t, "GET", p.url, "")
		answered <- body
	}()
	select {
	case body := <-answered:
		t.Fatalf("an empty poll was answered %q at once", body)
	case <-time.After(server.PingInterval / 3):
	}
	p.send("4now")
	if body := <-answered; body != "4now" {
		t.Errorf("%q", body)
	}
}

func TestEngineTransportsPollingContentType(t *testing.T) {
	resp, err := http.Get(base + engineIO + "?EIO=4&transport=polling")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if got := resp.Header.Get("Content-Type"); !strings.HasPrefix(strings.ToLower(got), "text/plain") {
		t.Errorf("Content-Type %q", got)
	}
}

func TestEngineTransportsWebSocketQueryParameters(t *testing.T) {
	for _, query := range []string{"transport=websocket", "EIO=abc&transport=websocket", "EIO=4", "EIO=4&transport=abc",
		"EIO=4&transport=websocket&sid=unknown"} {
		t.Run(query, func(t *testing.T) {
			t.Parallel()
			wantRefusedWS(t, engineIO+"?"+query)
		})
	}
}

func TestEngineTransportsWebSocketOnePerSession(t *testing.T) {
	p := openPolling(t, engineIO)
	c, err := dialWS(t, strings.Replace(p.url, "polling", "websocket", 1))
	if err != nil {
		t.Fatal(err)
	}
	c.send("2probe")
	c.expect("3probe")
	c.send("5", "4mine")
	c.expect("4mine")
	wantRefusedWS(t, strings.Replace(p.url, "polling", "websocket", 1))
	c.send("4still")
	c.expect("4still")
}

func TestEngineHandshakePolling(t *testing.T) {
	p := openPolling(t, engineIO)
	checkOpen(t, p.open, []string{"websocket"})
}

func TestEngineHandshakeWebSocket(t *testing.T) {
	_, o := openWS(t, engineIO)
	checkOpen(t, o, []string{})
}

func checkOpen(t *testing.T, o open, upgrades []string) {
	t.Helper()
	if o.Sid == "" || !slices.Equal(o.Upgrades, upgrades) || o.Upgrades == nil || o.PingInterval != int(server.PingInterval.Milliseconds()) ||
		o.PingTimeout != int(server.PingTimeout.Milliseconds()) || o.MaxPayload != server.MaxPayload {
		t.Errorf("%+v", o)
	}
}

func TestEngineHandshakeSessionsDiffer(t *testing.T) {
	if a, b := openPolling(t, engineIO), openPolling(t, engineIO); a.open.Sid == b.open.Sid {
		t.Error("two sessions, one id")
	}
}

func TestEngineHeartbeatPolling(t *testing.T) {
	t.Parallel()
	p := openPolling(t, engineIO)
	for range 3 {
		if _, body := request(t, "GET", p.url, ""); body != "2" {
			t.Fatalf("%q instead of a ping", body)
		}
		p.send("3")
	}
}

func TestEngineHeartbeatWebSocket(t *testing.T) {
	t.Parallel()
	c, _ := openWS(t, engineIO)
	for range 3 {
		start := time.Now()
		if packet := c.readRaw(); packet != "2" {
			t.Fatalf("%q instead of a ping", packet)
		}
		if took := time.Since(start); took < server.PingInterval/2 || took > server.PingInterval+server.PingTimeout {
			t.Errorf("ping after %v", took)
		}
		c.send("3")
	}
}

func TestEngineHeartbeatSilenceClosesPolling(t *testing.T) {
	t.Parallel()
	p := openPolling(t, engineIO)
	time.Sleep(4 * (server.PingInterval + server.PingTimeout)) // the clause is about nothing happening
	status, body := request(t, "GET", p.url, "")
	wantStatus(t, "poll", 400, status, body)
}

func TestEngineHeartbeatSilenceClosesWebSocket(t *testing.T) {
	t.Parallel()
	c, _ := openWS(t, engineIO)
	start := time.Now()
	for {
		_, data, err := c.tryRead()
		if err != nil {
			break
		}
		if string(data) != "2" && string(data) != "1" {
			t.Fatalf("%q", data)
		}
	}
	if took := time.Since(start); took < server.PingInterval {
		t.Errorf("closed after %v", took)
	}
}

func TestEngineUpgrade(t *testing.T) {
	p := openPolling(t, engineIO)
	pending := make(chan string, 1)
	go func() {
		_, body := request(t, "GET", p.url, "")
		pending <- body
	}()
	c, err := dialWS(t, strings.Replace(p.url, "polling", "websocket", 1))
	if err != nil {
		t.Fatal(err)
	}
	c.send("2probe")
	c.expect("3probe")
	if body := <-pending; body != "6" {
		t.Errorf("the pending poll ended with %q, not a noop", body)
	}
	c.send("5", "4hello")
	c.expect("4hello")
	status, body := request(t, "GET", p.url, "")
	wantStatus(t, "poll after the upgrade", 400, status, body)
	c.sendBinary(1, 2)
	c.expectBinary(1, 2)
}

func TestEngineUpgradeLosesNothing(t *testing.T) {
	p := openPolling(t, engineIO)
	p.send("41", "42", "43") // echoes wait for a poll that never comes
	c, err := dialWS(t, strings.Replace(p.url, "polling", "websocket", 1))
	if err != nil {
		t.Fatal(err)
	}
	c.send("2probe")
	c.expect("3probe")
	c.send("5")
	c.expect("41", "42", "43")
}

func TestEngineUpgradeAbandonedProbeLeavesTheSession(t *testing.T) {
	p := openPolling(t, engineIO)
	c, err := dialWS(t, strings.Replace(p.url, "polling", "websocket", 1))
	if err != nil {
		t.Fatal(err)
	}
	c.ws.CloseNow()
	p.send("4hello")
	p.expect("4hello")
}

func TestEngineMessagePolling(t *testing.T) {
	p := openPolling(t, engineIO)
	p.send("4test1", "4test2", "4test3")
	p.expect("4test1", "4test2", "4test3")
	p.send("4hello", "bAQIDBA==")
	p.expect("4hello", "bAQIDBA==")
	p.send("4€ \U0001f600")
	p.expect("4€ \U0001f600")
	p.send("4")
	p.expect("4")
}

func TestEngineMessageWebSocket(t *testing.T) {
	c, _ := openWS(t, engineIO)
	c.send("4hello", "4€ \U0001f600", "4")
	c.expect("4hello", "4€ \U0001f600", "4") // each packet in its own frame
	c.sendBinary(1, 2, 3, 4)
	c.expectBinary(1, 2, 3, 4)
	c.sendBinary(0)
	c.expectBinary(0)
}

func TestEngineEncodingInvalidPacketClosesPolling(t *testing.T) {
	p := openPolling(t, engineIO)
	request(t, "POST", p.url, "abc") // the document does not say how this is answered
	p.expectClosed()
}

func TestEngineEncodingInvalidPacketClosesWebSocket(t *testing.T) {
	for _, packet := range []string{"abc", "", "7", "9x"} {
		c, _ := openWS(t, engineIO)
		c.send(packet)
		c.expectClosed()
	}
}

func TestEngineClosePolling(t *testing.T) {
	p := openPolling(t, engineIO)
	pending := make(chan string, 1)
	go func() {
		_, body := request(t, "GET", p.url, "")
		pending <- body
	}()
	time.Sleep(server.PingInterval / 10) // a poll that comes after the close is answered 400, and that is another clause
	p.send("1")
	if body := <-pending; body != "6" {
		t.Errorf("the pending poll ended with %q, not a noop", body)
	}
	p.expectClosed()
}

func TestEngineCloseWebSocket(t *testing.T) {
	c, _ := openWS(t, engineIO)
	c.send("1")
	c.expectClosed()
}

func TestEngineMaxPayload(t *testing.T) {
	p := openPolling(t, engineIO)
	fits := strings.Repeat("x", server.MaxPayload-1)
	p.send("4" + fits)
	p.expect("4" + fits)
	if status, _ := request(t, "POST", p.url, "4"+fits+"x"); status == 200 {
		t.Error("a POST beyond maxPayload was accepted")
	}
	c, _ := openWS(t, engineIO)
	c.send("4" + fits)
	c.expect("4" + fits)
}
