package events

import (
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// AppendCanonical appends JSON that [Parse] has taken, without white space between its parts and with every string spelled in
// one way: only quotes, backslashes, control characters and lone surrogates are escaped. So what different encoders make of the
// same data is the same, unless they order members or spell numbers differently.
func AppendCanonical(dst, text []byte) []byte {
	inString := false
	for i := 0; i < len(text); {
		c := text[i]
		switch {
		case !inString && strings.IndexByte(" \t\r\n", c) >= 0:
			i++
			continue
		case c == '"':
			inString = !inString
		case inString && c == '\\':
			r, n := escaped(text[i:])
			switch {
			case r == '"' || r == '\\':
				dst = append(dst, '\\', byte(r))
			case r < ' ' || utf16.IsSurrogate(r):
				const hex = "0123456789abcdef"
				dst = append(dst, '\\', 'u', hex[r>>12&0xf], hex[r>>8&0xf], hex[r>>4&0xf], hex[r&0xf])
			default:
				dst = utf8.AppendRune(dst, r)
			}
			i += n
			continue
		}
		dst = append(dst, c)
		i++
	}
	return dst
}
