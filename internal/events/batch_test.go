package events

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestABadItemOfABatchFailsAlone(t *testing.T) {
	good := func(i int) string { return fmt.Sprintf(`{"userId":%d,"event":"x","data":{"n":%d}}`, i, i) }
	deep := strings.Repeat(`{"a":`, 500) + `"}]{["` + strings.Repeat(`}`, 500)
	items := []struct{ body, code string }{
		{good(0), ""},
		{`{"userId":1,"event":"x"}`, CodeMissingField},
		{good(2), ""},
		{`"not an event"`, CodeInvalidJSON},
		{`null`, CodeInvalidJSON},
		{`[` + good(0) + `]`, CodeInvalidJSON},
		{good(6), ""},
		{"{\"userId\":\"\xff\",\"event\":\"x\",\"data\":1}", CodeInvalidUTF8},
		{good(8), ""},
		{`{"userId":1,"event":"x","data":` + deep + `}`, CodeTooDeep},
		{good(10), ""},
		{`{"userId":1,"event":"connect","data":1,"bad":2}`, CodeUnknownField},
		{`{"userId":1,"event":"x","data":"` + strings.Repeat("x", 9000) + `"}`, CodeEventTooLarge},
		{`[` + deep + `]`, CodeInvalidJSON},
		{`{"userId":1,"event":"job_failed","data":{}}`, CodeMissingJobID},
		{good(15), ""},
	}
	var bodies []string
	for _, item := range items {
		bodies = append(bodies, item.body)
	}
	got, err := ParseBatch([]byte(`{"events":[`+strings.Join(bodies, " ,\n")+`]}`), len(items), 8000)
	if err != nil || len(got) != len(items) {
		t.Fatalf("%d results, %v", len(got), err)
	}
	for i, item := range items {
		if c := code(t, got[i].Err); c != item.code {
			t.Errorf("item %d gives %q (%v), want %q", i, c, got[i].Err, item.code)
		}
		if item.code == "" && got[i].Event.UserID != fmt.Sprint(i) {
			t.Errorf("item %d is %+v", i, got[i].Event)
		}
	}
}

func TestABatchOfTheRightShapePasses(t *testing.T) {
	for body, want := range map[string]int{
		`{"events":[]}`:           0,
		` { "events" : [ ] } `:    0,
		`{"\u0065vents":[1,2,3]}`: 3,
	} {
		items, err := ParseBatch([]byte(body), 3, 100)
		if err != nil || len(items) != want {
			t.Errorf("%s gives %d items, %v", body, len(items), err)
		}
	}
}

func TestABadEnvelopeFailsAsAWhole(t *testing.T) {
	const item = `{"userId":1,"event":"x","data":1}`
	for _, tc := range []struct{ code, field, body string }{
		{CodeInvalidJSON, "", ``},
		{CodeInvalidJSON, "", `[` + item + `]`},
		{CodeInvalidJSON, "", `{"events":[` + item},
		{CodeInvalidJSON, "", `{"events":[` + item + `,]}`},
		{CodeInvalidJSON, "", `{"events":[` + item + `]}x`},
		{CodeInvalidJSON, "", `{"events":[{"userId":1,"event":"x","data":1]}}`},
		{CodeInvalidJSON, "events", `{"events":{}}`},
		{CodeInvalidJSON, "events", `{"events":null}`},
		{CodeMissingField, "events", `{}`},
		{CodeUnknownField, "event", `{"event":[],"events":[]}`},
		{CodeUnknownField, "more", `{"events":[{}],"more":1}`},
		{CodeDuplicateField, "events", `{"events":[],"events":[]}`},
		{CodeInvalidUTF8, "", "{\"events\":[],\"\xff\":1}"},
		{CodeBatchTooLarge, "events", `{"events":[1,2,3,4]}`},
		{CodeBatchTooLarge, "events", `{"events":[1,2,3,` + strings.Repeat("[", 1000)},
	} {
		items, err := ParseBatch([]byte(tc.body), 3, 100)
		if got := code(t, err); got != tc.code || items != nil {
			t.Errorf("%s\n gives %q (%v) and %d items, want %q", tc.body, got, err, len(items), tc.code)
			continue
		}
		if e := new(Error); errors.As(err, &e) && e.Field != tc.field {
			t.Errorf("%s\n blames %q, want %q", tc.body, e.Field, tc.field)
		}
	}
}

func BenchmarkParseBatch(b *testing.B) {
	body := []byte(`{"events":[` + strings.Repeat(typical+",", 99) + typical + `]}`)
	b.ReportAllocs()
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		if _, err := ParseBatch(body, 1000, 65536); err != nil {
			b.Fatal(err)
		}
	}
}
