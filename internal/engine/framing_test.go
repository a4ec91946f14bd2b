package engine

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// The websocket framing is our own, so it has to pass what the field asks of a server. The cases are those of the published
// list of the Autobahn test suite (sections 1 to 7, 9 and 10), written down anew for a server that sends every message back.
// Engine.IO travels in text messages that begin with the type of a packet, "4" for a message.

const rsv1, rsv2, rsv3 = 0x40, 0x20, 0x10

func frame(flags byte, op opcode, payload string) []byte { return clientFrame(flags|byte(op), payload) }
func message(op opcode, payload string) []byte           { return frame(finBit, op, payload) }
func ping(payload string) []byte                         { return frame(finBit, opPing, payload) }
func pong(payload string) []byte                         { return frame(finBit, opPong, payload) }

// fragments are a message in frames of at most size bytes.
func fragments(op opcode, payload string, size int) (frames [][]byte) {
	for first := true; first || payload != ""; first = false {
		part := payload[:min(size, len(payload))]
		payload = payload[len(part):]
		flags := byte(0)
		if payload == "" {
			flags = finBit
		}
		frames = append(frames, frame(flags, op, part))
		op = opContinuation
	}
	return frames
}

func closing(code uint16, reason string) []byte {
	return frame(finBit, opClose, string(binary.BigEndian.AppendUint16(nil, code))+reason)
}

// reply is a frame of the server.
type reply struct {
	op      opcode
	payload string
}

func (r reply) String() string {
	return fmt.Sprintf("%x %.60q (%d bytes)", r.op, r.payload, len(r.payload))
}

// read returns the next frame.
func (c *wsClient) read() (reply, error) {
	b0, payload, err := c.frame()
	if err == nil && b0&^opBits != finBit {
		c.t.Fatalf("header %x: the server sends whole frames, without extensions", b0)
	}
	return reply{opcode(b0 & opBits), string(payload)}, err
}

// wsCase is what a client sends and what must come back.
type wsCase struct {
	name string
	send [][]byte
	chop int // bytes a write; 0 for all at once
	want []reply
	// code ends the connection: the server closes with it. 0 means that the connection stays open, and closes with 1000 when
	// the client asks for it.
	code uint16
	// loose: the server may also close before it has answered what came before the violation.
	loose bool
}

func (c wsCase) run(t *testing.T, s *testServer) {
	ws, _ := s.openWebSocket(t)
	ws.SetDeadline(time.Now().Add(4 * patience)) // all run at the same time
	all := bytes.Join(c.send, nil)
	if c.code == 0 {
		all = append(all, closing(1000, "")...)
	}
	sent := make(chan struct{})
	defer func() { ws.Close(); <-sent }()
	go func() { // the server may answer before it has read all
		defer close(sent)
		step := len(all)
		if c.chop > 0 {
			step = c.chop
		}
		for len(all) > 0 {
			n, err := ws.Write(all[:min(step, len(all))])
			if err != nil {
				return // closed early, as it may for a violation
			}
			all = all[n:]
		}
	}()
	for i := 0; ; i++ {
		got, err := ws.read()
		if err != nil {
			t.Fatalf("instead of frame %d: %v", i, err)
		}
		if got.op == opClose {
			code := uint16(1005)
			if len(got.payload) >= 2 {
				code = binary.BigEndian.Uint16([]byte(got.payload))
			}
			want := c.code
			if want == 0 {
				want = 1000
			}
			if code != want {
				t.Errorf("closed with %d, want %d", code, want)
			}
			if i < len(c.want) && !c.loose {
				t.Errorf("closed before %s", c.want[i])
			}
			break
		}
		if i >= len(c.want) || got != c.want[i] {
			t.Fatalf("frame %d is %s, want %v", i, got, c.want[min(i, len(c.want)):])
		}
	}
	if got, err := ws.read(); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after the close frame comes %s, %v", got, err)
	}
}

func TestFraming(t *testing.T) {
	const maxPayload = 1_000_000
	var cases []wsCase
	add := func(name string, code uint16, want []reply, send ...[]byte) *wsCase {
		cases = append(cases, wsCase{name: name, send: send, want: want, code: code})
		return &cases[len(cases)-1]
	}
	chopped := func(name string, chop int, code uint16, want []reply, send ...[]byte) {
		add(fmt.Sprintf("%s, in pieces of %d", name, chop), code, want, send...).chop = chop
	}
	echo := func(texts ...string) (want []reply) {
		for _, text := range texts {
			want = append(want, reply{opText, text})
		}
		return want
	}
	pongs := func(texts ...string) (want []reply) {
		for _, text := range texts {
			want = append(want, reply{opPong, text})
		}
		return want
	}

	// 1: lengths.
	for _, n := range []int{1, 125, 126, 127, 128, 65535, 65536} {
		text, bin := "4"+strings.Repeat("*", n-1), strings.Repeat("\xfe", n)
		add(fmt.Sprint("1.1 text of ", n), 0, echo(text), message(opText, text))
		add(fmt.Sprint("1.2 binary of ", n), 0, []reply{{opBinary, bin}}, message(opBinary, bin))
		chopped(fmt.Sprint("1.1 text of ", n), 997, 0, echo(text), message(opText, text))
	}
	add("1.2 binary of 0", 0, []reply{{opBinary, ""}}, message(opBinary, ""))

	// 2: pings and pongs.
	full := strings.Repeat("\xfe", 125)
	add("2.1 ping without payload", 0, pongs(""), ping(""))
	add("2.2 ping", 0, pongs("Hello, world!"), ping("Hello, world!"))
	add("2.3 ping with binary payload", 0, pongs("\x00\xff\xfe\xfd\xfc\xfb\x00\xff"), ping("\x00\xff\xfe\xfd\xfc\xfb\x00\xff"))
	add("2.4 ping of 125", 0, pongs(full), ping(full))
	add("2.5 ping of 126", 1002, nil, ping(full+"x"))
	chopped("2.6 ping of 125", 1, 0, pongs(full), ping(full))
	add("2.7 unasked pong without payload", 0, nil, pong(""))
	add("2.8 unasked pong", 0, nil, pong("unasked"))
	add("2.9 unasked pong, then a ping", 0, pongs("asked"), pong("unasked"), ping("asked"))
	var ten [][]byte
	var tenWant []reply
	for i := range 10 {
		ten, tenWant = append(ten, ping(fmt.Sprint(i))), append(tenWant, pongs(fmt.Sprint(i))...)
	}
	add("2.10 ten pings", 0, tenWant, ten...)
	chopped("2.11 ten pings", 1, 0, tenWant, ten...)

	// 3: reserved bits.
	add("3.1 rsv 1", 1002, nil, frame(finBit|rsv3, opText, "4x"))
	add("3.2 rsv 2 between others", 1002, echo("4x"), message(opText, "4x"), frame(finBit|rsv2, opText, "4y"), ping("")).loose = true
	add("3.3 rsv 3 between others", 1002, echo("4x"), message(opText, "4x"), frame(finBit|rsv2|rsv3, opText, "4y"), ping("")).loose = true
	chopped("3.4 rsv 4", 1, 1002, echo("4x"), message(opText, "4x"), frame(finBit|rsv1, opText, "4y"), ping(""))
	add("3.5 rsv 5, binary", 1002, nil, frame(finBit|rsv1|rsv3, opBinary, "\x00\xff"))
	add("3.6 rsv 6, ping", 1002, nil, frame(finBit|rsv1|rsv2, opPing, "x"))
	add("3.7 rsv 7, close", 1002, nil, frame(finBit|rsv1|rsv2|rsv3, opClose, "\x03\xe8"))

	// 4: reserved opcodes.
	for _, op := range []opcode{3, 4, 5, 6, 7, 11, 12, 13, 14, 15} {
		add(fmt.Sprintf("4 opcode %d", op), 1002, nil, frame(finBit, op, ""))
		add(fmt.Sprintf("4 opcode %d with payload", op), 1002, nil, frame(finBit, op, "reserved"))
		chopped(fmt.Sprintf("4 opcode %d between others", op), 1, 1002, echo("4x"), message(opText, "4x"), frame(finBit, op, "y"), ping(""))
	}

	// 5: fragments.
	add("5.1 ping in two", 1002, nil, frame(0, opPing, "a"), frame(finBit, opContinuation, "b"))
	add("5.2 pong in two", 1002, nil, frame(0, opPong, "a"), frame(finBit, opContinuation, "b"))
	two := [][]byte{frame(0, opText, "4frag"), frame(finBit, opContinuation, "ments")}
	add("5.3 text in two", 0, echo("4fragments"), two...)
	chopped("5.5 text in two", 1, 0, echo("4fragments"), two...)
	between := [][]byte{two[0], ping("between"), two[1]}
	add("5.6 ping between two", 0, append(pongs("between"), echo("4fragments")...), between...)
	chopped("5.8 ping between two", 1, 0, append(pongs("between"), echo("4fragments")...), between...)
	for _, flags := range []byte{finBit, 0} {
		add(fmt.Sprintf("5.9 to 5.14 continuation of nothing, %02x", flags), 1002, nil, frame(flags, opContinuation, "no"), message(opText, "4x"))
		chopped(fmt.Sprintf("5.11 to 5.14 continuation of nothing, %02x", flags), 1, 1002, nil, frame(flags, opContinuation, "no"), message(opText, "4x"))
		add(fmt.Sprintf("5.15 to 5.17 continuation after a whole message, %02x", flags), 1002, echo("4fragments"),
			append(append([][]byte{}, two...), frame(flags, opContinuation, "no"), message(opText, "4x"))...).loose = true
	}
	add("5.18 two beginnings", 1002, nil, frame(0, opText, "4a"), frame(finBit, opText, "4b"))
	five := [][]byte{frame(0, opText, "4a"), frame(0, opContinuation, "b"), ping("1"), frame(0, opContinuation, "c"), ping("2"),
		frame(0, opContinuation, "d"), frame(finBit, opContinuation, "e")}
	add("5.19 five with pings", 0, append(pongs("1", "2"), echo("4abcde")...), five...)
	chopped("5.20 five with pings", 1, 0, append(pongs("1", "2"), echo("4abcde")...), five...)

	// 6: UTF-8.
	add("6.1 empty fragments", 0, echo("4x"), frame(0, opText, ""), frame(0, opContinuation, "4x"), frame(finBit, opContinuation, ""))
	good := map[string]string{
		"6.2 mixed": "Hello-µ@ßöäüàá-UTF-8!!", "6.5 greek": "\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5",
		"6.7 first of each length": "\x00\xc2\x80\xe0\xa0\x80\xf0\x90\x80\x80",
		"6.9 last of each length":  "\x7f\xdf\xbf\xef\xbf\xbf\xf4\x8f\xbf\xbf",
		"6.11 boundaries":          "\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbd\xf4\x8f\xbf\xbf",
		"6.22 noncharacters":       "\xef\xbf\xbe\xef\xbf\xbf\xf0\x9f\xbf\xbe\xf0\xaf\xbf\xbf\xf4\x8f\xbf\xbe",
		"6.23 specials":            "\xef\xbf\xb9\xef\xbf\xba\xef\xbf\xbb\xef\xbf\xbc\xef\xbf\xbd",
	}
	bad := map[string]string{
		"6.3 surrogate in text": "\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
		"6.4 above the last":    "\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xf4\x90\x80\x80edited",
		"6.6 prefix of 1":       "\xce", "6.6 prefix of 2": "\xce\xba\xe1", "6.6 prefix of 3": "\xce\xba\xe1\xbd",
		"6.8 five bytes": "\xf8\x88\x80\x80\x80", "6.8 six bytes": "\xfc\x84\x80\x80\x80\x80",
		"6.10 last of four": "\xf7\xbf\xbf\xbf", "6.10 last of five": "\xfb\xbf\xbf\xbf\xbf", "6.10 last of six": "\xfd\xbf\xbf\xbf\xbf\xbf",
		"6.11 above": "\xf4\x90\x80\x80", "6.12 first continuation": "\x80", "6.12 last continuation": "\xbf",
		"6.12 continuations": "\x80\xbf\x80\xbf\x80\xbf\x80", "6.13 starts of two": "\xc0 \xc1 \xc2 \xc3 ", "6.13 starts of three": "\xe0 \xe1 \xef ",
		"6.13 starts of four": "\xf0 \xf1 \xf7 ", "6.13 starts of five": "\xf8 \xfb ", "6.13 starts of six": "\xfc \xfd ",
		"6.14 last missing, two": "\xc0", "6.14 last missing, three": "\xe0\x80", "6.14 last missing, four": "\xf0\x80\x80",
		"6.14 last missing, f7": "\xf7\xbf\xbf", "6.15 all incomplete": "\xc0\xe0\x80\xf0\x80\x80\xf8\x80\x80\x80",
		"6.16 fe": "\xfe", "6.16 ff": "\xff", "6.16 both": "\xfe\xfe\xff\xff",
		"6.17 overlong, two": "\xc0\xaf", "6.17 overlong, three": "\xe0\x80\xaf", "6.17 overlong, four": "\xf0\x80\x80\xaf",
		"6.18 longest overlong, two": "\xc1\xbf", "6.18 longest overlong, three": "\xe0\x9f\xbf", "6.18 longest overlong, four": "\xf0\x8f\xbf\xbf",
		"6.19 overlong zero, two": "\xc0\x80", "6.19 overlong zero, three": "\xe0\x80\x80", "6.19 overlong zero, four": "\xf0\x80\x80\x80",
		"6.20 surrogates": "\xed\xa0\x80", "6.20 low surrogate": "\xed\xbf\xbf", "6.21 pairs": "\xed\xa0\x80\xed\xb0\x80",
	}
	for name, text := range good {
		add(name, 0, echo("4"+text), message(opText, "4"+text))
		add(name+", byte by byte", 0, echo("4"+text), fragments(opText, "4"+text, 1)...)
		chopped(name, 1, 0, echo("4"+text), message(opText, "4"+text))
	}
	for name, text := range bad {
		add(name, 1007, nil, message(opText, "4"+text))
		add(name+", byte by byte", 1007, nil, fragments(opText, "4"+text, 1)...)
		add(name+", binary", 0, []reply{{opBinary, text}}, message(opBinary, text))
	}

	// 7: closing.
	add("7.1.1 message, then close", 0, echo("4x"), message(opText, "4x"))
	add("7.1.2 two closes", 1000, nil, closing(1000, ""), closing(1000, ""))
	add("7.1.3 ping after close", 1000, nil, closing(1000, ""), ping("late"))
	add("7.1.4 message after close", 1000, nil, closing(1000, ""), message(opText, "4late"))
	add("7.1.5 close within a fragmented message", 1000, nil, frame(0, opText, "4a"), closing(1000, ""), frame(finBit, opContinuation, "b"))
	big := "4" + strings.Repeat("BAsd7&jh23", 26_000)
	add("7.1.6 large message, then close", 1000, echo(big), message(opText, big), closing(1000, ""), ping(""))
	add("7.3.1 close without payload", 1005, nil, frame(finBit, opClose, ""))
	add("7.3.2 close with one byte", 1002, nil, frame(finBit, opClose, "a"))
	add("7.3.4 close with a reason", 1000, nil, closing(1000, "Hello World!"))
	add("7.3.5 close with the longest reason", 1000, nil, closing(1000, strings.Repeat("*", 123)))
	add("7.3.6 close with a reason too long", 1002, nil, closing(1000, strings.Repeat("*", 124)))
	add("7.5.1 close with a reason that is not UTF-8", 1007, nil, closing(1000, "\xce\xba\xe1\xbd\xb9\xed\xa0\x80"))
	for _, code := range []uint16{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999} {
		add(fmt.Sprint("7.7 close with ", code), code, nil, closing(code, ""))
	}
	for _, code := range []uint16{0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65535} {
		add(fmt.Sprint("7.9 close with ", code), 1002, nil, closing(code, ""))
	}

	// 9: sizes, up to the limit that the server sets.
	for _, n := range []int{64 << 10, 256 << 10, maxPayload} {
		text, bin := "4"+strings.Repeat("*", n-1), strings.Repeat("\xfe", n)
		add(fmt.Sprint("9.1 text of ", n), 0, echo(text), message(opText, text))
		add(fmt.Sprint("9.2 binary of ", n), 0, []reply{{opBinary, bin}}, message(opBinary, bin))
		for _, size := range []int{64, 1 << 10, 64 << 10} {
			add(fmt.Sprintf("9.3 text of %d in fragments of %d", n, size), 0, echo(text), fragments(opText, text, size)...)
			add(fmt.Sprintf("9.4 binary of %d in fragments of %d", n, size), 0, []reply{{opBinary, bin}}, fragments(opBinary, bin, size)...)
			chopped(fmt.Sprintf("9.5 text of %d", n), size, 0, echo(text), message(opText, text))
		}
	}
	var many [][]byte
	var manyWant []reply
	for i := range 1000 {
		text := "4" + strings.Repeat("*", i)
		many, manyWant = append(many, message(opText, text)), append(manyWant, echo(text)...)
	}
	add("9.7 a thousand messages", 0, manyWant, many...)
	over := strings.Repeat("x", maxPayload+1)
	add("9 over the limit", 1009, nil, message(opBinary, over))
	add("9 over the limit in fragments", 1009, nil, fragments(opBinary, over, 1<<16)...)
	add("9 over the limit by its header", 1009, nil, append([]byte{finBit | byte(opBinary), 0x80 | 127, 0x7f, 255, 255, 255, 255, 255, 255, 255}, 1, 2, 3, 4))
	add("9 a length that is negative", 1002, nil, append([]byte{finBit | byte(opBinary), 0x80 | 127, 0x80, 0, 0, 0, 0, 0, 0, 1}, 1, 2, 3, 4))

	// 10: fragments of odd sizes.
	text := "4" + strings.Repeat("*", 65535)
	add("10.1 fragments of 1300", 0, echo(text), fragments(opText, text, 1300)...)

	// Of this side alone: RFC 6455, section 5.1.
	add("a frame that is not masked", 1002, nil, []byte{finBit | byte(opText), 2, '4', 'x'})

	srv := newTestServer(t, Config{PingInterval: time.Hour, MaxPayload: maxPayload}) // no heartbeat gets in the way
	srv.echo()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.run(t, srv)
		})
	}
}
