package realtime

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"

	"jobwire/internal/events"
)

// The types of Socket.IO packets, protocol 5, as they stand on the wire.
type packetType byte

const (
	packetConnect      packetType = '0'
	packetDisconnect   packetType = '1'
	packetEvent        packetType = '2'
	packetAck          packetType = '3'
	packetConnectError packetType = '4'
	packetBinaryEvent  packetType = '5'
	packetBinaryAck    packetType = '6'
)

// Limits of what a client may send in one packet. The bytes of its text are bounded by the engine's MaxPayload.
const (
	maxAttachments     = 8       // binary attachments; one digit
	maxAttachmentBytes = 1 << 20 // of all attachments of a packet
	maxNamespaceLen    = 255     // bytes, the slash included
	maxAckIDBits       = 53      // what a JavaScript client can count up to
	maxArgs            = 128     // elements of an event's or an ack's array
)

const mainNamespace = "/"

// packet is one decoded Socket.IO packet.
type packet struct {
	kind      packetType
	namespace string
	id        uint64 // ack id, if hasID
	hasID     bool
	event     string            // name of an EVENT or BINARY_EVENT
	args      []json.RawMessage // arguments after the name, or those of an ack
	payload   json.RawMessage   // CONNECT's object; nil when there was none

	attachments [][]byte
	missing     int // attachments still to come
}

// isBinary reports whether attachments follow a packet of this type.
func (t packetType) isBinary() bool { return t == packetBinaryEvent || t == packetBinaryAck }

// What a packet can be refused for, beside its JSON. The text is for logs; the wire only sees the connection close.
var (
	errEmpty        = errors.New("empty packet")
	errType         = errors.New("unknown packet type")
	errServerOnly   = errors.New("packet type is the server's")
	errAttachments  = errors.New("invalid attachment count")
	errNamespace    = errors.New("invalid namespace name")
	errAckID        = errors.New("invalid ack id")
	errPayload      = errors.New("payload does not fit the packet type")
	errReserved     = errors.New("reserved event name")
	errInterleaved  = errors.New("text while attachments are missing")
	errUnexpected   = errors.New("attachment without a packet")
	errAttachedSize = errors.New("attachments are too large")
)

// decode reads the text of one packet: <type>[<attachments>-][<namespace>,][<ack id>][<JSON>]. The engine has made sure that it
// is UTF-8. The packet shares data.
func decode(data []byte) (packet, error) {
	if len(data) == 0 {
		return packet{}, errEmpty
	}
	p := packet{kind: packetType(data[0]), namespace: mainNamespace}
	if p.kind < packetConnect || p.kind > packetBinaryAck {
		return packet{}, errType
	}
	if p.kind == packetConnectError {
		return packet{}, errServerOnly
	}
	rest := data[1:]
	if p.kind.isBinary() {
		if len(rest) < 2 || rest[0] < '0' || rest[0] > '0'+maxAttachments || rest[1] != '-' {
			return packet{}, errAttachments
		}
		p.missing, rest = int(rest[0]-'0'), rest[2:]
	}
	if len(rest) > 0 && rest[0] == '/' {
		name, after, _ := bytes.Cut(rest, []byte{','}) // a packet may end with its namespace
		if len(name) > maxNamespaceLen {
			return packet{}, errNamespace
		}
		p.namespace, rest = string(name), after
	}
	digits := 0
	for digits < len(rest) && '0' <= rest[digits] && rest[digits] <= '9' {
		digits++
	}
	if digits > 0 {
		id, err := strconv.ParseUint(string(rest[:digits]), 10, maxAckIDBits)
		if err != nil || digits > 1 && rest[0] == '0' {
			return packet{}, errAckID
		}
		p.id, p.hasID, rest = id, true, rest[digits:]
	}
	if err := p.setPayload(rest); err != nil {
		return packet{}, err
	}
	return p, nil
}

// setPayload checks the JSON part against the form that the packet's type asks for, and keeps it.
func (p *packet) setPayload(text []byte) error {
	switch p.kind {
	case packetConnect:
		if p.hasID || len(text) > 0 && text[0] != '{' {
			return errPayload
		}
		if len(text) == 0 {
			return nil
		}
		if err := events.CheckJSON(text); err != nil {
			return err
		}
		p.payload = text
		return nil
	case packetDisconnect:
		if p.hasID || len(text) > 0 {
			return errPayload
		}
		return nil
	}
	if len(text) == 0 || text[0] != '[' {
		return errPayload
	}
	args, err := events.SplitArray(text, maxArgs)
	if err != nil {
		return err
	}
	if p.kind == packetAck || p.kind == packetBinaryAck {
		if !p.hasID {
			return errAckID
		}
		p.args = args
		return nil
	}
	// An event: the array is not empty and begins with the name. Names are strings here; JavaScript's parser would take a
	// number too, but no client API can send one.
	if len(args) == 0 || args[0][0] != '"' {
		return errPayload
	}
	p.event, p.args = unquote(args[0]), args[1:]
	if events.IsReserved(p.event) {
		return errReserved
	}
	return nil
}

// unquote returns what a string of known JSON stands for; a lone surrogate becomes U+FFFD.
func unquote(text json.RawMessage) string {
	var s string
	_ = json.Unmarshal(text, &s)
	return s
}

// decoder puts packets together: the text of a binary packet waits here for its attachments. It is one pointer in an idle
// session.
type decoder struct {
	partial *packet
}

// text takes a text message and returns its packet, which may be missing attachments.
func (d *decoder) text(data []byte) (packet, error) {
	if d.partial != nil {
		return packet{}, errInterleaved
	}
	p, err := decode(data)
	if err == nil && p.missing > 0 {
		partial := p
		d.partial = &partial
	}
	return p, err
}

// binary takes a binary message, which it keeps, and returns the packet that it belongs to.
func (d *decoder) binary(data []byte) (packet, error) {
	p := d.partial
	if p == nil {
		return packet{}, errUnexpected
	}
	size := len(data)
	for _, a := range p.attachments {
		size += len(a)
	}
	if size > maxAttachmentBytes {
		return packet{}, errAttachedSize
	}
	p.attachments = append(p.attachments, data)
	if p.missing--; p.missing == 0 {
		d.partial = nil
	}
	return *p, nil
}

// head is the part of a packet before its payload, which is appended to it.
func head(kind packetType, namespace string) []byte {
	dst := []byte{byte(kind)}
	if namespace != mainNamespace {
		dst = append(append(dst, namespace...), ',')
	}
	return dst
}
