package events

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// The one strict reader of JSON. [Parse] and [ParseBatch] use it for events, the three functions below for what else is sent:
// what is not JSON, not UTF-8 or nested beyond MaxDepth is refused with an *Error. Lone surrogate escapes pass.

// CheckJSON says whether text is one JSON value.
func CheckJSON(text []byte) error {
	s := scanner{src: text}
	s.value()
	return s.end()
}

// SplitArray returns the elements of the JSON array in text, which they share, as they were written. An array of more than
// limit elements is refused.
func SplitArray(text []byte, limit int) ([]json.RawMessage, error) {
	s := scanner{src: text}
	if s.peek() != '[' {
		return nil, refuse(CodeInvalidJSON, "", "not a JSON array")
	}
	var elements []json.RawMessage
	for s.enter(); s.more(']'); {
		if len(elements) == limit {
			return nil, refuse(CodeBatchTooLarge, "", "an array of more than %d elements", limit)
		}
		elements = append(elements, s.value())
	}
	return elements, s.end()
}

// DecodeObject reads a JSON object into fields, which has a pointer for each member that the object may have. Unknown and
// repeated members are refused. Members may be absent or null; then their value stays as it is. Error.Field is the member at
// fault.
func DecodeObject(text []byte, fields map[string]any) error {
	s := scanner{src: text}
	seen := make(map[string]bool, len(fields))
	s.enterObject("the body")
	for key, ok := s.member(); ok; key, ok = s.member() {
		name := string(plain(key))
		field, known := fields[name]
		switch {
		case s.fault != nil: // what else is wrong is not told
		case !known:
			s.note(unknownField(name, slices.Sorted(maps.Keys(fields))...))
		case seen[name]:
			s.note(duplicateField(name))
		default:
			seen[name] = true
		}
		value := s.value()
		if s.fatal != nil || s.fault != nil {
			continue
		}
		var refusal *Error
		if err := json.Unmarshal(value, field); errors.As(err, &refusal) {
			refusal.Field = name
			s.note(refusal)
		} else if err != nil {
			s.note(refuse(CodeInvalidJSON, name, "the field has the wrong type")) // it is known to be JSON
		}
	}
	return s.end()
}

// UserID is a user id as JSON holds it: a string, or an integer, which becomes its decimal digits.
type UserID string

// UnmarshalJSON refuses what CheckUserID does.
func (id *UserID) UnmarshalJSON(text []byte) error {
	name, ok := label(text)
	if !ok {
		return refuse(CodeInvalidUserID, "", "a user id must be a string or an integer")
	}
	*id = UserID(name)
	return CheckUserID(name)
}

// MaxDepth is how many arrays and objects of an event may be open at once, the event's own object included.
const MaxDepth = 64

// scanner walks over one JSON text (RFC 8259) once and decodes nothing.
//
// It tells two kinds of trouble apart. A text that is not JSON ends the walk: fatal says why, no container has more, and what
// was read is of no use. Everything else (bytes that are not UTF-8, an unknown member) is kept in fault and the walk goes on,
// so that a bad item of a batch has a known end and fails alone.
type scanner struct {
	src   []byte
	pos   int
	depth int    // containers that are open
	fresh bool   // one was just entered: no comma is due
	fatal *Error // the first
	fault *Error // the first since it was last cleared
}

// note keeps a fault. Who makes one for each of many members or bytes looks at s.fault first: it is costly to make.
func (s *scanner) note(err *Error) {
	if s.fault == nil {
		s.fault = err
	}
}

// broken ends the walk at the current position. It returns false for its callers to return.
func (s *scanner) broken() bool {
	switch {
	case s.fatal != nil:
	case len(s.src) == 0:
		s.fatal = refuse(CodeInvalidJSON, "", "the body is empty")
	case s.pos >= len(s.src):
		s.fatal = refuse(CodeInvalidJSON, "", "the JSON text ends too early")
	default:
		s.fatal = refuse(CodeInvalidJSON, "", "not valid JSON at byte %d", s.pos)
	}
	return false
}

// end is for the end of the text: nothing but white space may be left. It returns what was wrong with all of it.
func (s *scanner) end() error {
	if s.peek(); s.pos < len(s.src) {
		s.broken()
	}
	switch {
	case s.fatal != nil:
		return s.fatal
	case s.fault != nil:
		return s.fault
	}
	return nil
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

// value walks over any value and returns it as it was written.
func (s *scanner) value() []byte {
	c := s.peek()
	start := s.pos
	switch {
	case c == '"':
		s.str()
	case (c == '{' || c == '[') && s.depth == MaxDepth:
		s.tooDeep()
	case c == '{':
		s.enter()
		for _, ok := s.member(); ok; _, ok = s.member() {
			s.value()
		}
	case c == '[':
		for s.enter(); s.more(']'); {
			s.value()
		}
	case c == '-' || '0' <= c && c <= '9':
		s.number()
	case c == 't':
		s.literal("true")
	case c == 'f':
		s.literal("false")
	case c == 'n':
		s.literal("null")
	default:
		s.broken()
	}
	return s.src[start:s.pos]
}

// enter steps into the container that begins at the current position.
func (s *scanner) enter() {
	s.pos++
	s.depth++
	s.fresh = true
}

// enterObject enters the object that has to begin here; what says what it should be.
func (s *scanner) enterObject(what string) {
	switch {
	case s.peek() == '{':
		s.enter()
	case s.pos == len(s.src):
		s.broken()
	default:
		s.fatal = refuse(CodeInvalidJSON, "", "%s must be a JSON object", what)
	}
}

// more steps to what comes next in the current container. At its end it steps out and reports false.
func (s *scanner) more(end byte) bool {
	fresh := s.fresh
	s.fresh = false
	switch c := s.peek(); {
	case s.fatal != nil:
		return false
	case c == end:
		s.pos++
		s.depth--
		return false
	case fresh:
		return true
	case c == ',':
		s.pos++
		return true
	}
	return s.broken()
}

// member steps to the value of the next member of the current object and returns its key, quotes included. At the end of the
// object it steps out and reports false.
func (s *scanner) member() (key []byte, ok bool) {
	if !s.more('}') {
		return nil, false
	}
	if s.peek() != '"' {
		return nil, s.broken()
	}
	start := s.pos
	s.str()
	key = s.src[start:s.pos]
	if s.peek() != ':' {
		return nil, s.broken()
	}
	s.pos++
	return key, s.fatal == nil
}

// tooDeep walks over a container by counting brackets only. What is inside is refused anyway; it only matters where it ends.
func (s *scanner) tooDeep() {
	if s.fault == nil {
		s.note(refuse(CodeTooDeep, "", "nested deeper than %d levels", MaxDepth))
	}
	open := 0
	for s.pos < len(s.src) && s.fatal == nil {
		switch s.src[s.pos] {
		case '"':
			s.str()
			continue
		case '{', '[':
			open++
		case '}', ']':
			open--
		}
		s.pos++
		if open == 0 {
			return
		}
	}
	s.broken()
}

// str walks over the string that begins at the current position.
func (s *scanner) str() {
	for i := s.pos + 1; i < len(s.src); {
		switch c := s.src[i]; {
		case c == '"':
			s.pos = i + 1
			return
		case c == '\\':
			n := escapeLen(s.src[i:])
			if n == 0 {
				s.pos = i
				s.broken()
				return
			}
			i += n
		case c < 0x20:
			s.pos = i
			s.broken()
			return
		case c < utf8.RuneSelf:
			i++
		default:
			r, n := utf8.DecodeRune(s.src[i:])
			if r == utf8.RuneError && n == 1 && s.fault == nil {
				s.note(refuse(CodeInvalidUTF8, "", "bytes that are not valid UTF-8"))
			}
			i += n
		}
	}
	s.pos = len(s.src)
	s.broken()
}

// number walks over the number that begins at the current position.
func (s *scanner) number() {
	if s.at('-') {
		s.pos++
	}
	if s.at('0') {
		s.pos++
	} else {
		s.digits()
	}
	if s.at('.') {
		s.pos++
		s.digits()
	}
	if s.at('e') || s.at('E') {
		s.pos++
		if s.at('+') || s.at('-') {
			s.pos++
		}
		s.digits()
	}
}

func (s *scanner) at(c byte) bool { return s.pos < len(s.src) && s.src[s.pos] == c }

// digits walks over one digit or more.
func (s *scanner) digits() {
	start := s.pos
	for s.pos < len(s.src) && '0' <= s.src[s.pos] && s.src[s.pos] <= '9' {
		s.pos++
	}
	if s.pos == start {
		s.broken()
	}
}

func (s *scanner) literal(word string) {
	if !bytes.HasPrefix(s.src[s.pos:], []byte(word)) {
		s.broken()
		return
	}
	s.pos += len(word)
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
	n, err := strconv.ParseUint(string(b[:4]), 16, 16)
	if err != nil {
		return -1
	}
	return rune(n)
}

// escaped reads the escape sequence at the start of b, or both of a pair of surrogates; without its other half, one of them is
// the rune. n is the length.
func escaped(b []byte) (r rune, n int) {
	if b[1] != 'u' {
		if k := strings.IndexByte("bfnrt", b[1]); k >= 0 {
			return rune("\b\f\n\r\t"[k]), 2
		}
		return rune(b[1]), 2
	}
	r = hex4(b[2:])
	if utf16.IsSurrogate(r) && bytes.HasPrefix(b[6:], []byte(`\u`)) {
		if whole := utf16.DecodeRune(r, hex4(b[8:])); whole != utf8.RuneError {
			return whole, 12
		}
	}
	return r, 6
}

// plain is the text of a quoted key. Keys with escapes are rare, and only they cost an allocation.
func plain(quoted []byte) []byte {
	if bytes.IndexByte(quoted, '\\') < 0 {
		return quoted[1 : len(quoted)-1]
	}
	text, _ := unquote(quoted)
	return []byte(text)
}

// unquote decodes a string that str has walked over. It reports false for a surrogate without its other half: there is no
// UTF-8 for it, and replacing it would give two different ids the same spelling.
func unquote(quoted []byte) (string, bool) {
	body := quoted[1 : len(quoted)-1]
	if bytes.IndexByte(body, '\\') < 0 {
		return string(body), true
	}
	text := make([]byte, 0, len(body))
	for i := 0; i < len(body); {
		if body[i] != '\\' {
			text = append(text, body[i])
			i++
			continue
		}
		r, n := escaped(body[i:])
		if utf16.IsSurrogate(r) {
			return "", false
		}
		text = utf8.AppendRune(text, r)
		i += n
	}
	return string(text), true
}
