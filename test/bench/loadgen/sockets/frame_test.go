package sockets

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

// serverFrame is an unmasked frame, written with the long form that fits.
func serverFrame(op byte, payload string) []byte {
	frame := appendFrame(nil, op, []byte(payload))
	head := 2
	switch frame[1] & 0x7F {
	case 126:
		head = 4
	case 127:
		head = 10
	}
	frame[1] &= 0x7F
	return append(frame[:head:head], payload...)
}

func TestNextFrame(t *testing.T) {
	for _, size := range []int{0, 1, 125, 126, 65535, 65536, 200000} {
		text := strings.Repeat("x", size)
		whole := serverFrame(opText, text)
		op, payload, n, err := nextFrame(append(whole, "tail"...))
		if err != nil || op != opText || n != len(whole) || string(payload) != text {
			t.Errorf("frame of %d bytes: op %d, %d bytes, size %d of %d, %v", size, op, len(payload), n, len(whole), err)
		}
		for _, cut := range []int{0, 1, 2, 3, 5, 9, len(whole) - 1} {
			if cut >= len(whole) {
				continue
			}
			if _, _, n, err := nextFrame(whole[:cut]); n != 0 || err != nil {
				t.Errorf("%d of %d bytes taken for a frame of %d, %v", cut, len(whole), n, err)
			}
		}
	}
}

func TestNextFrameRefuses(t *testing.T) {
	for name, raw := range map[string][]byte{
		"fragment":  {0x01, 0x01, 'x'},
		"rsv bit":   {0xC1, 0x01, 'x'},
		"masked":    appendFrame(nil, opText, []byte("x")),
		"too large": {0x81, 127, 0, 0, 0, 1, 0, 0, 0, 0},
	} {
		if _, _, _, err := nextFrame(raw); !errors.Is(err, errProtocol) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSocketIOEvent(t *testing.T) {
	for _, c := range []struct{ in, name, body, id string }{
		{`"job_progress",{"jobId":"a","n":7}]`, "job_progress", `,{"jobId":"a","n":7}`, ""},
		{`"job_progress",{"jobId":"a","n":7},"1700000000000-3"]`, "job_progress", `,{"jobId":"a","n":7}`, "1700000000000-3"}, // older binaries
		{`"job_completed",{"result":"]\""},"1700000000000-3"]`, "job_completed", `,{"result":"]\""}`, "1700000000000-3"},
		{`"note","text","1700000000000-3"]`, "note", `,"text"`, "1700000000000-3"},
		{`"note","text",null]`, "note", `,"text"`, ""},
		{`"note",null]`, "note", `,null`, ""},
		{`"ping"]`, "ping", ``, ""},
	} {
		ev, err := socketIOEvent([]byte(c.in))
		if err != nil || string(ev.Name) != c.name || string(ev.Body) != c.body || string(ev.ID) != c.id {
			t.Errorf("%s: name %q body %q id %q, %v", c.in, ev.Name, ev.Body, ev.ID, err)
		}
	}
	// A client would take the text of the last three for its offset.
	for _, bad := range []string{``, `"x`, `x",{}]`, `"x",{}`, `"note","text"]`, `"note",{},"1-"]`, `"note",{},"1-2x"]`} {
		if _, err := socketIOEvent([]byte(bad)); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func TestField(t *testing.T) {
	body := []byte(`{"jobId":"job-1","n":42,"last":7}`)
	for key, want := range map[string]string{`"jobId":"`: "job-1", `"n":`: "42", `"last":`: "7"} {
		if got := Field(body, key); string(got) != want {
			t.Errorf("Field(%s) = %q, want %q", key, got, want)
		}
	}
	if got := Field(body, `"none":`); got != nil {
		t.Errorf("a missing field is %q", got)
	}
	if got := Field([]byte(`"n":4`), `"n":`); got != nil {
		t.Errorf("a cut field is %q", got)
	}
}

func TestAppendFrameMasks(t *testing.T) {
	frame := appendFrame(nil, opText, []byte("hello"))
	payload := bytes.Clone(frame[6:])
	for i := range payload {
		payload[i] ^= frame[2+(i&3)]
	}
	if frame[1]&0x80 == 0 || string(payload) != "hello" {
		t.Errorf("frame %x does not unmask to hello", frame)
	}
}
