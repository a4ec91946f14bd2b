package engine

import "encoding/binary"

// Engine.IO packet types (protocol 4).
const (
	packetOpen    = '0'
	packetClose   = '1'
	packetPing    = '2'
	packetPong    = '3'
	packetMessage = '4'
	packetUpgrade = '5'
	packetNoop    = '6'
)

// Frame is one Engine.IO packet, or several of a Batch, encoded once and shared by any number of connections.
//
// The server's websocket frames are not masked, so the very bytes that go to one websocket go to all of them; long-polling uses
// a slice of the same bytes. A Frame is immutable: wire is not written to after the constructor has returned.
type Frame struct {
	wire   []byte // a whole websocket frame: header, then the packet
	header uint8  // length of the websocket header in wire
	kind   frameKind
	more   uint32 // packets behind the first
}

type frameKind uint8

const (
	textFrame    frameKind = iota // text packet, type byte included
	binaryFrame                   // binary message: no type byte on websocket, base64 with a 'b' on polling
	controlFrame                  // websocket control frame: means nothing to polling
	batchFrame                    // several whole text frames, one behind the other
)

// Frames that are the same for every connection.
var (
	pingFrame   = newFrame(opText, []byte{packetPing}, nil)
	noopFrame   = newFrame(opText, []byte{packetNoop}, nil)
	closeFrame  = newFrame(opText, []byte{packetClose}, nil)
	probedFrame = newFrame(opText, []byte("3probe"), nil)
)

// TextFrame returns the frame of a message packet whose payload is text, usually a Socket.IO packet. The payload must be valid
// UTF-8, since a browser closes its connection on a text frame that is not; it is copied.
func TextFrame(payload []byte) *Frame {
	return newFrame(opText, []byte{packetMessage}, payload)
}

// BinaryFrame returns the frame of a binary message. The payload is copied.
func BinaryFrame(payload []byte) *Frame {
	return newFrame(opBinary, nil, payload)
}

// Size is the number of bytes that the frame takes on a websocket, header included. It is what queues are charged with.
func (f *Frame) Size() int { return len(f.wire) }

// packet returns the bytes after the websocket header. A batch has none of its own.
func (f *Frame) packet() []byte { return f.wire[f.header:] }

// newFrame encodes an unfragmented, unmasked websocket frame whose payload is head followed by body.
func newFrame(op opcode, head, body []byte) *Frame {
	n := len(head) + len(body)
	wire := appendHeader(make([]byte, 0, 10+n), op, n)
	f := &Frame{header: uint8(len(wire))}
	switch op {
	case opText:
		f.kind = textFrame
	case opBinary:
		f.kind = binaryFrame
	default:
		f.kind = controlFrame
	}
	f.wire = append(append(wire, head...), body...)
	return f
}

// appendHeader appends the header of an unfragmented, unmasked websocket frame whose payload has n bytes.
func appendHeader(wire []byte, op opcode, n int) []byte {
	wire = append(wire, finBit|byte(op))
	switch {
	case n <= 125:
		return append(wire, byte(n))
	case n <= 0xffff:
		return binary.BigEndian.AppendUint16(append(wire, 126), uint16(n))
	}
	return binary.BigEndian.AppendUint64(append(wire, 127), uint64(n))
}
