package engine

import (
	"bytes"
	"encoding/binary"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"
)

// opcode is the type of a websocket frame (RFC 6455, section 5.2).
type opcode byte

const (
	opContinuation opcode = 0x0
	opText         opcode = 0x1
	opBinary       opcode = 0x2
	opClose        opcode = 0x8
	opPing         opcode = 0x9
	opPong         opcode = 0xa
)

const (
	finBit     = 0x80
	rsvBits    = 0x70
	opBits     = 0x0f
	maskBit    = 0x80
	lengthBits = 0x7f

	controlBit opcode = 0x8

	maxControl = 125 // bytes of a control frame's payload
	maxHeader  = 14  // bytes of a client's frame header: 2, length up to 8, mask 4
)

// Close codes (RFC 6455, section 7.4.1).
const (
	closeNormal    = 1000
	closeGoingAway = 1001
	closeProtocol  = 1002
	closeNoStatus  = 1005 // never on the wire
	closeEncoding  = 1007
	closePolicy    = 1008
	closeTooBig    = 1009
)

// violation is a breach of RFC 6455 by the client; it closes the connection with that code.
type violation uint16

func (v violation) Error() string { return "websocket: close code " + strconv.Itoa(int(v)) }

const (
	errProtocol violation = closeProtocol
	errUTF8     violation = closeEncoding
	errTooBig   violation = closeTooBig
)

// reader takes websocket frames apart. It belongs to one goroutine.
//
// An idle connection waits with the small buffer only; what does not fit into it is read into pooled memory that grows as bytes
// arrive, never as a header promises.
type reader struct {
	src  io.Reader
	long *buffer // the last message or control frame, when it did not fit in buf
	part *buffer // the fragments so far of the message being received; nil between messages
	op   opcode  // of part
	r, w uint8   // buf[r:w] is unread
	buf  [46]byte
}

// reset prepares the reader for a connection of which early has been read already; it is copied.
func (rd *reader) reset(src io.Reader, early []byte) {
	if len(early) > 0 {
		src = io.MultiReader(bytes.NewReader(bytes.Clone(early)), src)
	}
	*rd = reader{src: src}
}

// free gives pooled memory back.
func (rd *reader) free() {
	rd.long.free()
	rd.part.free()
	rd.long, rd.part = nil, nil
}

// next returns the next whole message (opText, opBinary) or control frame. data is valid until the next call. A message of more
// than limit bytes is refused when its header tells, before there is memory for it.
func (rd *reader) next(limit int) (op opcode, data []byte, err error) {
	rd.long.free()
	rd.long = nil
	for {
		if err := rd.need(2); err != nil {
			return 0, nil, err
		}
		b0, b1 := rd.buf[rd.r], rd.buf[rd.r+1]
		op := opcode(b0 & opBits)
		size := 2 + 4 // header bytes
		switch b1 & lengthBits {
		case 126:
			size += 2
		case 127:
			size += 8
		}
		if err := rd.check(b0, b1); err != nil {
			return 0, nil, err
		}
		if err := rd.need(size); err != nil {
			return 0, nil, err
		}
		head := rd.buf[rd.r : int(rd.r)+size]
		n := uint64(b1 & lengthBits)
		switch n {
		case 126:
			n = uint64(binary.BigEndian.Uint16(head[2:]))
		case 127:
			n = binary.BigEndian.Uint64(head[2:])
		}
		if n >= 1<<63 {
			return 0, nil, errProtocol
		}
		var have int
		if rd.part != nil && op&controlBit == 0 {
			have = len(rd.part.b)
		}
		if op&controlBit == 0 && n > uint64(limit-have) {
			return 0, nil, errTooBig
		}
		mask := [4]byte(head[size-4:])
		rd.r += uint8(size)

		fin := b0&finBit != 0
		switch {
		case op&controlBit != 0 || op != opContinuation && fin:
			data, err := rd.whole(int(n), mask)
			if err != nil {
				return 0, nil, err
			}
			if op == opText && !utf8.Valid(data) {
				return 0, nil, errUTF8
			}
			return op, data, nil
		case op != opContinuation:
			rd.op, rd.part = op, newBuffer()
		}
		if err := rd.append(rd.part, int(n), mask); err != nil {
			return 0, nil, err
		}
		if fin {
			rd.long, rd.part = rd.part, nil
			if rd.op == opText && !utf8.Valid(rd.long.b) {
				return 0, nil, errUTF8
			}
			return rd.op, rd.long.b, nil
		}
	}
}

// check judges the first two bytes of a frame.
func (rd *reader) check(b0, b1 byte) error {
	op := opcode(b0 & opBits)
	switch {
	case b0&rsvBits != 0:
		return errProtocol // reserved bits
	case b1&maskBit == 0:
		return errProtocol // not masked
	}
	switch op {
	case opText, opBinary:
		if rd.part != nil {
			return errProtocol // inside a fragmented message
		}
	case opContinuation:
		if rd.part == nil {
			return errProtocol // nothing to continue
		}
	case opClose, opPing, opPong:
		if b0&finBit == 0 || b1&lengthBits > maxControl {
			return errProtocol // fragmented or too long
		}
	default:
		return errProtocol // reserved opcode
	}
	return nil
}

// need reads until n bytes are in buf; n is at most maxHeader, or a payload that fits.
func (rd *reader) need(n int) error {
	if int(rd.r)+n > len(rd.buf) {
		rd.w = uint8(copy(rd.buf[:], rd.buf[rd.r:rd.w]))
		rd.r = 0
	}
	for int(rd.w-rd.r) < n {
		if rd.r == rd.w {
			rd.r, rd.w = 0, 0
		}
		got, err := rd.src.Read(rd.buf[rd.w:])
		rd.w += uint8(got)
		if err != nil && int(rd.w-rd.r) < n {
			return err
		}
	}
	return nil
}

// whole reads and unmasks the payload of an unfragmented frame, in buf if it fits there.
func (rd *reader) whole(n int, mask [4]byte) ([]byte, error) {
	if n > len(rd.buf) {
		rd.long = newBuffer()
		err := rd.append(rd.long, n, mask)
		return rd.long.b, err
	}
	if err := rd.need(n); err != nil {
		return nil, err
	}
	data := rd.buf[rd.r : int(rd.r)+n]
	rd.r += uint8(n)
	unmask(data, mask)
	return data, nil
}

// append reads and unmasks n bytes of payload behind what dst holds.
func (rd *reader) append(dst *buffer, n int, mask [4]byte) error {
	start := len(dst.b)
	for n > 0 {
		room := dst.room(n)
		got := copy(room, rd.buf[rd.r:rd.w])
		rd.r += uint8(got)
		if got == 0 {
			var err error
			if got, err = rd.src.Read(room); got == 0 && err != nil {
				return err
			}
		}
		dst.b = dst.b[:len(dst.b)+got]
		n -= got
	}
	unmask(dst.b[start:], mask)
	return nil
}

// unmask applies a frame's mask to its payload, eight bytes at a time.
func unmask(data []byte, mask [4]byte) {
	if len(data) >= 8 {
		word := uint64(binary.LittleEndian.Uint32(mask[:]))
		word |= word << 32
		for len(data) >= 8 {
			binary.LittleEndian.PutUint64(data, binary.LittleEndian.Uint64(data)^word)
			data = data[8:]
		}
	}
	for i := range data {
		data[i] ^= mask[i&3]
	}
}

// peerClose judges the payload of a close frame and returns the code to echo.
func peerClose(payload []byte) (uint16, violation) {
	if len(payload) == 0 {
		return closeNoStatus, 0
	}
	if len(payload) == 1 {
		return 0, errProtocol
	}
	code := binary.BigEndian.Uint16(payload)
	switch {
	case code >= 1000 && code <= 1003, code >= 1007 && code <= 1014, code >= 3000 && code <= 4999:
	default:
		return 0, errProtocol
	}
	if !utf8.Valid(payload[2:]) {
		return 0, errUTF8
	}
	return code, 0
}

// closingFrame is a websocket close frame; closeNoStatus gives an empty one. The reason is cut to what fits.
func closingFrame(code uint16, reason string) *Frame {
	if code == closeNoStatus {
		return newFrame(opClose, nil, nil)
	}
	// A client would fail over half a character.
	reason = strings.ToValidUTF8(reason[:min(len(reason), maxControl-2)], "")
	return newFrame(opClose, binary.BigEndian.AppendUint16(nil, code), []byte(reason))
}

// closeCode is how the end of a session for that reason looks to a websocket client.
func closeCode(reason string) uint16 {
	switch reason {
	case ReasonShuttingDown:
		return closeGoingAway
	case ReasonParseError:
		return closeProtocol
	case ReasonPingTimeout, ReasonSlowClient:
		return closePolicy
	}
	return closeNormal
}
