package engine

import "encoding/binary"

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

// Len is the number of messages.
func (b *Batch) Len() int { return len(b.ends) }

// Frame returns the messages from the first to before the last as one frame: to a websocket several frames in a row, to
// long-polling several packets of one payload. There must be at least one, and nothing may be added from now on.
func (b *Batch) Frame(first, last int) *Frame {
	start := 0
	if first > 0 {
		start = b.ends[first-1]
	}
	return &Frame{wire: b.wire[start:b.ends[last-1]], kind: batchFrame, more: uint32(last - first - 1)}
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
