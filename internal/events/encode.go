package events

// Encode builds the Socket.IO packet text of an event in the main namespace: 2["name",data,"id"], or without an id
// 2["name",data], or 2["name",data,null] when data is a string: a client takes any trailing string for its recovery offset.
// Engine.IO's own leading '4' is the engine's.
//
// name must satisfy the pattern of [CheckName], so that it needs no escapes, and data must be valid JSON.
func Encode(name string, data []byte, id ID) []byte {
	var text [maxIDLen]byte
	size := len(`2["",]`) + len(name) + len(data)
	switch {
	case !id.IsZero():
		size += len(`,""`) + len(id.AppendTo(text[:0]))
	case isString(data):
		size += len(`,null`)
	}
	return AppendEncoded(make([]byte, 0, size), name, data, id)
}

// AppendEncoded appends what Encode returns to dst.
func AppendEncoded(dst []byte, name string, data []byte, id ID) []byte {
	dst = append(dst, `2["`...)
	dst = append(dst, name...)
	dst = append(dst, `",`...)
	dst = append(dst, data...)
	switch {
	case !id.IsZero():
		dst = append(dst, `,"`...)
		dst = id.AppendTo(dst)
		dst = append(dst, '"')
	case isString(data):
		dst = append(dst, `,null`...)
	}
	return append(dst, ']')
}

func isString(data []byte) bool { return len(data) > 0 && data[0] == '"' }
