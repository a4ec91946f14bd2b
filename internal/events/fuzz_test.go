package events

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

func FuzzParse(f *testing.F) {
	for _, body := range []string{
		typical, `{}`, `{"userId":1,"event":"x","data":null}`, `{"userId":"u","event":"job_failed","data":{"jobId":7,"attempt":2}}`,
		`{"user\u0049d":"\ud83d\ude00","event":"x","data":"\ud800","idempotencyKey":"k","staleAfter":null}`,
		"{\"userId\":\"\xff\",\"event\":\"x\",\"data\":[1e5,-0.1]}", `{"userId":"u","userId":"u"}`,
		strings.Repeat("[", 100), `{"a":` + strings.Repeat("[", 70) + strings.Repeat("]", 70) + `}`,
		`{"userId":"u","event":"job_progress","data":{"jobId":"j"},"staleAfter":1.5} `,
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		before := bytes.Clone(body)
		event, err := Parse(body)
		if !bytes.Equal(before, body) {
			t.Fatal("the body was changed")
		}
		if err != nil {
			checkRefusal(t, body, err)
		} else {
			checkAccepted(t, body, event)
		}
		checkBatchAgrees(t, body, event, err)
	})
}

func checkRefusal(t *testing.T, body []byte, err error) {
	var e *Error
	if !errors.As(err, &e) || e.Code == "" || e.Detail == "" {
		t.Fatalf("not a proper refusal: %#v", err)
	}
	object := len(bytes.TrimLeft(body, " \t\r\n")) > 0 && bytes.TrimLeft(body, " \t\r\n")[0] == '{'
	if e.Code == CodeInvalidJSON && object && json.Valid(body) {
		t.Fatalf("%q is JSON, but: %v", body, e)
	}
}

func checkAccepted(t *testing.T, body []byte, event Event) {
	if !json.Valid(body) || !utf8.Valid(body) {
		t.Fatalf("%q was accepted", body)
	}
	if !bytes.Contains(body, event.Data) || !json.Valid(event.Data) {
		t.Fatalf("data %q is not a value in the body", event.Data)
	}
	if err := errors.Join(CheckUserID(event.UserID), CheckName(event.Name)); err != nil {
		t.Fatal(err)
	}
	if event.Kind != Message && (event.JobID == "" || event.Data[0] != '{') {
		t.Fatalf("a job event without a job: %+v", event)
	}
	// The standard library must read the same members out of it.
	var std struct {
		UserID json.RawMessage `json:"userId"`
		Event  string          `json:"event"`
		Data   json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(body, &std); err != nil {
		t.Fatal(err)
	}
	var user string
	if json.Unmarshal(std.UserID, &user) != nil {
		user = string(std.UserID)
	}
	if user != event.UserID || std.Event != event.Name || !bytes.Equal(std.Data, event.Data) {
		t.Fatalf("read %+v, encoding/json %q %q %q", event, user, std.Event, std.Data)
	}
	id := ID{Ms: 1763892000123, Seq: 9}
	packet := Encode(event.Name, event.Data, id)
	var array []json.RawMessage
	if packet[0] != '2' || json.Unmarshal(packet[1:], &array) != nil || len(array) != 3 {
		t.Fatalf("not a packet: %q", packet)
	}
	if string(array[0]) != `"`+event.Name+`"` || !bytes.Equal(array[1], event.Data) || string(array[2]) != `"`+id.String()+`"` {
		t.Fatalf("not the event: %q", packet)
	}
	if bytes.ContainsRune(packet, 0x1e) {
		t.Fatal("the packet would split a polling payload")
	}
}

// checkBatchAgrees puts the body between two good items: it must fare as it
// does alone and must not touch its neighbours.
func checkBatchAgrees(t *testing.T, body []byte, event Event, err error) {
	const good = `{"userId":"g","event":"g","data":1}`
	items, batchErr := ParseBatch([]byte(`{"events":[`+good+`,`+string(body)+`,`+good+`]}`), 100, 1<<20)
	if err == nil {
		if batchErr != nil || len(items) != 3 || items[1].Err != nil || !equalEvents(items[1].Event, event) {
			t.Fatalf("accepted alone, but in a batch: %v", batchErr)
		}
	}
	if batchErr != nil {
		return
	}
	for _, i := range []int{0, len(items) - 1} {
		if items[i].Err != nil || items[i].Event.UserID != "g" {
			t.Fatalf("neighbour %d became %+v", i, items[i])
		}
	}
}
