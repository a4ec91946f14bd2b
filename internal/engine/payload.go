package engine

import (
	"bytes"
	"encoding/base64"
	"errors"
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
	if f.kind == batchFrame {
		packet, rest := cutPacket(f.wire)
		payload = append(payload, packet...)
		for len(rest) > 0 {
			packet, rest = cutPacket(rest)
			payload = append(append(payload, separator), packet...)
		}
		return payload
	}
	if f.kind == binaryFrame {
		payload = append(payload, 'b')
		return base64.StdEncoding.AppendEncode(payload, f.packet())
	}
	return append(payload, f.packet()...)
}

// payloadSize is how many bytes appendPacket appends, the separator included. A batch is not looked through for that: its
// websocket headers are longer than the separators would be.
func payloadSize(f *Frame) int {
	switch f.kind {
	case binaryFrame:
		return 2 + base64.StdEncoding.EncodedLen(len(f.packet()))
	case batchFrame:
		return len(f.wire)
	}
	return 1 + len(f.packet())
}
