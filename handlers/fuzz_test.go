package handlers

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"
	"unicode/utf8"
)

// What decodeObject accepts, encoding/json accepts with the same result.
func FuzzDecodeObject(f *testing.F) {
	for _, seed := range []string{
		`{"reason":"x"}`, `{"userIds":["a",1,-2]}`, ` { "reason" : null } `, `{"reason":"a","reason":"b"}`, `{}`, `[]`, `{"reason":`,
		`{"userIds":[null,1.5,{}]}`, `{"reason":"\ud83d"}`, "{\"\xff\":1}", `{} {}`, `{"reason":7}`, `{"userIds":[-0]}`, `{1:2}`, `{"reason" "x"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var got, want struct {
			Reason  string   `json:"reason"`
			UserIDs []userID `json:"userIds"`
		}
		err := decodeObject(body, map[string]any{"reason": &got.Reason, "userIds": &got.UserIDs})
		if err != nil {
			if problems[refusalOf(err).Code].status != http.StatusBadRequest {
				t.Fatalf("%q is refused with %v", body, err)
			}
			return
		}
		if err := json.Unmarshal(body, &want); err != nil {
			t.Fatalf("%q was accepted: %v", body, err)
		}
		if got.Reason != want.Reason || len(got.UserIDs) != len(want.UserIDs) || !utf8.ValidString(got.Reason) {
			t.Fatalf("%q: got %+v, want %+v", body, got, want)
		}
		for i, id := range got.UserIDs {
			if id == "" || id != want.UserIDs[i] {
				t.Fatalf("%q: got %q, want %q", body, got.UserIDs, want.UserIDs)
			}
		}
	})
}

func FuzzPreferredWait(f *testing.F) {
	for _, seed := range []string{"wait=5", "a, wait = \"6\";x", "wait=", "wait=18446744073709551616", ",;=,"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		wait := preferredWait(http.Header{headerPrefer: {value}})
		if wait < 0 || wait > MaxWait || wait%time.Second != 0 {
			t.Fatalf("%q makes a call wait for %v", value, wait)
		}
	})
}
