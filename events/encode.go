package events

// Encode builds the Socket.IO packet text of an event in the main namespace:
// 2["name",data,"id"], or 2["name",data] for the zero id. Engine.IO's own
// leading '4' is the engine's.
//
// name must satisfy the pattern of [CheckName], so that it needs no escapes,
// and data must be valid JSON. A client takes a trailing string for a
// recovery offset, so with the zero id data must not itself be a string.
func Encode(name string, data []byte, id ID) []byte {
	var text [maxIDLen]byte
	var suffix []byte
	size := len(`2["",]`) + len(name) + len(data)
	if !id.IsZero() {
		suffix = id.AppendTo(text[:0])
		size += len(`,""`) + len(suffix)
	}
	packet := make([]byte, 0, size)
	packet = append(packet, `2["`...)
	packet = append(packet, name...)
	packet = append(packet, `",`...)
	packet = append(packet, data...)
	if len(suffix) > 0 {
		packet = append(packet, `,"`...)
		packet = append(packet, suffix...)
		packet = append(packet, '"')
	}
	return append(packet, ']')
}
