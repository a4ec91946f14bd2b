package engine

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"sync"
)

// separator stands between the packets of a polling payload.
const separator = '\x1e'

var errPayload = errors.New("engine: malformed payload")

// splitPayload calls each for every packet of a payload, until it returns false. Binary packets arrive decoded, in memory that
// the next packet reuses. It returns errPayload at the first packet that is empty or not base64 after a 'b'.
func splitPayload(payload []byte, each func(packet []byte, binary bool) bool) error {
	var decoded []byte
	for {
		packet, rest, more := bytes.Cut(payload, []byte{separator})
		switch {
		case len(packet) == 0:
			return errPayload
		case packet[0] == 'b':
			if decoded == nil {
				decoded = make([]byte, 0, base64.StdEncoding.DecodedLen(len(payload)))
			}
			var err error
			if decoded, err = base64.StdEncoding.AppendDecode(decoded[:0], packet[1:]); err != nil {
				return errPayload
			}
			if !each(decoded, true) {
				return nil
			}
		default:
			if !each(packet, false) {
				return nil
			}
		}
		if !more {
			return nil
		}
		payload = rest
	}
}

// appendPacket appends a frame's packet to a payload, or all those of a batch.
func appendPacket(payload []byte, f *Frame) []byte {
	if len(payload) > 0 {
		payload = append(payload, separator)
	}
	if f.header == 0 {
		packet, rest := cutPacket(f.wire)
		payload = append(payload, packet...)
		for len(rest) > 0 {
			packet, rest = cutPacket(rest)
			payload = append(append(payload, separator), packet...)
		}
		return payload
	}
	if f.binary() {
		payload = append(payload, 'b')
		return base64.StdEncoding.AppendEncode(payload, f.packet())
	}
	return append(payload, f.packet()...)
}

// payloadSize is how many bytes appendPacket appends, the separator included. A batch is not looked through for that: its
// websocket headers are longer than the separators would be.
func payloadSize(f *Frame) int {
	switch {
	case f.header == 0:
		return len(f.wire)
	case f.binary():
		return 2 + base64.StdEncoding.EncodedLen(len(f.packet()))
	}
	return 1 + len(f.packet())
}

// Batch is text messages that travel together: encoded once, one behind the other in one buffer. The frames cut from it share
// that buffer, so a connection that gets another part of the batch than the rest costs no copy either.
type Batch struct {
	wire []byte
	ends []int // where each message ends in wire
}

// Add appends the message whose payload is text, as TextFrame would encode it; the payload is copied.
func (b *Batch) Add(payload []byte) {
	b.wire = append(appendHeader(b.wire, opText, 1+len(payload)), packetMessage)
	b.wire = append(b.wire, payload...)
	b.ends = append(b.ends, len(b.wire))
}

// Frame returns the messages from the first to before the last as one frame: to a websocket several frames in a row, to
// long-polling several packets of one payload. There must be at least one, and nothing may be added from now on.
func (b *Batch) Frame(first, last int) *Frame {
	start := 0
	if first > 0 {
		start = b.ends[first-1]
	}
	return &Frame{wire: b.wire[start:b.ends[last-1]], more: uint32(last - first - 1)}
}

// cutPacket returns the packet of the first websocket frame in wire, and what follows that frame.
func cutPacket(wire []byte) (packet, rest []byte) {
	header, n := 2, int(wire[1])
	switch n {
	case 126:
		header, n = 4, int(binary.BigEndian.Uint16(wire[2:]))
	case 127:
		header, n = 10, int(binary.BigEndian.Uint64(wire[2:]))
	}
	return wire[header : header+n], wire[header+n:]
}

// buffer is pooled memory for a message on its way in, or a poll answer on its way out.
type buffer struct {
	b []byte
}

// maxPooled keeps one huge message from holding its memory for ever.
const maxPooled = 256 << 10

var buffers = sync.Pool{New: func() any { return &buffer{b: make([]byte, 0, 512)} }}

func newBuffer() *buffer { return buffers.Get().(*buffer) }

// free gives the memory back; the caller keeps no slice of it. A nil buffer is fine.
func (b *buffer) free() {
	if b == nil || cap(b.b) > maxPooled {
		return
	}
	b.b = b.b[:0]
	buffers.Put(b)
}

// room returns free space behind what is there, up to want bytes and at least one. It grows by doubling, so a peer that
// announces much holds no more than twice what it has sent, and one that sends little by little costs no more.
func (b *buffer) room(want int) []byte {
	if len(b.b) == cap(b.b) {
		grown := make([]byte, len(b.b), max(512, 2*cap(b.b)))
		copy(grown, b.b)
		b.b = grown
	}
	return b.b[len(b.b):min(cap(b.b), len(b.b)+want)]
}
