package events

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// brackets are n arrays in each other.
func brackets(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }

func TestCheckJSON(t *testing.T) {
	for text, want := range map[string]string{
		`{}`:                               "",
		` [1, "a\ud800", null] `:           "",
		`-1.5e+3`:                          "",
		brackets(MaxDepth):                 "",
		brackets(MaxDepth + 1):             CodeTooDeep,
		brackets(30_000):                   CodeTooDeep,
		``:                                 CodeInvalidJSON,
		`{} {}`:                            CodeInvalidJSON,
		`{"a":1,}`:                         CodeInvalidJSON,
		`nul`:                              CodeInvalidJSON,
		strings.Repeat("[", MaxDepth+1):    CodeInvalidJSON,
		strings.Repeat(`{"a":`, 100) + `1`: CodeInvalidJSON,
		"\"\xff\"":                         CodeInvalidUTF8,
		"{\"\xc3\":1}":                     CodeInvalidUTF8,
	} {
		if got := code(t, CheckJSON([]byte(text))); got != want {
			t.Errorf("%.60q gives %q, want %q", text, got, want)
		}
	}
}

func TestSplitArray(t *testing.T) {
	for text, want := range map[string][]string{
		`[]`:                         {},
		` [ ] `:                      {},
		`[1 , {"a":[1,2]} , "],["] `: {`1`, `{"a":[1,2]}`, `"],["`},
		`["\ud800",1e400,-0]`:        {`"\ud800"`, `1e400`, `-0`},
		`[1,2,3,4]`:                  {`1`, `2`, `3`, `4`},
	} {
		got, err := SplitArray([]byte(text), 4)
		if err != nil || !slices.EqualFunc(got, want, func(a json.RawMessage, b string) bool { return string(a) == b }) {
			t.Errorf("%s gives %q, %v", text, got, err)
		}
	}
	for text, want := range map[string]string{
		``:                                      CodeInvalidJSON,
		`{}`:                                    CodeInvalidJSON,
		`1`:                                     CodeInvalidJSON,
		`[1`:                                    CodeInvalidJSON,
		`[1,]`:                                  CodeInvalidJSON,
		`[1]]`:                                  CodeInvalidJSON,
		`[1,2,3,4,5]`:                           CodeBatchTooLarge,
		`[1,2,3,4,` + strings.Repeat("[", 1000): CodeBatchTooLarge,
		"[1,\"\xff\"]":                          CodeInvalidUTF8,
		brackets(MaxDepth + 1):                  CodeTooDeep,
	} {
		elements, err := SplitArray([]byte(text), 4)
		if got := code(t, err); got != want {
			t.Errorf("%.60q gives %q and %q, want %q", text, elements, got, want)
		}
	}
}

func TestDecodeObject(t *testing.T) {
	type fields struct {
		reason string
		ids    []UserID
	}
	decode := func(text string) (f fields, err error) {
		err = DecodeObject([]byte(text), map[string]any{"reason": &f.reason, "userIds": &f.ids})
		return f, err
	}
	for text, want := range map[string]fields{
		`{}`:                              {},
		` {"reason":"x","userIds":null} `: {reason: "x"},
		`{"r\u0065ason":"\ud83d\ude00"}`:  {reason: "😀"},
		`{"userIds":["a",1,-2]}`:          {ids: []UserID{"a", "1", "-2"}},
	} {
		got, err := decode(text)
		if err != nil || got.reason != want.reason || !slices.Equal(got.ids, want.ids) {
			t.Errorf("%s gives %+v, %v", text, got, err)
		}
	}
	for _, tc := range []struct{ code, field, text string }{
		{CodeInvalidJSON, "", ``},
		{CodeInvalidJSON, "", `[]`},
		{CodeInvalidJSON, "", `{"reason":"x"`},
		{CodeInvalidJSON, "", `{} {}`},
		{CodeInvalidJSON, "", `{1:2}`},
		{CodeInvalidJSON, "reason", `{"reason":7}`},
		{CodeInvalidJSON, "userIds", `{"userIds":"a"}`},
		{CodeInvalidUTF8, "", "{\"reason\":\"\xff\"}"},
		{CodeTooDeep, "", `{"reason":` + brackets(MaxDepth) + `}`},
		{CodeUnknownField, "Reason", `{"Reason":"x"}`},
		{CodeDuplicateField, "reason", `{"reason":"x","r\u0065ason":"y"}`},
		{CodeInvalidUserID, "userIds", `{"userIds":[null]}`},
		{CodeInvalidUserID, "userIds", `{"userIds":[1.5]}`},
		{CodeInvalidUserID, "userIds", `{"userIds":[-0]}`},
		{CodeInvalidUserID, "userIds", `{"userIds":[""]}`},
		{CodeInvalidUserID, "userIds", `{"userIds":["\ud800"]}`},
	} {
		_, err := decode(tc.text)
		if got := code(t, err); got != tc.code {
			t.Errorf("%.60q gives %q (%v), want %q", tc.text, got, err, tc.code)
			continue
		}
		if e := new(Error); errors.As(err, &e) && e.Field != tc.field {
			t.Errorf("%.60q blames %q, want %q", tc.text, e.Field, tc.field)
		}
	}
}

// FuzzJSON: the reader takes exactly what encoding/json takes, but for depth and what is not UTF-8,
// and finds the elements of arrays where encoding/json does.
func FuzzJSON(f *testing.F) {
	for _, seed := range []string{
		`{"a":[1,2.5e-3,true,null,"\ud83d\ude00"]}`, ` [] `, `["\ud800"]`, "\"\xff\"", `[1,]`, `{"a" 1}`, `01`, `-`, `"\u12`, "\"\n\"",
		strings.Repeat("[", 70), brackets(70), `[[1],{"a":"]"}]`, `[]]`, "[1]\x1e",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		err := CheckJSON(text)
		switch valid := json.Valid(text); {
		case err == nil && !(valid && utf8.Valid(text)):
			t.Fatalf("%q was accepted", text)
		case code(t, err) == CodeInvalidJSON && valid:
			t.Fatalf("%q is JSON, but: %v", text, err)
		}
		elements, splitErr := SplitArray(text, 10)
		var std []json.RawMessage
		if err != nil || json.Unmarshal(text, &std) != nil || std == nil || len(std) > 10 {
			if splitErr == nil {
				t.Fatalf("%q was split", text)
			}
			return
		}
		if splitErr != nil || !slices.EqualFunc(elements, std, func(a, b json.RawMessage) bool { return string(a) == string(b) }) {
			t.Fatalf("%q was split into %q, %v; encoding/json has %q", text, elements, splitErr, std)
		}
	})
}

// FuzzDecodeObject: what is accepted, encoding/json accepts with the same result.
func FuzzDecodeObject(f *testing.F) {
	for _, seed := range []string{
		`{"reason":"x"}`, `{"userIds":["a",1,-2]}`, ` { "reason" : null } `, `{"reason":"a","reason":"b"}`, `{}`, `[]`, `{"reason":`,
		`{"userIds":[null,1.5,{}]}`, `{"reason":"\ud83d"}`, "{\"\xff\":1}", `{} {}`, `{"reason":7}`, `{"userIds":[-0]}`, `{1:2}`, `{"reason" "x"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var got, want struct {
			Reason  string   `json:"reason"`
			UserIDs []UserID `json:"userIds"`
		}
		err := DecodeObject(text, map[string]any{"reason": &got.Reason, "userIds": &got.UserIDs})
		if err != nil {
			code(t, err) // a proper refusal
			return
		}
		if err := json.Unmarshal(text, &want); err != nil {
			t.Fatalf("%q was accepted: %v", text, err)
		}
		if got.Reason != want.Reason || !slices.Equal(got.UserIDs, want.UserIDs) || !utf8.ValidString(got.Reason) {
			t.Fatalf("%q: got %+v, want %+v", text, got, want)
		}
		for _, id := range got.UserIDs {
			if CheckUserID(string(id)) != nil {
				t.Fatalf("%q gives the id %q", text, id)
			}
		}
	})
}

// An unknown field that is a slip of a known one says so.
func TestUnknownFieldsSayWhatWouldBeRight(t *testing.T) {
	for _, field := range eventFields {
		if new(members).place([]byte(field)) == nil {
			t.Errorf("%s has no place", field)
		}
	}
	const none = "there is no such field"
	for name, want := range map[string]string{
		"user_id": "userId", "USERID": "userId", "user": "userId", "evnt": "event", "job-id": "jobId", "jobid": "jobId", "atempt": "attempt",
		"payload": "", "x": "", "id": "", "datas": "data", "idempotency_key": "idempotencyKey", "idempotency": "", strings.Repeat("userId", 1000): "",
	} {
		_, _, err := Parse([]byte(`{"userId":"a","event":"note","data":1,"` + name + `":1}`))
		detail := none
		if want != "" {
			detail += "; did you mean " + want + "?"
		}
		var refusal *Error
		if !errors.As(err, &refusal) || refusal.Code != CodeUnknownField || refusal.Detail != detail {
			t.Errorf("%.40s: %v, want %q", name, err, detail)
		}
	}
	var reason string
	err := DecodeObject([]byte(`{"Reson":"x"}`), map[string]any{"reason": &reason})
	if err == nil || !strings.HasSuffix(err.Error(), "did you mean reason?") {
		t.Error(err)
	}
	if _, err := ParseBatch([]byte(`{"event":[]}`), 1, 1); err == nil || !strings.HasSuffix(err.Error(), "did you mean events?") {
		t.Error(err)
	}
}

// Only the first fault is told. To make one for each of a million members took seconds of a processor.
func TestWhatIsWrongInManyPlacesIsJudgedOnce(t *testing.T) {
	const many = 5000
	unknown, twice := strings.Repeat(`"user_name":0,`, many), strings.Repeat(`"data":0,`, many)
	deep := strings.Repeat("[", MaxDepth) + strings.Repeat("[],", many) + "0" + strings.Repeat("]", MaxDepth)
	for name, read := range map[string]func() error{
		"unknown members": func() error { _, _, err := Parse([]byte(`{` + unknown + `"data":0}`)); return err },
		"repeated ones":   func() error { _, _, err := Parse([]byte(`{` + twice + `"data":0}`)); return err },
		"those of a batch": func() error {
			_, err := ParseBatch([]byte(`{`+unknown+`"events":[]}`), 1, 1)
			return err
		},
		"those of another object":  func() error { return DecodeObject([]byte(`{`+unknown+`"a":0}`), map[string]any{"a": new(int)}) },
		"bytes that are not UTF-8": func() error { return CheckJSON([]byte(`"` + strings.Repeat("\xff", many) + `"`)) },
		"deep arrays":              func() error { return CheckJSON([]byte(deep)) },
	} {
		var err error
		if n := testing.AllocsPerRun(1, func() { err = read() }); n > many+200 || err == nil {
			t.Errorf("%s: %v allocations to say %v", name, n, err)
		}
	}
}
