package engine

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"
	"github.com/gobwas/ws"
)

// verdict is how somebody understands a client's stream.
type verdict struct {
	messages []readFrame // control frames left out
	end      verdictEnd
	// strict: refused was what libraries take, a control frame with a length written in more bytes than it needs, or a close
	// frame with a payload that is none.
	strict bool
}

type verdictEnd string

const (
	endClosed   verdictEnd = "closed"    // by a close frame
	endOver     verdictEnd = "over"      // the stream ends between two frames
	endCut      verdictEnd = "cut"       // it ends within one
	endViolated verdictEnd = "violation" // of RFC 6455, or of the limit
)

// ourVerdict is that of the engine.
func ourVerdict(stream []byte, limit int) (v verdict) {
	frames, err := readAll(nil, bytes.NewReader(stream), limit)
	for _, f := range frames {
		switch {
		case f.op == opClose:
			if _, wrong := peerClose([]byte(f.data)); wrong != 0 {
				return verdict{v.messages, endViolated, true}
			}
			return verdict{messages: v.messages, end: endClosed}
		case f.op&controlBit == 0:
			v.messages = append(v.messages, f)
		}
	}
	var wrong violation
	if v.end = endCut; errors.As(err, &wrong) {
		v.end = endViolated
	}
	return v
}

// gobwasVerdict is that of gobwas/ws, which reads and judges headers; the rest of section 5 is written here.
func gobwasVerdict(stream []byte, limit int) (v verdict) {
	src := bytes.NewReader(stream)
	state := ws.StateServerSide
	var part *readFrame
	for {
		if src.Len() == 0 {
			return verdict{messages: v.messages, end: endOver}
		}
		second := stream[min(len(stream)-src.Len()+1, len(stream)-1)]
		h, err := ws.ReadHeader(src)
		switch {
		case err == nil && h.OpCode.IsControl() && second&lengthBits > maxControl:
			return verdict{v.messages, endViolated, true}
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return verdict{messages: v.messages, end: endCut}
		case err != nil || ws.CheckHeader(h, state) != nil:
			return verdict{messages: v.messages, end: endViolated}
		}
		size := int64(0)
		if part != nil && !h.OpCode.IsControl() {
			size = int64(len(part.data))
		}
		if h.Length > int64(limit)-size {
			return verdict{messages: v.messages, end: endViolated}
		}
		data := make([]byte, h.Length)
		if _, err := io.ReadFull(src, data); err != nil {
			return verdict{messages: v.messages, end: endCut}
		}
		ws.Cipher(data, h.Mask, 0)
		switch {
		case h.OpCode == ws.OpClose:
			return verdict{messages: v.messages, end: endClosed}
		case h.OpCode.IsControl():
			continue
		case h.OpCode == ws.OpContinuation:
			part.data += string(data)
		default:
			part = &readFrame{opcode(h.OpCode), string(data)}
		}
		if state = state.Set(ws.StateFragmented); !h.Fin {
			continue
		}
		state = state.Clear(ws.StateFragmented)
		if part.op == opText && !utf8.ValidString(part.data) {
			return verdict{messages: v.messages, end: endViolated}
		}
		v.messages, part = append(v.messages, *part), nil
	}
}

// coderVerdict is that of coder/websocket, which does not look at the text.
func coderVerdict(t *testing.T, stream []byte, limit int) (v verdict) {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header = http.Header{
		"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="},
	}
	c, err := websocket.Accept(&streamConn{ResponseRecorder: httptest.NewRecorder(), Reader: bytes.NewReader(stream)}, r, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	c.SetReadLimit(int64(limit))
	for {
		kind, data, err := c.Read(t.Context())
		switch {
		case websocket.CloseStatus(err) != -1:
			return verdict{messages: v.messages, end: endClosed}
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return verdict{messages: v.messages, end: endCut}
		case err != nil, kind == websocket.MessageText && !utf8.Valid(data):
			return verdict{messages: v.messages, end: endViolated}
		}
		v.messages = append(v.messages, readFrame{map[websocket.MessageType]opcode{
			websocket.MessageText: opText, websocket.MessageBinary: opBinary,
		}[kind], string(data)})
	}
}

// streamConn is a response that can be hijacked, and the connection below it: what is read is the stream.
type streamConn struct {
	*httptest.ResponseRecorder
	*bytes.Reader
}

func (c *streamConn) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return c, bufio.NewReadWriter(bufio.NewReader(c), bufio.NewWriter(io.Discard)), nil
}

// Read does not return io.EOF: coder/websocket takes that for the end of a message, wherever it comes.
func (c *streamConn) Read(p []byte) (int, error) {
	if c.Len() == 0 {
		return 0, io.ErrUnexpectedEOF
	}
	return c.Reader.Read(p)
}
func (c *streamConn) Write(p []byte) (int, error)      { return len(p), nil }
func (c *streamConn) WriteTo(io.Writer) (int64, error) { return 0, errors.ErrUnsupported }
func (c *streamConn) Close() error                     { return nil }
func (c *streamConn) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (c *streamConn) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (c *streamConn) SetDeadline(time.Time) error      { return nil }
func (c *streamConn) SetReadDeadline(time.Time) error  { return nil }
func (c *streamConn) SetWriteDeadline(time.Time) error { return nil }

// FuzzDifferential holds the framing against two libraries: the same bytes are the same messages, and end alike.
func FuzzDifferential(f *testing.F) {
	const limit = 300
	text := func(flags byte, payload string) []byte { return clientFrame(flags, payload) }
	for _, seed := range [][][]byte{
		{text(finBit|byte(opText), "4hello"), text(finBit|byte(opPing), "x"), text(finBit|byte(opClose), "\x03\xe8bye")},
		{text(byte(opText), "4a"), text(finBit|byte(opPing), ""), text(byte(opContinuation), "b"), text(finBit, "c")},
		{text(byte(opBinary), "a"), text(finBit|byte(opText), "b")},
		{text(finBit, "a")}, {text(finBit|0x40|byte(opText), "a")}, {text(finBit|3, "a")}, {text(byte(opPing), "a")},
		{text(finBit|byte(opText), "\xed\xa0\x80")}, {text(byte(opText), "\xc3"), text(finBit, "\xa4")},
		{text(finBit|byte(opBinary), string(make([]byte, 200)))}, {text(finBit|byte(opBinary), string(make([]byte, limit+1)))},
		{text(byte(opBinary), string(make([]byte, limit))), text(finBit, "x")},
		{text(finBit|byte(opClose), "")}, {text(finBit|byte(opClose), "a")}, {text(finBit|byte(opClose), "\x03\xed")},
		{{finBit | byte(opText), 2, '4', 'x'}}, {{finBit | byte(opBinary), 0x80 | 127, 0x80, 0, 0, 0, 0, 0, 0, 1, 1, 2, 3, 4}},
	} {
		f.Add(bytes.Join(seed, nil))
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		stream = append(bytes.Clone(stream), make([]byte, maxHeader)...) // no header is cut off: who tells first what is wrong in it is a matter of taste
		ours := ourVerdict(stream, limit)
		gobwas := gobwasVerdict(stream, limit)
		ours.strict = ours.strict || gobwas.strict
		for name, theirs := range map[string]verdict{"gobwas/ws": gobwas, "coder/websocket": coderVerdict(t, stream, limit)} {
			same := slices.Equal(ours.messages, theirs.messages)
			switch {
			case ours.strict:
				same = slices.Equal(ours.messages, theirs.messages[:min(len(ours.messages), len(theirs.messages))])
			case ours.end == theirs.end, ours.end == endCut && theirs.end == endOver:
			case ours.end == endViolated && theirs.end == endCut: // told before the frame is whole
			default:
				same = false
			}
			if !same {
				t.Errorf("%x: %v, and %s says %v", stream, ours, name, theirs)
			}
		}
	})
}
