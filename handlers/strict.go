package handlers

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"unicode/utf8"

	"jobwire/internal/events"
)

// decodeObject reads a small JSON object into fields, a pointer for each
// member that it may have. It is as strict as package events is with events:
// unknown and repeated members and invalid UTF-8 are refused. Members may be
// absent or null; then their value stays as it is.
func decodeObject(body []byte, fields map[string]any) error {
	if !utf8.Valid(body) {
		return &events.Error{Code: events.CodeInvalidUTF8}
	}
	decoder := json.NewDecoder(bytes.NewReader(body))
	if start, err := decoder.Token(); err != nil || start != json.Delim('{') {
		return &events.Error{Code: events.CodeInvalidJSON, Detail: "the body must be a JSON object"}
	}
	seen := make(map[string]bool, len(fields))
	for decoder.More() {
		token, err := decoder.Token()
		name, isString := token.(string)
		if err != nil || !isString {
			return &events.Error{Code: events.CodeInvalidJSON}
		}
		target, known := fields[name]
		switch {
		case !known:
			return &events.Error{Code: events.CodeUnknownField, Field: clip(name)}
		case seen[name]:
			return &events.Error{Code: events.CodeDuplicateField, Field: name}
		}
		seen[name] = true
		if err := decoder.Decode(target); err != nil {
			var refusal *events.Error
			if errors.As(err, &refusal) {
				return refusal
			}
			refusal = &events.Error{Code: events.CodeInvalidJSON}
			var wrongType *json.UnmarshalTypeError
			if errors.As(err, &wrongType) {
				refusal.Field, refusal.Detail = name, "the field has the wrong type"
			}
			return refusal
		}
	}
	if _, err := decoder.Token(); err != nil {
		return &events.Error{Code: events.CodeInvalidJSON}
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return &events.Error{Code: events.CodeInvalidJSON, Detail: "something follows the object"}
	}
	return nil
}

// clip keeps a field name of the client's short enough to repeat.
func clip(name string) string {
	const limit = 64
	if len(name) <= limit {
		return name
	}
	end := limit
	for !utf8.RuneStart(name[end]) {
		end--
	}
	return name[:end] + "…"
}

// userID reads a user id as events do: from a string or an integer.
type userID string

func (id *userID) UnmarshalJSON(text []byte) error {
	refusal := &events.Error{Code: events.CodeInvalidUserID, Field: "userIds", Detail: "a user id must be a string or an integer"}
	if text[0] == '"' {
		var s string
		if err := json.Unmarshal(text, &s); err != nil {
			return err
		}
		*id = userID(s)
	} else if digits := bytes.TrimPrefix(text, []byte("-")); len(bytes.Trim(digits, "0123456789")) == 0 && string(text) != "-0" {
		*id = userID(text)
	} else {
		return refusal
	}
	if err := events.CheckUserID(string(*id)); err != nil {
		if !errors.As(err, &refusal) {
			return err
		}
		return &events.Error{Code: refusal.Code, Field: "userIds", Detail: refusal.Detail}
	}
	return nil
}

// bytesText is a number of bytes for people.
func bytesText(n int) string { return strconv.Itoa(n) + " bytes" }
