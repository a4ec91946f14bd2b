package realtime

import (
	"bytes"
	"encoding/json"
)

// checkJSON reports whether text is one JSON value that is not nested beyond maxDepth.
func checkJSON(text []byte) error {
	if err := scan(text, nil); err != nil {
		return err
	}
	if !json.Valid(text) {
		return errJSON
	}
	return nil
}

// splitArray returns the elements of the JSON array in text, which they share. Nothing is decoded: arguments stay what the
// client wrote.
func splitArray(text []byte) ([]json.RawMessage, error) {
	commas := make([]int, 0, 8)
	if err := scan(text, &commas); err != nil {
		return nil, err
	}
	// The scan has assumed that text is JSON; only now is it known, and with it that the commas are where they seemed.
	if !json.Valid(text) {
		return nil, errJSON
	}
	text = bytes.TrimRight(text, " \t\r\n") // scan leaves what follows the last bracket to json.Valid
	inner := bytes.Trim(text[1:len(text)-1], " \t\r\n")
	if len(inner) == 0 {
		return nil, nil
	}
	args := make([]json.RawMessage, 0, len(commas)+1)
	start := 1
	for _, comma := range commas {
		args = append(args, bytes.Trim(text[start:comma], " \t\r\n"))
		start = comma + 1
	}
	return append(args, bytes.Trim(text[start:len(text)-1], " \t\r\n")), nil
}

// scan walks over text as if it were JSON, bounds its depth, and collects the places of the outermost container's commas.
// It never fails on what is not JSON: that is json.Valid's to say, which in turn bounds depth only at 10,000.
func scan(text []byte, commas *[]int) error {
	depth := 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '"':
			for i++; i < len(text) && text[i] != '"'; i++ {
				if text[i] == '\\' {
					i++
				}
			}
		case '[', '{':
			if depth++; depth > maxDepth {
				return errDepth
			}
		case ']', '}':
			depth--
		case ',':
			if depth == 1 && commas != nil {
				if len(*commas) == maxArgs-1 {
					return errArgs
				}
				*commas = append(*commas, i)
			}
		}
	}
	return nil
}

// unquote returns the string that a valid JSON string stands for.
func unquote(text json.RawMessage) string {
	if bytes.IndexByte(text, '\\') < 0 {
		return string(text[1 : len(text)-1])
	}
	var s string
	_ = json.Unmarshal(text, &s) // text is known to be a JSON string
	return s
}
