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
	size := len(`2["",]`) + len(name) + len(data)
	if !id.IsZero() {
		size += len(`,""`) + len(id.AppendTo(text[:0]))
	}
	return AppendEncoded(make([]byte, 0, size), name, data, id)
}

// AppendEncoded appends what Encode returns to dst.
func AppendEncoded(dst []byte, name string, data []byte, id ID) []byte {
	dst = append(dst, `2["`...)
	dst = append(dst, name...)
	dst = append(dst, `",`...)
	dst = append(dst, data...)
	if !id.IsZero() {
		dst = append(dst, `,"`...)
		dst = id.AppendTo(dst)
		dst = append(dst, '"')
	}
	return append(dst, ']')
}
