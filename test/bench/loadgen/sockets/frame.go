package sockets

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Opcodes of RFC 6455.
const (
	opText  = 1
	opClose = 8
	opPing  = 9
	opPong  = 10
)

// maxFrame bounds what is kept of one message from a server, in bytes.
const maxFrame = 4 << 20

var errProtocol = errors.New("websocket protocol error")

// nextFrame cuts the first whole frame off buf. size is 0 while the frame is
// not complete.
func nextFrame(buf []byte) (op byte, payload []byte, size int, err error) {
	if len(buf) < 2 {
		return 0, nil, 0, nil
	}
	if buf[0]&0xF0 != 0x80 {
		return 0, nil, 0, fmt.Errorf("%w: fragment or reserved bits (%#x)", errProtocol, buf[0])
	}
	if buf[1]&0x80 != 0 {
		return 0, nil, 0, fmt.Errorf("%w: masked by the server", errProtocol)
	}
	head, length := 2, uint64(buf[1])
	switch length {
	case 126:
		if len(buf) < 4 {
			return 0, nil, 0, nil
		}
		head, length = 4, uint64(binary.BigEndian.Uint16(buf[2:]))
	case 127:
		if len(buf) < 10 {
			return 0, nil, 0, nil
		}
		head, length = 10, binary.BigEndian.Uint64(buf[2:])
	}
	if length > maxFrame {
		return 0, nil, 0, fmt.Errorf("%w: frame of %d bytes", errProtocol, length)
	}
	size = head + int(length)
	if len(buf) < size {
		return 0, nil, 0, nil
	}
	return buf[0] & 0x0F, buf[head:size], size, nil
}

// mask is the same for every frame: the generator has no intermediaries to
// protect, and the server's work does not depend on the key.
var mask = [4]byte{0x4a, 0x9d, 0x31, 0xe7}

// appendFrame appends a masked client frame.
func appendFrame(dst []byte, op byte, payload []byte) []byte {
	dst = append(dst, 0x80|op)
	switch n := len(payload); {
	case n < 126:
		dst = append(dst, 0x80|byte(n))
	case n <= 0xFFFF:
		dst = append(dst, 0x80|126)
		dst = binary.BigEndian.AppendUint16(dst, uint16(n))
	default:
		dst = append(dst, 0x80|127)
		dst = binary.BigEndian.AppendUint64(dst, uint64(n))
	}
	dst = append(dst, mask[:]...)
	for i, b := range payload {
		dst = append(dst, b^mask[i&3])
	}
	return dst
}
