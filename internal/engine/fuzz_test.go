package engine

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"
	"testing/iotest"
	"unicode/utf8"
)

type readFrame struct {
	op   opcode
	data string
}

// readAll takes a stream apart, until its end or a violation. net/http has read the first bytes of it.
func readAll(early []byte, src io.Reader, limit int) (frames []readFrame, err error) {
	var rd reader
	rd.reset(src, early)
	defer rd.free()
	for {
		op, data, err := rd.next(limit)
		if err != nil {
			return frames, err
		}
		frames = append(frames, readFrame{op, string(data)})
	}
}

func FuzzWebSocketReader(f *testing.F) {
	const limit = 1000
	f.Fuzz(func(t *testing.T, stream []byte) {
		frames, err := readAll(nil, bytes.NewReader(stream), limit)
		if err == nil {
			t.Fatal("no end")
		}
		again := []byte(nil)
		for _, fr := range frames {
			switch {
			case fr.op == opText && !utf8.ValidString(fr.data):
				t.Fatalf("text %q", fr.data)
			case fr.op&controlBit != 0 && len(fr.data) > maxControl, len(fr.data) > limit:
				t.Fatalf("%d bytes", len(fr.data))
			}
			again = append(again, clientFrame(finBit|byte(fr.op), fr.data)...)
		}
		// How the bytes are cut makes no difference.
		half := len(stream) / 2
		for _, early := range [][]byte{nil, stream[:half], stream} {
			rest := bytes.NewReader(stream[len(early):])
			byByte, err2 := readAll(early, iotest.OneByteReader(rest), limit)
			if !slices.Equal(frames, byByte) || !errors.Is(err, err2) {
				t.Fatalf("%q %v, %d bytes early and then byte by byte %q %v", frames, err, len(early), byByte, err2)
			}
		}
		// What was understood can be said again.
		same, err := readAll(nil, bytes.NewReader(again), limit)
		if !slices.Equal(frames, same) || !errors.Is(err, io.EOF) {
			t.Fatalf("%q, again %q %v", frames, same, err)
		}
	})
}

func FuzzSplitPayload(f *testing.F) {
	f.Fuzz(func(t *testing.T, payload []byte) {
		input := bytes.Clone(payload)
		var frames []*Frame
		err := splitPayload(payload, func(packet []byte, binary bool) bool {
			switch {
			case binary:
				frames = append(frames, BinaryFrame(packet))
			case len(packet) == 0:
				t.Fatal("empty packet")
			default:
				frames = append(frames, newFrame(opText, nil, packet))
			}
			return true
		})
		if !bytes.Equal(input, payload) {
			t.Fatal("the payload was changed")
		}
		if err != nil {
			return
		}
		var again []byte
		for _, fr := range frames {
			again = appendPacket(again, fr)
		}
		// Base64 has several spellings (line ends, spare bits), so compare what it says.
		var same []*Frame
		if err := splitPayload(again, func(packet []byte, binary bool) bool {
			if binary {
				same = append(same, BinaryFrame(packet))
			} else {
				same = append(same, newFrame(opText, nil, packet))
			}
			return true
		}); err != nil {
			t.Fatalf("%q: %v", again, err)
		}
		if !slices.EqualFunc(frames, same, func(a, b *Frame) bool { return a.header == b.header && bytes.Equal(a.wire, b.wire) }) {
			t.Fatalf("%q, again %q", input, again)
		}
	})
}
