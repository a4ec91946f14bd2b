//go:build linux

package hostile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// The bounds of the default configuration.
const maxPayload = 64 << 10

// closeFrame is a client's close frame with that code and reason.
func closeFrame(code uint16, reason string) []byte {
	return frame(fin|opClose, string(binary.BigEndian.AppendUint16(nil, code))+reason)
}

func join(parts ...[]byte) []byte {
	var all []byte
	for _, part := range parts {
		all = append(all, part...)
	}
	return all
}

// survives stands for a connection that goes on.
const survives = -1

// breach is something on a websocket that RFC 6455 or Engine.IO does not allow, and the close code that it gets.
type breach struct {
	name  string
	bytes []byte
	code  int
}

func breaches() []breach {
	list := []breach{
		{"unmasked frame", []byte{fin | opText, 2, '4', '0'}, 1002},
		{"unmasked empty frame", []byte{fin | opText, 0}, 1002},
		{"claims 2^63-1 bytes", head(fin|opText, 1<<63-1), 1009},
		{"claims 2^63 bytes", head(fin|opText, 1<<63), 1002},
		{"claims 2^64-1 bytes", head(fin|opBinary, 1<<64-1), 1002},
		{"claims one byte too many", head(fin|opText, maxPayload+1), 1009},
		{"claims one byte too many, binary", head(fin|opBinary, maxPayload+1), 1009},
		{"claims 4 GiB in a continuation", join(frame(opText, "4"), head(fin|opContinuation, 4<<30)), 1009},
		{"control frame of 126 bytes", frame(fin|opPing, strings.Repeat("x", 126)), 1002},
		{"control frame that claims 2^63-1 bytes", head(fin|opPing, 1<<63-1), 1002},
		{"close frame of 126 bytes", frame(fin|opClose, "\x03\xe8"+strings.Repeat("x", 124)), 1002},
		{"fragmented ping", frame(opPing, "x"), 1002},
		{"fragmented close", frame(opClose, "\x03\xe8"), 1002},
		{"continuation of nothing", frame(fin|opContinuation, "x"), 1002},
		{"message inside a fragmented one", join(frame(opText, "4"), text("4")), 1002},
		{"continuation after the end", join(frame(opText, "3"), frame(opContinuation, ""), text("3")), 1002},
		{"fragments that grow too big", join(frame(opText, "4"), times(80, frame(opContinuation, strings.Repeat("x", 1000)))), 1009},
		{"fragments without end, all empty", join(frame(opText, ""), times(100_000, frame(opContinuation, "")), text("")), 1002},
		{"text that is not UTF-8", text("4\xff\xfe"), 1007},
		{"overlong UTF-8", text("4\xc0\xaf"), 1007},
		{"a surrogate in UTF-8", text("4\xed\xa0\x80"), 1007},
		{"text that ends inside a rune", text("4\xe2\x82"), 1007},
		{"fragments whose text is not UTF-8", join(frame(opText, "4\xe2"), frame(fin|opContinuation, "\xff")), 1007},
		{"close payload of one byte", frame(fin|opClose, "x"), 1002},
		{"close reason that is not UTF-8", closeFrame(1000, "\xff"), 1007},
		{"close", closeFrame(1000, "bye"), 1000},
		{"close without a code", frame(fin|opClose, ""), 1005},
		{"close with a private code", closeFrame(4999, ""), 4999},
		{"what follows a close", join(closeFrame(1001, ""), times(1000, text("40"))), 1001},
		{"an HTTP request", []byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), 1002},
		{"noise", times(1000, []byte("\x8f\xf0\x0f\xff\x00")), 1002},

		{"no packet type", text(""), 1002},
		{"open packet", text("0{}"), 1002},
		{"ping packet", text("2"), 1002},
		{"probe packet", text("2probe"), 1002},
		{"upgrade packet", text("5"), 1002},
		{"noop packet", text("6"), 1002},
		{"unknown packet", text("7"), 1002},
		{"not a packet", text("x"), 1002},
		{"close packet", text("1"), 1000},
		{"pongs that nobody asked for", times(5000, text("3")), 1002},
		{"a pong with a body, again and again", times(5000, text("3{}")), 1002},

		{"websocket pongs that nobody asked for", times(100, frame(fin|opPong, "x")), survives},
		{"pings between fragments", join(frame(opText, "4"), frame(fin|opPing, "a"), frame(opContinuation, "0"), frame(fin|opPing, ""),
			frame(fin|opContinuation, "/x,")), survives},
		{"a rune split between fragments", join(frame(opText, "40/\xe2"), frame(fin|opContinuation, "\x82\xac,")), survives},
	}
	for _, bits := range []byte{0x10, 0x20, 0x40, 0x70} {
		list = append(list, breach{fmt.Sprintf("reserved bits %x", bits), frame(fin|bits|opText, "40"), 1002})
	}
	for op := byte(3); op <= 15; op++ {
		if op < opClose || op > opPong {
			list = append(list, breach{fmt.Sprintf("reserved opcode %x", op), frame(fin|op, "x"), 1002})
		}
	}
	for _, code := range []uint16{0, 1, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, 65535} {
		list = append(list, breach{fmt.Sprintf("close code %d", code), closeFrame(code, ""), 1002})
	}
	return list
}

// Whatever a client sends on its websocket, before it has a session and after, ends at most its own
// connection, with the code that the RFC has for it.
func TestBrokenFrames(t *testing.T) {
	t.Parallel()
	n := start(t, "--log-level=debug")
	watch(t, n)
	for _, b := range breaches() {
		t.Run("behind the handshake/"+b.name, func(t *testing.T) {
			w, err := n.websocket("", b.bytes...)
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			if open := must[string](t)(w.packet()); open[0] != '0' {
				t.Fatalf("first packet %q", open)
			}
			judge(t, n, w, b.code, "40{\"token\":\""+token("frames")+"\"}", "40{")
		})
		t.Run("in a session/"+b.name, func(t *testing.T) {
			w := connected(t, n, "frames")
			defer w.Close()
			go w.Write(b.bytes) // the server may close before it has read everything
			judge(t, n, w, b.code, `427["get_online_users"]`, "437[")
		})
	}
}

// judge checks how the connection ends; or that it does not, and probe is still answered.
func judge(t *testing.T, n *node, w *wire, code int, probe, answer string) {
	t.Helper()
	if code == survives {
		if err := w.ask(probe, answer); err != nil {
			t.Errorf("the connection should live: %v", err)
		}
	} else if got, err := w.ending(); err != nil {
		t.Error(err)
	} else if got != code {
		t.Errorf("closed with %d, want %d", got, code)
	}
	n.stillServes(t)
}

// ask sends a packet and reads until one comes that begins like the answer.
func (w *wire) ask(packet, answer string) error {
	if _, err := w.Write(text(packet)); err != nil {
		return err
	}
	for {
		got, err := w.packet()
		if err != nil || strings.HasPrefix(got, answer) {
			return err
		}
	}
}

// connected is a raw websocket with a session, whose greetings were read.
func connected(t *testing.T, n *node, user string) *wire {
	t.Helper()
	w := must[*wire](t)(n.websocket(""))
	if err := w.ask("40{\"token\":\""+token(user)+"\"}", "40{"); err != nil {
		t.Fatal(err)
	}
	return w
}

// A client that answers pings nobody sent, from its first byte on, and keeps at it.
func TestPongFlood(t *testing.T) {
	t.Parallel()
	n := start(t)
	watch(t, n)
	for _, c := range []struct{ name, first string }{
		{"before the token", ""},
		{"behind the token", "40{\"token\":\"" + token("flood") + "\"}"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for range size(20, 500) {
				var first []byte
				if c.first != "" {
					first = text("4" + c.first)
				}
				w := must[*wire](t)(n.websocket("", append(first, times(2000, text("3"))...)...))
				go w.Write(times(20_000, text("3")))
				if code, err := w.ending(); err != nil || code != 1002 && code != 0 { // 0: reset over what was not read
					t.Errorf("code %d, %v", code, err)
				}
				w.Close()
			}
			n.stillServes(t)
		})
	}
	n.empty(t, 4)
}

// A client that pings and does not read its pongs is a slow reader, session or not.
func TestPingFlood(t *testing.T) {
	t.Parallel()
	n := start(t, "--max-queue=1MiB")
	b := watch(t, n)
	pings := times(1000, frame(fin|opPing, strings.Repeat("p", 125)))
	for _, c := range []struct {
		name, token string
	}{
		{"before the token", ""},
		{"in a session", "40{\"token\":\"" + token("pings") + "\"}"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := must[*wire](t)(n.dialNarrow())
			defer w.Close()
			if err := w.handshake(n.addr, ""); err != nil {
				t.Fatal(err)
			}
			if c.token != "" {
				if err := w.ask(c.token, "40{"); err != nil {
					t.Fatal(err)
				}
			}
			before := n.scrape(t)["slow_clients_total"]
			written := 0
			for {
				m, err := w.Write(pings)
				if written += m; err != nil {
					if isTimeout(err) {
						t.Errorf("still open after %d bytes of pings: %v", written, err)
					}
					break
				}
			}
			n.eventually(t, "a slow client", func(m metrics) bool { return m["slow_clients_total"] == before+1 })
			n.stillServes(t)
		})
	}
	b.stands(t)
	n.empty(t, 0)
}

// Connections that break off at every point of their opening leave nothing behind.
func TestBrokenOpenings(t *testing.T) {
	t.Parallel()
	n := start(t)
	before := n.footing(t)
	request := upgradeRequest(n.addr, "")
	request = append(request, text("40{\"token\":\""+token("openings")+"\"}")...)
	step := max(len(request)/size(60, 600), 1)
	for cut := 0; cut <= len(request); cut += step {
		w := must[*wire](t)(n.wire(nil))
		if _, err := w.Write(request[:cut]); err != nil {
			t.Fatal(err)
		}
		if cut%2 == 0 {
			w.vanish()
		} else {
			w.Close()
		}
	}
	n.returnsTo(t, before)
	n.stillServes(t)
}

// A websocket handshake that is not one is answered in HTTP.
func TestBrokenHandshakes(t *testing.T) {
	t.Parallel()
	n := start(t, "--log-level=debug")
	watch(t, n)
	good := string(upgradeRequest(n.addr, ""))
	replace := func(old, with string) string { return strings.Replace(good, old, with, 1) }
	const keyLine = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	for _, c := range []struct {
		name, request string
		status        int
	}{
		{"no key", replace(keyLine, ""), 400},
		{"two keys", replace(keyLine, keyLine+keyLine), 400},
		{"a short key", replace("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ="), 400},
		{"a key that is not base64", replace("dGhlIHNhbXBsZSBub25jZQ==", "!!!!IHNhbXBsZSBub25jZQ=="), 400},
		{"version 8", replace("Version: 13", "Version: 8"), 426},
		{"version 13 and 8", replace("Version: 13", "Version: 13, 8"), 426},
		{"no version", replace("Sec-WebSocket-Version: 13\r\n", ""), 426},
		{"no upgrade", replace("Upgrade: websocket\r\n", ""), 400},
		{"another upgrade", replace("Upgrade: websocket", "Upgrade: h2c"), 400},
		{"no connection", replace("Connection: Upgrade\r\n", ""), 400},
		{"POST", replace("GET ", "POST "), 400},
		{"HTTP/1.0", replace("HTTP/1.1", "HTTP/1.0"), 400},
		{"extensions and subprotocols", replace(keyLine, keyLine+"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\nSec-WebSocket-Protocol: a, b\r\n"), 101},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := must[*wire](t)(n.wire(nil))
			defer w.Close()
			if _, err := w.Write([]byte(c.request)); err != nil {
				t.Fatal(err)
			}
			response, err := w.response()
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			if response.StatusCode != c.status {
				t.Errorf("status %s, want %d", response.Status, c.status)
			}
			for _, name := range []string{"Sec-WebSocket-Extensions", "Sec-WebSocket-Protocol"} {
				if value := response.Header.Get(name); value != "" {
					t.Errorf("%s: %s, although none is served", name, value)
				}
			}
			n.stillServes(t)
		})
	}
	t.Run("compressed frames", func(t *testing.T) {
		w := must[*wire](t)(n.websocket("", frame(fin|0x40|opText, "\x32\x30\x00")...))
		defer w.Close()
		if code, err := w.ending(); err != nil || code != 1002 {
			t.Errorf("code %d, %v", code, err)
		}
	})
	if _, err := n.websocket("&sid=nobody"); !errors.Is(err, errNotSwitched) {
		t.Errorf("a session that does not exist was upgraded: %v", err)
	}
}
