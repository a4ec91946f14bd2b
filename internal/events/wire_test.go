package events

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestParseReadsWhatWorkersSend(t *testing.T) {
	for _, tc := range []struct {
		behaviour, body string
		want            Event
	}{
		{"a job event", `{"userId":"u1","event":"job_progress","data":{"jobId":"j1","progress":40}}`,
			Event{UserID: "u1", Name: JobProgress, Data: json.RawMessage(`{"jobId":"j1","progress":40}`), Kind: Progress, JobID: "j1"}},
		{"every member, in another order, with white space", " \r\n\t{ \"staleAfter\" : 1.5 , \"data\" : { \"attempt\" : 3 , \"jobId\" : 77 } ,\n\"kind\": \"progress\",\"attempt\":3,\"jobId\":\"77\",\"idempotencyKey\":\"k\",\"event\":\"job_progress\",\"userId\":42 } \n",
			Event{UserID: "42", Name: JobProgress, Data: json.RawMessage(`{ "attempt" : 3 , "jobId" : 77 }`), Kind: Progress, JobID: "77", Attempt: 3, HasAttempt: true,
				IdempotencyKey: "k", StaleAfter: 1500 * time.Millisecond}},
		{"optional members may be null", `{"userId":"u","event":"job_failed","data":{"jobId":"j","attempt":null},"idempotencyKey":null,"staleAfter":null,"kind":null,"jobId":null,"attempt":null}`,
			Event{UserID: "u", Name: JobFailed, Data: json.RawMessage(`{"jobId":"j","attempt":null}`), Kind: Failed, JobID: "j"}},
		{"escapes in what is interpreted", `{"user\u0049d":"\u005a\u006f\u00eb\"\\\/\ud83d\ude00","event":"job\u005fcompleted","data":{"job\u0049d":"a\u00e9"},"\u006bind":"complet\u0065d","job\u0049d":"\u0061é"}`,
			Event{UserID: `Zoë"\/😀`, Name: JobCompleted, Data: json.RawMessage(`{"job\u0049d":"a\u00e9"}`), Kind: Completed, JobID: "aé"}},
		{"a user id of any size of integer", `{"userId":-123456789012345678901234567890,"event":"a","data":0}`,
			Event{UserID: "-123456789012345678901234567890", Name: "a", Data: json.RawMessage(`0`)}},
		{"the highest attempt", `{"userId":"u","event":"job_failed","data":{"jobId":"j","attempt":4294967295}}`,
			Event{UserID: "u", Name: JobFailed, Data: json.RawMessage(`{"jobId":"j","attempt":4294967295}`), Kind: Failed, JobID: "j", Attempt: 4294967295, HasAttempt: true}},
		{"an attempt of 0 is one", `{"userId":"u","event":"job_failed","data":{"jobId":"j","attempt":0}}`,
			Event{UserID: "u", Name: JobFailed, Data: json.RawMessage(`{"jobId":"j","attempt":0}`), Kind: Failed, JobID: "j", HasAttempt: true}},
		{"a worker's own event does not need a job, and its data is not looked into", `{"userId":"u","event":"x","data":{"jobId":[],"attempt":-1,"jobId":2}}`,
			Event{UserID: "u", Name: "x", Data: json.RawMessage(`{"jobId":[],"attempt":-1,"jobId":2}`)}},
		{"nested members called jobId are not the job", `{"userId":"u","event":"job_failed","data":{"a":{"jobId":"no","attempt":"x"},"jobId":"yes"}}`,
			Event{UserID: "u", Name: JobFailed, Data: json.RawMessage(`{"a":{"jobId":"no","attempt":"x"},"jobId":"yes"}`), Kind: Failed, JobID: "yes"}},

		{"a kind makes progress of any event, and its data is not looked into", `{"userId":"u","event":"video","kind":"progress","jobId":7,"attempt":0,"data":{"jobId":"other","attempt":-1,"jobId":[]},"staleAfter":2}`,
			Event{UserID: "u", Name: "video", Data: json.RawMessage(`{"jobId":"other","attempt":-1,"jobId":[]}`), Kind: Progress, JobID: "7", HasAttempt: true, StaleAfter: 2 * time.Second}},
		{"a kind makes an end of any event, whatever its data", `{"userId":"u","event":"video:done","kind":"completed","jobId":"v-1","data":"12 %"}`,
			Event{UserID: "u", Name: "video:done", Data: json.RawMessage(`"12 %"`), Kind: Completed, JobID: "v-1"}},
		{"an end may be a failure", `{"data":null,"attempt":4294967295,"jobId":"v-1","kind":"failed","event":"video:gone","userId":"u"}`,
			Event{UserID: "u", Name: "video:gone", Data: json.RawMessage(`null`), Kind: Failed, JobID: "v-1", Attempt: 4294967295, HasAttempt: true}},
		{"a known name may have its job and attempt beside it", `{"userId":"u","event":"job_progress","jobId":"j","attempt":2,"data":{"progress":1}}`,
			Event{UserID: "u", Name: JobProgress, Data: json.RawMessage(`{"progress":1}`), Kind: Progress, JobID: "j", Attempt: 2, HasAttempt: true}},
		{"what is said twice may be written in two ways", `{"userId":"u","event":"job_completed","kind":"completed","jobId":"7","attempt":1,"data":{"jobId":7,"attempt":1}}`,
			Event{UserID: "u", Name: JobCompleted, Data: json.RawMessage(`{"jobId":7,"attempt":1}`), Kind: Completed, JobID: "7", Attempt: 1, HasAttempt: true}},
		{"what is said once is enough", `{"userId":"u","event":"job_completed","jobId":"7","data":{"attempt":1}}`,
			Event{UserID: "u", Name: JobCompleted, Data: json.RawMessage(`{"attempt":1}`), Kind: Completed, JobID: "7", Attempt: 1, HasAttempt: true}},
	} {
		got, warnings, err := Parse([]byte(tc.body))
		if err != nil || warnings != nil {
			t.Errorf("%s: %v, %v", tc.behaviour, warnings, err)
			continue
		}
		if !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%s:\n got %+v\nwant %+v", tc.behaviour, got, tc.want)
		}
	}
}

func TestParseKeepsDataByteForByte(t *testing.T) {
	for _, data := range []string{
		`null`, `true`, `false`, `0`, `-0`, `-0.0e-10`, `12345678901234567890123`, `1e999`, `""`, `"a string"`, `[]`, `{}`,
		`{"z":1,"a":2,"z":3}`, "{ \"a\" :\t[ 1 ,\r\n2 ] }", `"\u0000\ud800 \udc00 \uD83D\uDE00"`, "\"\u2028\u2029 王 😀\"", `{"__proto__":{"x":1}}`,
		strings.Repeat("[", MaxDepth-1) + strings.Repeat("]", MaxDepth-1),
	} {
		body := []byte(`{"userId":"u","event":"x","data": ` + data + ` }`)
		event, _, err := Parse(body)
		if err != nil || string(event.Data) != data {
			t.Errorf("%s came out as %s, %v", data, event.Data, err)
		}
		if cap(event.Data) != len(event.Data) {
			t.Errorf("%s: appending to the data would write into the rest of the body", data)
		}
	}
}

func TestParseRefusals(t *testing.T) {
	job := func(data string) string { return `{"userId":"u","event":"job_progress","data":` + data + `}` }
	named := func(name, fields, data string) string {
		return `{"userId":"u","event":"` + name + `",` + fields + `,"data":` + data + `}`
	}
	own := func(fields string) string { return named("x", fields, `{"jobId":"in data","attempt":9}`) }
	deep := strings.Repeat("[", MaxDepth) + strings.Repeat("]", MaxDepth)
	for _, tc := range []struct{ code, field, body string }{
		{CodeInvalidJSON, "", ``},
		{CodeInvalidJSON, "", ` `},
		{CodeInvalidJSON, "", `null`},
		{CodeInvalidJSON, "", `[]`},
		{CodeInvalidJSON, "", `"x"`},
		{CodeInvalidJSON, "", "\xef\xbb\xbf{}"},
		{CodeInvalidJSON, "", `{`},
		{CodeInvalidJSON, "", `{"userId"`},
		{CodeInvalidJSON, "", `{"userId":`},
		{CodeInvalidJSON, "", `{"userId":"u"`},
		{CodeInvalidJSON, "", `{"userId":"u",}`},
		{CodeInvalidJSON, "", `{"userId" "u"}`},
		{CodeInvalidJSON, "", `{userId:"u"}`},
		{CodeInvalidJSON, "", `{'userId':'u'}`},
		{CodeInvalidJSON, "", job(`{"jobId":"j"}`) + `{}`},
		{CodeInvalidJSON, "", job(`{"jobId":"j"}`) + "\x00"},
		{CodeInvalidJSON, "", job(`{"jobId":"j",}`)},
		{CodeInvalidJSON, "", job(`[1,]`)},
		{CodeInvalidJSON, "", job(`[1 2]`)},
		{CodeInvalidJSON, "", job(`01`)},
		{CodeInvalidJSON, "", job(`+1`)},
		{CodeInvalidJSON, "", job(`1.`)},
		{CodeInvalidJSON, "", job(`.1`)},
		{CodeInvalidJSON, "", job(`1e`)},
		{CodeInvalidJSON, "", job(`-`)},
		{CodeInvalidJSON, "", job(`NaN`)},
		{CodeInvalidJSON, "", job(`nul`)},
		{CodeInvalidJSON, "", job(`True`)},
		{CodeInvalidJSON, "", job("\"a\nb\"")},
		{CodeInvalidJSON, "", job("\"a\x1eb\"")}, // would split a polling payload in two
		{CodeInvalidJSON, "", job("1\x1e")},
		{CodeInvalidJSON, "", job(`"\x"`)},
		{CodeInvalidJSON, "", job(`"\u12g4"`)},
		{CodeInvalidJSON, "", job(`"\u12`)},
		{CodeInvalidJSON, "", job(`"abc`)},
		{CodeInvalidJSON, "", `{"nope":1,"userId":01}`}, // that it is no JSON at all is said first
		{CodeInvalidUTF8, "data", job("{\"jobId\":\"j\",\"a\":\"\xff\"}")},
		{CodeInvalidUTF8, "data", job("{\"jobId\":\"j\",\"a\xc0\xaf\":1}")},
		{CodeInvalidUTF8, "data", job("{\"jobId\":\"j\",\"a\":\"\xed\xa0\x80\"}")},
		{CodeInvalidUTF8, "userId", "{\"userId\":\"\xc3\",\"event\":\"x\",\"data\":1}"},
		{CodeInvalidUTF8, "", "{\"\xff\":1}"},
		{CodeTooDeep, "data", job(deep)},
		{CodeTooDeep, "data", job(`{"jobId":"j","x":` + deep + `}`)},
		{CodeTooDeep, "idempotencyKey", `{"idempotencyKey":` + deep + `}`},
		{CodeUnknownField, "what", `{"what":` + deep + `}`}, // of several faults the first is told
		{CodeUnknownField, "userID", `{"userID":"u","event":"x","data":1}`},
		{CodeUnknownField, "", `{"":"u","event":"x","data":1}`},
		{CodeUnknownField, "extra", `{"userId":"u","event":"x","data":1,"extra":{"a":[1,2]}}`},
		{CodeDuplicateField, "userId", `{"userId":"u","userId":"v","event":"x","data":1}`},
		{CodeDuplicateField, "userId", `{"userId":"u","user\u0049d":"v","event":"x","data":1}`},
		{CodeDuplicateField, "data", `{"userId":"u","data":{},"event":"x","data":{}}`},
		{CodeDuplicateField, "data.jobId", job(`{"jobId":"j","job\u0049d":"k"}`)},
		{CodeDuplicateField, "data.attempt", job(`{"jobId":"j","attempt":1,"attempt":2}`)},
		{CodeMissingField, "userId", `{}`},
		{CodeMissingField, "userId", `{"event":"x","data":1}`},
		{CodeMissingField, "event", `{"userId":"u","data":1}`},
		{CodeMissingField, "data", `{"userId":"u","event":"x"}`},
		{CodeInvalidUserID, "userId", `{"userId":"","event":"x","data":1}`},
		{CodeInvalidUserID, "userId", `{"userId":null,"event":"x","data":1}`},
		{CodeInvalidUserID, "userId", `{"userId":true,"event":"x","data":1}`},
		{CodeInvalidUserID, "userId", `{"userId":["u"],"event":"x","data":1}`},
		{CodeInvalidUserID, "userId", `{"userId":{},"event":"x","data":1}`},
		{CodeInvalidUserID, "userId", `{"userId":1.0,"event":"x","data":1}`},
		{CodeInvalidUserID, "userId", `{"userId":1e3,"event":"x","data":1}`},
		{CodeInvalidUserID, "userId", `{"userId":-0,"event":"x","data":1}`},
		{CodeInvalidUserID, "userId", `{"userId":"a\u0000","event":"x","data":1}`},
		{CodeInvalidUserID, "userId", `{"userId":"\ud800","event":"x","data":1}`},
		{CodeInvalidUserID, "userId", `{"userId":"\udc00\ud800","event":"x","data":1}`},
		{CodeInvalidUserID, "userId", `{"userId":"\ud800\u0041","event":"x","data":1}`},
		{CodeInvalidUserID, "userId", `{"userId":"\ud800\n","event":"x","data":1}`},
		{CodeInvalidUserID, "userId", `{"userId":"` + strings.Repeat("x", 129) + `","event":"x","data":1}`},
		{CodeInvalidUserID, "userId", `{"userId":` + strings.Repeat("9", 129) + `,"event":"x","data":1}`},
		{CodeInvalidEventName, "event", `{"userId":"u","event":"","data":1}`},
		{CodeInvalidEventName, "event", `{"userId":"u","event":7,"data":1}`},
		{CodeInvalidEventName, "event", `{"userId":"u","event":null,"data":1}`},
		{CodeInvalidEventName, "event", `{"userId":"u","event":"a b","data":1}`},
		{CodeReservedEventName, "event", `{"userId":"u","event":"connect","data":1}`},
		{CodeReservedEventName, "event", `{"userId":"u","event":"job\u005fstalled","data":1}`},
		{CodeInvalidData, "data", job(`[]`)},
		{CodeInvalidData, "data", job(`null`)},
		{CodeInvalidData, "data", job(`"{}"`)},
		{CodeMissingJobID, "data.jobId", job(`{}`)},
		{CodeMissingJobID, "data.jobId", job(`{"jobId":null}`)},
		{CodeMissingJobID, "data.jobId", job(`{"jobid":"j"}`)},
		{CodeInvalidJobID, "data.jobId", job(`{"jobId":""}`)},
		{CodeInvalidJobID, "data.jobId", job(`{"jobId":1.5}`)},
		{CodeInvalidJobID, "data.jobId", job(`{"jobId":{}}`)},
		{CodeInvalidJobID, "data.jobId", job(`{"jobId":"a\u0000b"}`)},
		{CodeInvalidJobID, "data.jobId", job(`{"jobId":"` + strings.Repeat("x", 129) + `"}`)},
		{CodeInvalidAttempt, "data.attempt", job(`{"jobId":"j","attempt":-1}`)},
		{CodeInvalidAttempt, "data.attempt", job(`{"jobId":"j","attempt":1.0}`)},
		{CodeInvalidAttempt, "data.attempt", job(`{"jobId":"j","attempt":"1"}`)},
		{CodeInvalidAttempt, "data.attempt", job(`{"jobId":"j","attempt":true}`)},
		{CodeInvalidAttempt, "data.attempt", job(`{"jobId":"j","attempt":4294967296}`)},
		{CodeInvalidKind, "kind", own(`"kind":"","jobId":1`)},
		{CodeInvalidKind, "kind", own(`"kind":"Progress","jobId":1`)},
		{CodeInvalidKind, "kind", own(`"kind":"message"`)},
		{CodeInvalidKind, "kind", own(`"kind":1,"jobId":1`)},
		{CodeInvalidKind, "kind", own(`"kind":["progress"],"jobId":1`)},
		{CodeInvalidKind, "kind", own(`"kind":true,"jobId":1`)},
		{CodeInvalidKind, "kind", named(JobFailed, `"kind":"fail"`, `{"jobId":1}`)},
		{CodeDuplicateField, "kind", own(`"kind":"progress","kind":"progress","jobId":1`)},
		{CodeDuplicateField, "jobId", own(`"kind":"progress","jobId":1,"jobId":1`)},
		{CodeDuplicateField, "attempt", own(`"kind":"progress","attempt":1,"jobId":1,"attempt":1`)},
		{CodeMissingField, "kind", own(`"jobId":1`)},
		{CodeMissingField, "kind", own(`"attempt":0`)},
		{CodeMissingField, "kind", own(`"kind":null,"jobId":1,"attempt":1`)},
		{CodeMissingJobID, "jobId", own(`"kind":"progress"`)},
		{CodeMissingJobID, "jobId", own(`"kind":"completed","jobId":null,"attempt":1`)},
		{CodeMissingJobID, "jobId", `{"userId":"u","event":"x","kind":"failed","data":{"jobId":"j"}}`},
		{CodeMissingJobID, "data.jobId", named(JobProgress, `"kind":"progress","jobId":null`, `{"jobId":null}`)},
		{CodeInvalidJobID, "jobId", own(`"kind":"progress","jobId":""`)},
		{CodeInvalidJobID, "jobId", own(`"kind":"progress","jobId":7.0`)},
		{CodeInvalidJobID, "jobId", own(`"kind":"progress","jobId":"a\u0007"`)},
		{CodeInvalidJobID, "jobId", own(`"kind":"progress","jobId":"` + strings.Repeat("x", 129) + `"`)},
		{CodeInvalidJobID, "jobId", named(JobFailed, `"jobId":{}`, `{"jobId":1}`)},
		{CodeInvalidAttempt, "attempt", own(`"kind":"progress","jobId":1,"attempt":-1`)},
		{CodeInvalidAttempt, "attempt", own(`"kind":"progress","jobId":1,"attempt":"1"`)},
		{CodeInvalidAttempt, "attempt", own(`"kind":"progress","jobId":1,"attempt":4294967296`)},
		{CodeInvalidAttempt, "attempt", named(JobFailed, `"attempt":1.5`, `{"jobId":1}`)},
		{CodeFieldConflict, "kind", named(JobCompleted, `"kind":"failed"`, `{"jobId":1}`)},
		{CodeFieldConflict, "kind", named(JobProgress, `"kind":"completed"`, `{"jobId":1}`)},
		{CodeFieldConflict, "kind", named(JobFailed, `"kind":"progress"`, `[]`)},
		{CodeFieldConflict, "jobId", named(JobCompleted, `"jobId":1`, `{"jobId":"2"}`)},
		{CodeFieldConflict, "jobId", named(JobProgress, `"jobId":"a"`, `{"jobId":"A"}`)},
		{CodeFieldConflict, "jobId", named(JobProgress, `"jobId":"7"`, `{"jobId":"07"}`)},
		{CodeFieldConflict, "attempt", named(JobProgress, `"attempt":1`, `{"jobId":"7","attempt":2}`)},
		{CodeFieldConflict, "attempt", named(JobProgress, `"attempt":0`, `{"jobId":"7","attempt":1}`)},
		{CodeFieldConflict, "attempt", named(JobProgress, `"attempt":1`, `{"jobId":"7","attempt":0}`)},
		{CodeInvalidData, "data", named(JobProgress, `"jobId":"j"`, `"50 %"`)},
		{CodeInvalidStaleAfter, "staleAfter", own(`"staleAfter":5`)},
		{CodeInvalidStaleAfter, "staleAfter", own(`"kind":"completed","jobId":1,"staleAfter":5`)},
		{CodeInvalidStaleAfter, "staleAfter", own(`"kind":"progress","jobId":1,"staleAfter":0.01`)},
		{CodeInvalidIdempotencyKey, "idempotencyKey", `{"userId":"u","event":"x","data":1,"idempotencyKey":""}`},
		{CodeInvalidIdempotencyKey, "idempotencyKey", `{"userId":"u","event":"x","data":1,"idempotencyKey":1}`},
		{CodeInvalidIdempotencyKey, "idempotencyKey", `{"userId":"u","event":"x","data":1,"idempotencyKey":"` + strings.Repeat("k", 256) + `"}`},
		{CodeInvalidStaleAfter, "staleAfter", `{"userId":"u","event":"job_progress","data":{"jobId":"j"},"staleAfter":0}`},
		{CodeInvalidStaleAfter, "staleAfter", `{"userId":"u","event":"job_progress","data":{"jobId":"j"},"staleAfter":-1}`},
		{CodeInvalidStaleAfter, "staleAfter", `{"userId":"u","event":"job_progress","data":{"jobId":"j"},"staleAfter":"30"}`},
		{CodeInvalidStaleAfter, "staleAfter", `{"userId":"u","event":"job_progress","data":{"jobId":"j"},"staleAfter":86400.1}`},
		{CodeInvalidStaleAfter, "staleAfter", `{"userId":"u","event":"job_progress","data":{"jobId":"j"},"staleAfter":1e999}`},
		{CodeInvalidStaleAfter, "staleAfter", `{"userId":"u","event":"job_completed","data":{"jobId":"j"},"staleAfter":30}`},
	} {
		event, warnings, err := Parse([]byte(tc.body))
		if got := code(t, err); got != tc.code {
			t.Errorf("%s\n gives %q (%v), want %q", tc.body, got, err, tc.code)
			continue
		}
		if e := new(Error); errors.As(err, &e) && e.Field != tc.field {
			t.Errorf("%s\n blames %q, want %q", tc.body, e.Field, tc.field)
		}
		if !reflect.DeepEqual(event, Event{}) || warnings != nil {
			t.Errorf("%s\n was refused and still gave %+v, %v", tc.body, event, warnings)
		}
	}
}

func TestErrorsQuoteNoMoreThanAPieceOfTheInput(t *testing.T) {
	_, _, err := Parse([]byte(`{"` + strings.Repeat("é", 5000) + `":1}`))
	if e := new(Error); !errors.As(err, &e) || len(e.Error()) > 150 || !strings.HasSuffix(e.Field, "é…") {
		t.Errorf("got %v", err)
	}
}

func TestParseStaleAfter(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"30": 30 * time.Second, "0.1": 100 * time.Millisecond, "1e2": 100 * time.Second, "86400": 24 * time.Hour,
		"": 0, "0": 0, "0.09": 0, "-1": 0, "+1": 0, " 1": 0, "1 ": 0, "1s": 0, "0x10": 0, "1_0": 0, "inf": 0, "NaN": 0, "86401": 0, "null": 0,
		strings.Repeat("1", 33): 0,
	} {
		got, err := ParseStaleAfter(text)
		if got != want || (err != nil) != (want == 0) {
			t.Errorf("ParseStaleAfter(%q) = %v, %v", text, got, err)
		}
	}
}

// typical is an event as workers send them most.
const typical = `{"userId":"user-4711","event":"job_progress","data":{"jobId":"7c1f1f0e-9a52-4a57-8f7d-1f6d7e7e0b11","progress":42,"message":"rendering page 42 of 100"}}`

func TestATypicalEventCostsFewAllocations(t *testing.T) {
	body := []byte(typical)
	n := testing.AllocsPerRun(100, func() {
		if _, _, err := Parse(body); err != nil {
			t.Fatal(err)
		}
	})
	if n > 2 { // the user's id and the job's
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkParse(b *testing.B) {
	b.ReportAllocs()
	b.SetBytes(int64(len(typical)))
	body := []byte(typical)
	for b.Loop() {
		if _, _, err := Parse(body); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkParseWithEncodingJSON is what the scanner is measured against: the
// least that encoding/json needs for the same answer, without the checks.
func BenchmarkParseWithEncodingJSON(b *testing.B) {
	b.ReportAllocs()
	b.SetBytes(int64(len(typical)))
	body := []byte(typical)
	for b.Loop() {
		var envelope struct {
			UserID, Event string
			Data          json.RawMessage
		}
		var job struct {
			JobID   string
			Attempt uint32
		}
		decoder := json.NewDecoder(bytes.NewReader(body))
		decoder.DisallowUnknownFields()
		if err := errors.Join(decoder.Decode(&envelope), json.Unmarshal(envelope.Data, &job)); err != nil {
			b.Fatal(err)
		}
	}
}
