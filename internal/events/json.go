package events

import (
	"encoding/json"
	"errors"
)

// The one strict reader of this package, for those who have other JSON than events: what is not
// JSON, not UTF-8 or nested beyond MaxDepth is refused with an *Error. Lone surrogate escapes pass.

// CheckJSON says whether text is one JSON value.
func CheckJSON(text []byte) error {
	s := scanner{src: text}
	if _, ok := s.value(0); !ok || !s.end() {
		return s.fatal
	}
	return s.found()
}

// SplitArray returns the elements of the JSON array in text, which they share, as they were
// written. An array of more than limit elements is refused.
func SplitArray(text []byte, limit int) ([]json.RawMessage, error) {
	s := scanner{src: text}
	if s.peek() != '[' {
		return nil, refuse(CodeInvalidJSON, "", "not a JSON array")
	}
	var elements []json.RawMessage
	ok := s.array(0, func() bool {
		if len(elements) == limit {
			s.fatal = refuse(CodeBatchTooLarge, "", "an array of more than %d elements", limit)
			return false
		}
		place, ok := s.value(1)
		elements = append(elements, s.text(place))
		return ok
	})
	if !ok || !s.end() {
		return nil, s.fatal
	}
	return elements, s.found()
}

// DecodeObject reads a JSON object into fields, which has a pointer for each member that the object
// may have. Unknown and repeated members are refused. Members may be absent or null; then their
// value stays as it is. Error.Field is the member at fault.
func DecodeObject(text []byte, fields map[string]any) error {
	s := scanner{src: text}
	if !s.atObject("the body") {
		return s.fatal
	}
	seen := make(map[string]bool, len(fields))
	ok := s.object(0, func(key []byte) bool {
		name := string(plain(key))
		field, known := fields[name]
		switch {
		case !known:
			s.note(unknownField(name))
		case seen[name]:
			s.note(duplicateField(name))
		default:
			seen[name] = true
		}
		place, ok := s.value(1)
		if ok && s.fault == nil {
			s.note(decodeField(name, s.text(place), field))
		}
		return ok
	})
	if !ok || !s.end() {
		return s.fatal
	}
	return s.found()
}

// decodeField decodes a value that is known to be JSON, so that only its type can be wrong.
func decodeField(name string, text []byte, field any) *Error {
	err := json.Unmarshal(text, field)
	var refusal *Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &refusal):
		return &Error{Code: refusal.Code, Detail: refusal.Detail, Field: name}
	}
	return refuse(CodeInvalidJSON, name, "the field has the wrong type")
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
