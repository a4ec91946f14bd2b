//go:build linux

package hostile

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// Reasons for which the server closes connections, as its metrics name them.
const (
	parseError  = "parse error"
	protocol    = "protocol violation"
	parser      = "unsupported parser"
	eventRate   = "event rate"
	handshakeTO = "handshake timeout"
	refused     = "refused"
)

// misdeed is a series of Engine.IO messages; those with the prefix "b" are binary, as in a polling payload.
type misdeed struct {
	name    string
	packets []string
	reason  string // for which the connection is closed; "" when it is not
}

// always are misdeeds in any state of a connection.
func always() []misdeed {
	deep := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	list := []misdeed{
		{"binary event that promises 5999999999 attachments", []string{`45999999999-["x"]`}, parseError},
		{"binary event without an attachment count", []string{`45-["x"]`}, parseError},
		{"binary event without a dash", []string{`451["x"]`}, parseError},
		{"binary event with a negative count", []string{`45-1-["x"]`}, parseError},
		{"binary event with 9 attachments", []string{`459-["x"]`}, parseError},
		{"binary event with a count of 30 digits", []string{`45` + strings.Repeat("1", 30) + `-["x"]`}, parseError},
		{"binary ack that promises 2^63", []string{`469223372036854775808-1[]`}, parseError},
		{"event", []string{`42`}, parseError},
		{"event with an ack id only", []string{`421`}, parseError},
		{"binary event with a count only", []string{`450-`}, parseError},
		{"ack without arguments", []string{`431`}, parseError},
		{"ack without an id", []string{`43[]`}, parseError},
		{"event whose name is a number", []string{`42[1]`}, parseError},
		{"event whose name is an object", []string{`42[{}]`}, parseError},
		{"event without a name", []string{`42[]`}, parseError},
		{"event with an object", []string{`42{}`}, parseError},
		{"event with null", []string{`42null`}, parseError},
		{"event with half a JSON", []string{`42["x",`}, parseError},
		{"event with two arrays", []string{`42["x"]["y"]`}, parseError},
		{"event with a lone surrogate's name cut", []string{`42["\ud8"]`}, parseError},
		{"event with an ack id of 2^53", []string{`429007199254740992["x"]`}, parseError},
		{"event with an ack id of 400 digits", []string{`42` + strings.Repeat("9", 400) + `["x"]`}, parseError},
		{"event with leading zeros", []string{`42007["x"]`}, parseError},
		{"event nested 100 levels deep", []string{`42["x",` + deep(100) + `]`}, parseError},
		{"event nested 30,000 levels deep", []string{`42["x",` + deep(30_000) + `]`}, parseError},
		{"event that only opens brackets", []string{`42` + strings.Repeat("[", 60_000)}, parseError},
		{"event that only opens braces", []string{`42["x",` + strings.Repeat(`{"a":`, 12_000)}, parseError},
		{"event with 10,000 arguments", []string{`42["x"` + strings.Repeat(`,0`, 10_000) + `]`}, parseError},
		{"connect error", []string{`44{"message":"x"}`}, parseError},
		{"unknown packet type", []string{`47`}, parseError},
		{"packet type a letter", []string{`4a["x"]`}, parseError},
		{"nothing in a message", []string{`4`}, parseError},
		{"CONNECT with an array", []string{`40["token"]`}, parseError},
		{"CONNECT with a text", []string{`40"token"`}, parseError},
		{"CONNECT with half an object", []string{`40{"token":`}, parseError},
		{"CONNECT with an ack id", []string{`401{}`}, parseError},
		{"CONNECT nested 10,000 levels deep", []string{`40{"a":` + deep(10_000) + `}`}, parseError},
		{"CONNECT to a namespace of 60,000 bytes", []string{`40/` + strings.Repeat("n", 60_000) + `,`}, parseError},
		{"DISCONNECT with a payload", []string{`41{}`}, parseError},
		{"DISCONNECT from another namespace", []string{`41/x,`}, protocol},
		{"event in another namespace", []string{`42/x,["y"]`}, protocol},
		{"namespaces without end", manyNamespaces(200), protocol},
	}
	for _, name := range []string{"connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"} {
		list = append(list, misdeed{"reserved event " + name, []string{fmt.Sprintf(`42[%q]`, name)}, parseError})
	}
	return list
}

func manyNamespaces(n int) []string {
	var packets []string
	for i := range n {
		packets = append(packets, fmt.Sprintf("40/ns-%d,{}", i))
	}
	return packets
}

// early are misdeeds of a connection that has no session yet.
func early() []misdeed {
	good := `40{"token":"` + token("early") + `"}`
	fifty := []string{good}
	for range 49 {
		fifty = append(fifty, good)
	}
	return []misdeed{
		{"event before CONNECT", []string{`42["get_online_users"]`}, protocol},
		{"event with an ack before CONNECT", []string{`420["get_online_users"]`}, protocol},
		{"ack before CONNECT", []string{`430[]`}, protocol},
		{"DISCONNECT before CONNECT", []string{`41`}, protocol},
		{"binary event before CONNECT", []string{`451-["x",{"_placeholder":true,"num":0}]`}, protocol},
		{"CONNECT fifty times", fifty, protocol},
		{"binary CONNECT, as socket.io-msgpack-parser sends it", []string{"bhKR0eXBlAKNuc3ChL6RkYXRhgKdvcHRpb25zgA=="}, parser},
		{"attachment of nothing", []string{`bAAAA`}, parser},
		{"CONNECT without a token", []string{`40`}, refused},
		{"CONNECT without a token fifty times", strings.Split(strings.Repeat("40 ", 49)+"40", " "), protocol},
		{"CONNECT in pieces of other namespaces", []string{`40/a,`, `40/b,`, `40/c,`, `40/d,`}, protocol},
	}
}

// late are misdeeds of a connection with a session.
func late() []misdeed {
	return []misdeed{
		{"a second CONNECT", []string{`40{"token":"` + token("late") + `"}`}, protocol},
		{"attachment of nothing", []string{`bAAAA`}, parseError},
		{"text while an attachment is missing", []string{`452-["x"]`, `bAAAA`, `42["y"]`}, parseError},
		{"placeholders without their attachments", []string{`451-["x",{"_placeholder":true,"num":1},{"_placeholder":true,"num":-1}]`, `bAAAA`}, ""},
		{"acks that nobody asked for", strings.Split(strings.Repeat(`430["x"] `, 99)+`431[]`, " "), ""},
		{"events that nobody knows", strings.Split(strings.Repeat(`42["x",{"y":[1,2,3]}] `, 99)+`42["x"]`, " "), ""},
		{"binary event with all its attachments", []string{`452-["x",{"_placeholder":true,"num":0},{"num":1,"_placeholder":true}]`, `bAAAA`, `b`}, ""},
		{"event named as an attribute of everything", []string{`42["__proto__"]`, `42["constructor",{"__proto__":{"a":1}}]`}, ""},
		{"wrong arguments", []string{`42["authenticate"]`, `42["authenticate",null]`, `42["authenticate",{"token":{}}]`,
			`42["authenticate",{"token":"x","x":1}]`, `42["get_online_users",1,2]`, `42["get_online_users",{}]`}, ""},
	}
}

// No Socket.IO packet ends more than its own connection, and the reason is counted.
func TestMalformedPackets(t *testing.T) {
	t.Parallel()
	n := start(t, "--log-level=debug", "--handshake-timeout=3s", "--ping-interval=5s")
	watch(t, n)
	for _, phase := range []struct {
		name    string
		session bool
		list    []misdeed
	}{
		{"before CONNECT", false, append(always(), early()...)},
		{"in a session", true, append(always(), late()...)},
	} {
		for _, transport := range []string{"websocket", "polling"} {
			t.Run(phase.name+" on "+transport, func(t *testing.T) {
				for _, m := range phase.list {
					t.Run(m.name, func(t *testing.T) { commit(t, n, m, transport, phase.session) })
				}
			})
		}
	}
}

// commit does a misdeed and checks what comes of it.
func commit(t *testing.T, n *node, m misdeed, transport string, session bool) {
	before := n.scrape(t)
	l := must[link](t)(n.link(transport))
	defer l.close(true)
	if session {
		if err := ask(l, `40{"token":"`+token("packets")+`"}`, "40{"); err != nil {
			t.Fatal(err)
		}
	}
	if err := send(l, m.packets); err != nil && m.reason == "" {
		t.Fatal(err)
	}
	if m.reason == "" {
		if err := ask(l, `4299["get_online_users"]`, "4399["); err != nil {
			t.Errorf("the connection should live: %v", err)
		}
	} else {
		if err := ended(l); err != nil {
			t.Error(err)
		}
		n.eventually(t, "one more connection closed for "+m.reason, func(now metrics) bool {
			return now[closed(m.reason)] == before[closed(m.reason)]+1
		})
	}
	n.stillServes(t)
}

// An event in one piece with CONNECT comes before its answer, or just behind it when the server is quick: it ends the connection,
// or it is served, and it never hangs.
func TestEventWithConnect(t *testing.T) {
	t.Parallel()
	n := start(t)
	watch(t, n)
	good := `40{"token":"` + token("hasty") + `"}`
	ends := 0
	for i := range size(40, 400) {
		l := must[link](t)(n.link([]string{"websocket", "polling"}[i%2]))
		defer l.close(true)
		if err := send(l, []string{good, `427["get_online_users"]`}); err != nil {
			t.Fatal(err)
		}
		served, err := endedOr(l, "437[")
		if err != nil {
			t.Fatal(err)
		}
		if !served {
			ends++
		}
		l.close(true)
	}
	n.eventually(t, "each end is one for "+protocol, func(m metrics) bool { return m[closed(protocol)] == float64(ends) })
	n.stillServes(t)
	t.Logf("%d of %d were too early", ends, size(40, 400))
}

// send writes packets in one go, binary ones as the transport has them.
func send(l link, packets []string) error {
	d, websocket := l.(*direct)
	if !websocket {
		return l.write(packets...)
	}
	var all []byte
	for _, packet := range packets {
		if content, binary := strings.CutPrefix(packet, "b"); binary {
			all = append(all, frame(fin|opBinary, decoded(content))...)
		} else {
			all = append(all, text(packet)...)
		}
	}
	_, err := d.Write(all)
	return err
}

// ask writes a packet and reads until one comes that begins like the answer.
func ask(l link, packet, answer string) error {
	if err := l.write(packet); err != nil {
		return err
	}
	for {
		got, err := l.read()
		if err != nil || strings.HasPrefix(got, answer) {
			return err
		}
		if got == "2" {
			if err := l.write("3"); err != nil {
				return err
			}
		}
	}
}

// ended reads until the connection has ended; pings are answered, since not answering is another misdeed.
func ended(l link) error {
	_, err := endedOr(l, "nothing")
	return err
}

// endedOr is ended, unless a packet comes before that begins like the answer.
func endedOr(l link, answer string) (answered bool, err error) {
	deadline := time.AfterFunc(patience, func() { l.close(true) })
	defer deadline.Stop()
	for {
		got, err := l.read()
		if err == nil {
			if strings.HasPrefix(got, answer) {
				return true, nil
			}
			if got == "2" {
				_ = l.write("3") // it may be over already
			}
			continue
		}
		var code closeError
		switch {
		case !deadline.Stop():
			return false, errors.New("the connection does not end")
		case refusedWith(err, http.StatusBadRequest): // the session is gone
		case errors.As(err, &code), isEnd(err):
		default:
			return false, fmt.Errorf("the connection ended with %w", err)
		}
		return false, nil
	}
}
