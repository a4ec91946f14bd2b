package events

import (
	"bytes"
	"encoding/json"
	"testing"
)

func TestCanonical(t *testing.T) {
	for text, want := range map[string]string{
		` { "a" : [ 1 , 2.0 , "x y" ] , "b" : null } `: `{"a":[1,2.0,"x y"],"b":null}`,
		`"\u0041\/\u00e9\ud83d\ude00"`:                 `"A/é😀"`,
		`"A/é😀"`:                                       `"A/é😀"`,
		`"\"\\\u0022\u005c"`:                           `"\"\\\"\\"`,
		`"\n\u000A\t\u001f"`:                           `"\u000a\u000a\u0009\u001f"`,
		`"\ud83d"`:                                     `"\ud83d"`,
		`"\uD83D\u0041"`:                               `"\ud83dA"`,
		`"\ude00\ud83d\ude00"`:                         `"\ude00😀"`,
		`"a \" b"`:                                     `"a \" b"`,
		"{\"b\":1,\r\n\t\"a\":1e2}":                    `{"b":1,"a":1e2}`,
		`"\u2028<>&"`:                                  "\"\u2028<>&\"",
	} {
		if got := string(AppendCanonical(nil, []byte(text))); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}

func FuzzCanonical(f *testing.F) {
	for _, seed := range []string{`{"a": "\u00e9\n"}`, `["\ud83d\ude00", "\ud83d"]`, `"\\u0041"`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if CheckJSON(text) != nil {
			return
		}
		got := AppendCanonical(nil, text)
		if CheckJSON(got) != nil || !bytes.Equal(AppendCanonical(nil, got), got) {
			t.Fatalf("%q becomes %q", text, got)
		}
		// It says the same: to encoding/json, which replaces lone surrogates.
		var a, b any
		if json.Unmarshal(text, &a) != nil {
			return // a number that no float holds
		}
		if err := json.Unmarshal(got, &b); err != nil {
			t.Fatalf("%q: %v", got, err)
		}
		one, _ := json.Marshal(a)
		two, _ := json.Marshal(b)
		if !bytes.Equal(one, two) {
			t.Fatalf("%q says %s, and %q %s", text, one, got, two)
		}
	})
}
