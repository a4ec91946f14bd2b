package events

import (
	"unicode/utf16"
	"unicode/utf8"
)

// MaxDepth is how many arrays and objects of an event may be open at once, the event's own object
// included.
const MaxDepth = 64

// scanner walks over one JSON text (RFC 8259) once and decodes nothing.
//
// It tells two kinds of trouble apart. A text that is not JSON ends the walk: methods return false
// and fatal says why. Everything else (bytes that are not UTF-8, an unknown member) is kept in
// fault and the walk goes on, so that a bad item of a batch has a known end and fails alone.
type scanner struct {
	src   []byte
	pos   int
	fatal *Error
	fault *Error // the first since it was last cleared
}

// span is the place of one value in the text, quotes included.
type span struct{ start, end int }

func (p span) found() bool { return p.end > p.start }

func (s *scanner) text(p span) []byte { return s.src[p.start:p.end] }

func (s *scanner) note(err *Error) {
	if s.fault == nil {
		s.fault = err
	}
}

// found is what was noted, as an error.
func (s *scanner) found() error {
	if s.fault == nil {
		return nil
	}
	return s.fault
}

// broken ends the walk at the current position.
func (s *scanner) broken() bool {
	if s.fatal == nil {
		switch {
		case len(s.src) == 0:
			s.fatal = refuse(CodeInvalidJSON, "", "the body is empty")
		case s.pos >= len(s.src):
			s.fatal = refuse(CodeInvalidJSON, "", "the JSON text ends too early")
		default:
			s.fatal = refuse(CodeInvalidJSON, "", "not valid JSON at byte %d", s.pos)
		}
	}
	return false
}

// peek skips white space and returns the byte after it, 0 at the end.
func (s *scanner) peek() byte {
	for s.pos < len(s.src) {
		switch c := s.src[s.pos]; c {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return c
		}
	}
	return 0
}

// atObject reports whether an object begins here; what says what it should be.
func (s *scanner) atObject(what string) bool {
	switch {
	case s.peek() == '{':
		return true
	case s.pos == len(s.src):
		return s.broken()
	}
	s.fatal = refuse(CodeInvalidJSON, "", "%s must be a JSON object", what)
	return false
}

// end reports whether nothing but white space is left.
func (s *scanner) end() bool {
	s.peek()
	return s.pos == len(s.src) || s.broken()
}

// value walks over any value. depth is the number of containers around it.
func (s *scanner) value(depth int) (span, bool) {
	c := s.peek()
	start := s.pos
	var ok bool
	switch {
	case c == '"':
		ok = s.str()
	case c == '{':
		ok = s.object(depth, nil)
	case c == '[':
		ok = s.array(depth, nil)
	case c == '-' || '0' <= c && c <= '9':
		ok = s.number()
	case c == 't':
		ok = s.literal("true")
	case c == 'f':
		ok = s.literal("false")
	case c == 'n':
		ok = s.literal("null")
	default:
		ok = s.broken()
	}
	return span{start, s.pos}, ok
}

// object walks over the object that begins at the current position. member, when not nil, is called
// with each key, quotes included, and must walk over the value that follows.
func (s *scanner) object(depth int, member func(key []byte) bool) bool {
	if depth >= MaxDepth {
		return s.tooDeep()
	}
	s.pos++ // the brace
	if s.peek() == '}' {
		s.pos++
		return true
	}
	for {
		if s.peek() != '"' {
			return s.broken()
		}
		start := s.pos
		if !s.str() {
			return false
		}
		key := s.src[start:s.pos]
		if s.peek() != ':' {
			return s.broken()
		}
		s.pos++
		if member != nil {
			if !member(key) {
				return false
			}
		} else if _, ok := s.value(depth + 1); !ok {
			return false
		}
		switch s.peek() {
		case ',':
			s.pos++
		case '}':
			s.pos++
			return true
		default:
			return s.broken()
		}
	}
}

// array is to arrays what object is to objects.
func (s *scanner) array(depth int, element func() bool) bool {
	if depth >= MaxDepth {
		return s.tooDeep()
	}
	s.pos++ // the bracket
	if s.peek() == ']' {
		s.pos++
		return true
	}
	for {
		if element != nil {
			if !element() {
				return false
			}
		} else if _, ok := s.value(depth + 1); !ok {
			return false
		}
		switch s.peek() {
		case ',':
			s.pos++
		case ']':
			s.pos++
			return true
		default:
			return s.broken()
		}
	}
}

// tooDeep walks over a container by counting brackets only. What is inside is refused anyway; it
// only matters where it ends.
func (s *scanner) tooDeep() bool {
	s.note(refuse(CodeTooDeep, "", "nested deeper than %d levels", MaxDepth))
	open := 0
	for s.pos < len(s.src) {
		switch s.src[s.pos] {
		case '"':
			if !s.str() {
				return false
			}
			continue
		case '{', '[':
			open++
		case '}', ']':
			open--
		}
		s.pos++
		if open == 0 {
			return true
		}
	}
	return s.broken()
}

// str walks over the string that begins at the current position.
func (s *scanner) str() bool {
	for i := s.pos + 1; i < len(s.src); {
		switch c := s.src[i]; {
		case c == '"':
			s.pos = i + 1
			return true
		case c == '\\':
			n := escapeLen(s.src[i:])
			if n == 0 {
				s.pos = i
				return s.broken()
			}
			i += n
		case c < 0x20:
			s.pos = i
			return s.broken()
		case c < utf8.RuneSelf:
			i++
		default:
			r, n := utf8.DecodeRune(s.src[i:])
			if r == utf8.RuneError && n == 1 {
				s.note(refuse(CodeInvalidUTF8, "", "bytes that are not valid UTF-8"))
			}
			i += n
		}
	}
	s.pos = len(s.src)
	return s.broken()
}

// escapeLen is the length of the escape sequence at the start of b, 0 when it is none.
func escapeLen(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	switch b[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
		if hex4(b[2:]) >= 0 {
			return 6
		}
	}
	return 0
}

// hex4 reads four hexadecimal digits, -1 when there are not four.
func hex4(b []byte) rune {
	if len(b) < 4 {
		return -1
	}
	var r rune
	for _, c := range b[:4] {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c|0x20 && c|0x20 <= 'f':
			c = c | 0x20 - 'a' + 10
		default:
			return -1
		}
		r = r<<4 | rune(c)
	}
	return r
}

// number walks over the number that begins at the current position.
func (s *scanner) number() bool {
	if s.at('-') {
		s.pos++
	}
	switch {
	case s.at('0'):
		s.pos++
	case !s.digits():
		return s.broken()
	}
	if s.at('.') {
		s.pos++
		if !s.digits() {
			return s.broken()
		}
	}
	if s.at('e') || s.at('E') {
		s.pos++
		if s.at('+') || s.at('-') {
			s.pos++
		}
		if !s.digits() {
			return s.broken()
		}
	}
	return true
}

func (s *scanner) at(c byte) bool { return s.pos < len(s.src) && s.src[s.pos] == c }

func (s *scanner) digits() bool {
	start := s.pos
	for s.pos < len(s.src) && '0' <= s.src[s.pos] && s.src[s.pos] <= '9' {
		s.pos++
	}
	return s.pos > start
}

func (s *scanner) literal(word string) bool {
	if len(s.src)-s.pos < len(word) || string(s.src[s.pos:s.pos+len(word)]) != word {
		return s.broken()
	}
	s.pos += len(word)
	return true
}

// unquote decodes a string that str has walked over. It reports false for a surrogate without its
// other half: there is no UTF-8 for it, and replacing it would give two different ids the same
// spelling.
func unquote(quoted []byte) (string, bool) {
	body := quoted[1 : len(quoted)-1]
	first := 0
	for first < len(body) && body[first] != '\\' {
		first++
	}
	if first == len(body) {
		return string(body), true
	}
	out := make([]byte, first, len(body))
	copy(out, body)
	for i := first; i < len(body); {
		if body[i] != '\\' {
			out = append(out, body[i])
			i++
			continue
		}
		if body[i+1] != 'u' {
			out = append(out, unescape(body[i+1]))
			i += 2
			continue
		}
		r := hex4(body[i+2:])
		i += 6
		if utf16.IsSurrogate(r) {
			if i+1 >= len(body) || body[i] != '\\' || body[i+1] != 'u' {
				return "", false
			}
			if r = utf16.DecodeRune(r, hex4(body[i+2:])); r == utf8.RuneError {
				return "", false
			}
			i += 6
		}
		out = utf8.AppendRune(out, r)
	}
	return string(out), true
}

func unescape(c byte) byte {
	switch c {
	case 'b':
		return '\b'
	case 'f':
		return '\f'
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	}
	return c // one of " \ /
}
