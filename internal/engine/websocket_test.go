package engine

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
)

func TestWebSocketHandshakeIsChecked(t *testing.T) {
	s := newTestServer(t, Config{})
	good := strings.Split(strings.TrimSuffix(strings.Replace(goodHandshake, "%s", "", 1), "\r\n\r\n"), "\r\n")
	with := func(change func(lines []string) []string) string {
		return strings.Join(change(append([]string(nil), good...)), "\r\n") + "\r\n\r\n"
	}
	replace := func(header, line string) string {
		return with(func(lines []string) []string {
			var out []string
			for _, l := range lines {
				if !strings.HasPrefix(l, header+":") {
					out = append(out, l)
				} else if line != "" {
					out = append(out, line)
				}
			}
			return out
		})
	}
	for name, tc := range map[string]struct {
		request string
		status  int
	}{
		"as it should be":         {with(func(l []string) []string { return l }), 101},
		"token in a list":         {replace("Connection", "Connection: keep-alive, UPGRADE"), 101},
		"extensions are declined": {replace("Host", "Host: test\r\nSec-WebSocket-Extensions: permessage-deflate"), 101},
		"no Connection":           {replace("Connection", ""), 400},
		"wrong Upgrade":           {replace("Upgrade", "Upgrade: h2c"), 400},
		"no version":              {replace("Sec-WebSocket-Version", ""), 426},
		"version 8":               {replace("Sec-WebSocket-Version", "Sec-WebSocket-Version: 8"), 426},
		"no key":                  {replace("Sec-WebSocket-Key", ""), 400},
		"two keys":                {replace("Host", "Host: test\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="), 400},
		"short key":               {replace("Sec-WebSocket-Key", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j"), 400},
		"key not base64":          {replace("Sec-WebSocket-Key", "Sec-WebSocket-Key: !!!!IHNhbXBsZSBub25jZQ=="), 400},
		"POST":                    {with(func(l []string) []string { l[0] = strings.Replace(l[0], "GET", "POST", 1); return l }), 400},
		"HTTP/1.0":                {with(func(l []string) []string { l[0] = strings.Replace(l[0], "1.1", "1.0", 1); return l }), 400},
	} {
		t.Run(name, func(t *testing.T) {
			nc := s.dial(t)
			if _, err := io.WriteString(nc, tc.request); err != nil {
				t.Fatal(err)
			}
			res, err := http.ReadResponse(bufio.NewReader(nc), nil)
			if err != nil {
				t.Fatal(err)
			}
			if res.StatusCode != tc.status {
				t.Errorf("status %d, want %d", res.StatusCode, tc.status)
			}
			if tc.status == 426 && res.Header.Get("Sec-WebSocket-Version") != "13" {
				t.Error("426 does not say which version is spoken")
			}
			if res.Header.Get("Sec-WebSocket-Extensions") != "" {
				t.Error("an extension was selected")
			}
		})
	}
}

func TestHeadersOfMiddlewareReachTheHandshake(t *testing.T) {
	s := newTestServer(t, Config{})
	inner := s.http.Config.Handler
	s.http.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Request-Id", "42")
		w.Header().Set("Content-Type", "not/this")
		inner.ServeHTTP(w, r)
	})
	nc := s.dial(t)
	io.WriteString(nc, strings.Replace(goodHandshake, "%s", "", 1))
	res, err := http.ReadResponse(bufio.NewReader(nc), nil)
	if err != nil {
		t.Fatal(err)
	}
	if res.Header.Get("X-Request-Id") != "42" || res.Header.Get("Content-Type") != "" {
		t.Errorf("headers %v", res.Header)
	}
}

func TestFramesSentWithTheHandshakeAreNotLost(t *testing.T) {
	onBothPaths(t, Config{}, func(t *testing.T, s *testServer) {
		early := clientFrame(0x81, "4first")
		early = append(early, clientFrame(0x81, "4"+repeat("x", 3000))...) // more than fits in the small buffer
		early = append(early, clientFrame(0x81, "4half")[:5]...)
		c := s.websocketWith(t, "", early)
		rec := s.session(t)
		c.write(clientFrame(0x81, "4half")[5:])
		rec.wantMessage(t, "first")
		rec.wantMessage(t, repeat("x", 3000))
		rec.wantMessage(t, "half")
	})
}

func TestFragmentedMessages(t *testing.T) {
	frames := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	long := repeat("long ", 5000)
	for name, tc := range map[string]struct {
		input []byte
		want  []string
	}{
		"two fragments":            {frames(clientFrame(0x01, "4he"), clientFrame(0x80, "llo")), []string{"hello"}},
		"empty fragments":          {frames(clientFrame(0x01, ""), clientFrame(0x00, "4a"), clientFrame(0x00, ""), clientFrame(0x80, "")), []string{"a"}},
		"binary":                   {frames(clientFrame(0x02, "\x00\xff"), clientFrame(0x80, "\xfe")), []string{"b:\x00\xff\xfe"}},
		"ping in between":          {frames(clientFrame(0x01, "4a"), clientFrame(0x89, "!"), clientFrame(0x80, "b")), []string{"ab"}},
		"long ping in between":     {frames(clientFrame(0x01, "4a"), clientFrame(0x89, repeat("!", 125)), clientFrame(0x80, "b")), []string{"ab"}},
		"pong in between":          {frames(clientFrame(0x01, "4a"), clientFrame(0x8a, repeat("!", 100)), clientFrame(0x80, "b")), []string{"ab"}},
		"long fragments":           {frames(clientFrame(0x01, "4"+long), clientFrame(0x00, long), clientFrame(0x80, long)), []string{long + long + long}},
		"character over the seam":  {frames(clientFrame(0x01, "4€"[:2]), clientFrame(0x80, "4€"[2:])), []string{"€"}},
		"whole ones around":        {frames(clientFrame(0x81, "41"), clientFrame(0x01, "4"), clientFrame(0x80, "2"), clientFrame(0x81, "43")), []string{"1", "2", "3"}},
		"64-bit length, not least": {append([]byte{0x81, 0xff, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0}, "4a"...), []string{"a"}},
		"16-bit length, not least": {append([]byte{0x81, 0xfe, 0, 2, 0, 0, 0, 0}, "4a"...), []string{"a"}},
		"empty binary":             {clientFrame(0x82, ""), []string{"b:"}},
		"46 bytes, the small one":  {clientFrame(0x81, "4"+repeat("s", 45)), []string{repeat("s", 45)}},
		"47 bytes, the pooled one": {clientFrame(0x81, "4"+repeat("s", 46)), []string{repeat("s", 46)}},
		"126 bytes":                {clientFrame(0x81, "4"+repeat("s", 125)), []string{repeat("s", 125)}},
		"65536 bytes":              {clientFrame(0x81, "4"+repeat("s", 65535)), []string{repeat("s", 65535)}},
		"as long as may be":        {clientFrame(0x81, "4"+repeat("s", 99_999)), []string{repeat("s", 99_999)}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newTestServer(t, Config{MaxPayload: 100_000})
			c, rec := s.openWebSocket(t)
			c.write(tc.input)
			for _, want := range tc.want {
				rec.wantMessage(t, want)
			}
		})
		t.Run(name+", byte by byte", func(t *testing.T) {
			if len(tc.input) > 1000 {
				tc.input, tc.want = clientFrame(0x81, "4short"), []string{"short"}
			}
			s := newTestServer(t, Config{MaxPayload: 100_000})
			c, rec := s.openWebSocket(t)
			for i := range tc.input {
				c.write(tc.input[i : i+1])
			}
			for _, want := range tc.want {
				rec.wantMessage(t, want)
			}
		})
	}
}

func TestViolationsCloseTheConnection(t *testing.T) {
	unmasked := func(b0 byte, payload string) []byte { return append([]byte{b0, byte(len(payload))}, payload...) }
	closing := func(code uint16, reason string) []byte {
		return clientFrame(0x88, string(binary.BigEndian.AppendUint16(nil, code))+reason)
	}
	for name, tc := range map[string]struct {
		input []byte
		code  uint16
	}{
		"unmasked":                      {unmasked(0x81, "4hello"), 1002},
		"RSV1":                          {clientFrame(0xc1, "4hello"), 1002},
		"RSV2":                          {clientFrame(0xa1, "4hello"), 1002},
		"RSV3":                          {clientFrame(0x91, "4hello"), 1002},
		"opcode 3":                      {clientFrame(0x83, "4hello"), 1002},
		"opcode 7":                      {clientFrame(0x87, ""), 1002},
		"opcode b":                      {clientFrame(0x8b, ""), 1002},
		"opcode f":                      {clientFrame(0x8f, ""), 1002},
		"fragmented ping":               {clientFrame(0x09, "x"), 1002},
		"fragmented close":              {clientFrame(0x08, ""), 1002},
		"ping of 126 bytes":             {clientFrame(0x89, repeat("x", 126)), 1002},
		"continuation of nothing":       {clientFrame(0x80, "4x"), 1002},
		"text inside a fragmented one":  {append(clientFrame(0x01, "4x"), clientFrame(0x81, "4y")...), 1002},
		"top bit of the length":         {[]byte{0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0}, 1002},
		"oversized by header":           {[]byte{0x82, 0xff, 0, 0, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4}, 1009},
		"oversized by one":              {clientFrame(0x81, "4"+repeat("x", 1000)), 1009},
		"oversized over two fragments":  {append(clientFrame(0x01, "4"+repeat("x", 900)), clientFrame(0x80, repeat("x", 100))...), 1009},
		"oversized by 2^63-1 after one": {append(clientFrame(0x01, "4"), 0x80, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0), 1009},
		"text that is not UTF-8":        {clientFrame(0x81, "4\xff"), 1007},
		"long text that is not UTF-8":   {clientFrame(0x81, "4"+repeat("x", 200)+"\xc3"), 1007},
		"half a character at the end":   {append(clientFrame(0x01, "4\xe2"), clientFrame(0x80, "\x82")...), 1007},
		"surrogate":                     {clientFrame(0x81, "4\xed\xa0\x80"), 1007},
		"close of one byte":             {clientFrame(0x88, "x"), 1002},
		"close code 999":                {closing(999, ""), 1002},
		"close code 1004":               {closing(1004, ""), 1002},
		"close code 1005":               {closing(1005, ""), 1002},
		"close code 1006":               {closing(1006, ""), 1002},
		"close code 1015":               {closing(1015, ""), 1002},
		"close code 2999":               {closing(2999, ""), 1002},
		"close code 5000":               {closing(5000, ""), 1002},
		"close reason not UTF-8":        {closing(1000, "\xff"), 1007},
		"empty packet":                  {clientFrame(0x81, ""), 1002},
		"unknown packet type":           {clientFrame(0x81, "abc"), 1002},
		"open packet":                   {clientFrame(0x81, "0{}"), 1002},
		"ping packet":                   {clientFrame(0x81, "2"), 1002},
		"probe outside an upgrade":      {clientFrame(0x81, "2probe"), 1002},
		"pong to no ping":               {clientFrame(0x81, "3"), 1002},
		"upgrade packet":                {clientFrame(0x81, "5"), 1002},
		"noop packet":                   {clientFrame(0x81, "6"), 1002},
	} {
		t.Run(name, func(t *testing.T) {
			onBothPaths(t, Config{MaxPayload: 1000}, func(t *testing.T, s *testServer) {
				c, rec := s.openWebSocket(t)
				c.write(append(tc.input, clientFrame(0x81, "4too late")...))
				c.wantClose(tc.code)
				c.Close()
				rec.wantClosed(t, ReasonParseError)
				if len(rec.messages) > 0 {
					t.Errorf("message %q after the violation", <-rec.messages)
				}
				if n := s.Stats().ProtocolErrors; n != 1 {
					t.Errorf("%d protocol errors counted", n)
				}
			})
		})
	}
}

func TestCloseFrameIsEchoed(t *testing.T) {
	for name, tc := range map[string]struct {
		payload string
		code    uint16
	}{
		"no status":             {"", closeNoStatus},
		"normal":                {"\x03\xe8", 1000},
		"going away, by reason": {"\x03\xe9bye", 1001},
		"private":               {"\x0f\xa0", 4000},
	} {
		t.Run(name, func(t *testing.T) {
			onBothPaths(t, Config{}, func(t *testing.T, s *testServer) {
				c, rec := s.openWebSocket(t)
				c.write(clientFrame(0x88, tc.payload))
				c.wantClose(tc.code)
				rec.wantClosed(t, ReasonTransportClose)
			})
		})
	}
}

func TestPingFramesAreAnswered(t *testing.T) {
	onBothPaths(t, Config{}, func(t *testing.T, s *testServer) {
		c, _ := s.openWebSocket(t)
		for _, payload := range []string{"", "x", repeat("y", 125)} {
			c.write(clientFrame(0x89, payload))
			if b0, got, err := c.frame(); b0 != 0x8a || string(got) != payload || err != nil {
				t.Fatalf("answer %#x %q %v", b0, got, err)
			}
		}
		c.write(clientFrame(0x8a, "unasked pong frames are fine"))
		c.write(clientFrame(0x89, "still here"))
		if b0, got, err := c.frame(); b0 != 0x8a || string(got) != "still here" {
			t.Fatalf("answer %#x %q %v", b0, got, err)
		}
	})
}

func TestEndOfStreamIsTransportClose(t *testing.T) {
	for name, half := range map[string][]byte{
		"between messages": nil,
		"in a header":      {0x81},
		"in a payload":     clientFrame(0x81, "4half")[:8],
		"in a long one":    clientFrame(0x81, "4"+repeat("x", 500))[:400],
	} {
		t.Run(name, func(t *testing.T) {
			s := newTestServer(t, Config{})
			c, rec := s.openWebSocket(t)
			c.write(half)
			c.Close()
			rec.wantClosed(t, ReasonTransportClose)
		})
	}
}

// A header is only a promise: memory follows the bytes.
func TestReaderHoldsNoMoreThanTwiceWhatArrived(t *testing.T) {
	var rd reader
	in, out := io.Pipe()
	rd.src = in
	done := make(chan error, 1)
	go func() {
		_, _, err := rd.next(100 << 20)
		done <- err
	}()
	out.Write([]byte{0x82, 0xff, 0, 0, 0, 0, 0x05, 0, 0, 0, 1, 2, 3, 4}) // 80 MiB to come
	out.Write(make([]byte, 40_000))
	out.CloseWithError(errors.New("gone"))
	if err := <-done; err == nil || err.Error() != "gone" {
		t.Fatal(err)
	}
	if n := cap(rd.long.b); n > 80_000 || n < 40_000 {
		t.Errorf("%d bytes held for 40000", n)
	}
}

func TestUnmaskMatchesTheDefinition(t *testing.T) {
	for n := range 70 {
		data, want := make([]byte, n), make([]byte, n)
		mask := [4]byte{byte(rand.Uint32()), byte(rand.Uint32()), byte(rand.Uint32()), byte(rand.Uint32())}
		for i := range data {
			data[i] = byte(rand.Uint32())
			want[i] = data[i] ^ mask[i%4]
		}
		if unmask(data, mask); !bytes.Equal(data, want) {
			t.Fatalf("length %d", n)
		}
	}
}

func TestFrameEncoding(t *testing.T) {
	for _, n := range []int{0, 1, 123, 124, 125, 65533, 65534, 65535, 100_000} {
		for name, f := range map[string]*Frame{"text": TextFrame(make([]byte, n)), "binary": BinaryFrame(make([]byte, n))} {
			c := &wsClient{t: t, rd: bufio.NewReader(bytes.NewReader(f.wire))}
			b0, payload, err := c.frame()
			want, first := n, byte(0x82)
			if name == "text" {
				want, first = n+1, 0x81
			}
			if err != nil || b0 != first || len(payload) != want || !bytes.Equal(payload, f.packet()) || f.Size() != len(f.wire) {
				t.Errorf("%s of %d: first byte %#x, %d bytes, %v", name, n, b0, len(payload), err)
			}
			if name == "text" && payload[0] != '4' {
				t.Errorf("packet type %q", payload[0])
			}
		}
	}
}

// The close frame says what the logs say, as far as it fits and where the client does not know better.
func TestCloseFramesSayWhy(t *testing.T) {
	long := repeat("é", 80)
	for _, c := range []struct {
		name string
		end  func(*wsClient, *recorder)
		want string // code and reason, as they are on the wire
	}{
		{"a reason of the caller's", func(_ *wsClient, rec *recorder) { rec.Close("handshake timeout") }, "\x03\xe8handshake timeout"},
		{"one with a code of its own", func(_ *wsClient, rec *recorder) { rec.Close(ReasonShuttingDown) }, "\x03\xe9server shutting down"},
		{"one that is too long", func(_ *wsClient, rec *recorder) { rec.Close(long) }, "\x03\xe8" + long[:122]},
		{"Engine.IO broken", func(ws *wsClient, _ *recorder) { ws.text("9") }, "\x03\xeaparse error"},
		{"RFC 6455 broken", func(ws *wsClient, _ *recorder) { ws.write(clientFrame(0x81, "4\xff")) }, "\x03\xefparse error"},
		{"the client's own close", func(ws *wsClient, _ *recorder) { ws.write(clientFrame(0x88, "\x03\xe9bye")) }, "\x03\xe9"},
		{"the client's own close without a code", func(ws *wsClient, _ *recorder) { ws.write(clientFrame(0x88, "")) }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newTestServer(t, Config{})
			ws, rec := s.openWebSocket(t)
			c.end(ws, rec)
			if b0, payload, err := ws.frame(); err != nil || b0 != 0x88 || string(payload) != c.want {
				t.Errorf("got %#x %q %v, want %q", b0, payload, err, c.want)
			}
			ws.wantEnd()
		})
	}
}
