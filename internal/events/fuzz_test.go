package events

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"slices"
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
		`{"userId":"u","event":"x","kind":"progress","jobId":7,"attempt":0,"data":"s","staleAfter":1}`,
		`{"userId":"u","event":"job_completed","kind":"completed","jobId":7,"attempt":1,"data":{"jobId":"7","attempt":1}}`,
		`{"userId":"u","event":"job_progress","jobId":"j","data":{"progress":100.5}}`, `{"userId":"u","event":"job_done","data":1}`,
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		before := bytes.Clone(body)
		event, warnings, err := Parse(body)
		if !bytes.Equal(before, body) {
			t.Fatal("the body was changed")
		}
		if err != nil {
			checkRefusal(t, body, err)
		} else {
			checkAccepted(t, body, event)
			checkJob(t, body, event, warnings)
		}
		checkBatchAgrees(t, body, event, warnings, err)
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
	packet = Encode(event.Name, event.Data, ID{})
	if json.Unmarshal(packet[1:], &array) != nil || !bytes.Equal(array[1], event.Data) || len(array) > 2 && string(array[2]) != "null" ||
		array[len(array)-1][0] == '"' {
		t.Fatalf("without an id it may be taken for an offset: %q", packet)
	}
}

// checkJob reads with encoding/json what the event says about a job, and holds the event to it.
func checkJob(t *testing.T, body []byte, event Event, warnings []Warning) {
	read := func(text json.RawMessage, into any) bool {
		return len(text) > 0 && string(text) != "null" && json.Unmarshal(text, into) == nil
	}
	var fields, data map[string]json.RawMessage
	if err := json.Unmarshal(body, &fields); err != nil {
		t.Fatal(err)
	}
	named := KindOf(event.Name)
	if named != Message {
		if err := json.Unmarshal(event.Data, &data); err != nil {
			t.Fatalf("%s with the data %s", event.Name, event.Data)
		}
	}
	kind := named
	var called string
	if read(fields["kind"], &called) {
		kind = map[string]Kind{"progress": Progress, "completed": Completed, "failed": Failed}[called]
	}
	if event.Kind != kind || named != Message && kind != named {
		t.Fatalf("%q: kind %v, want %v, and %v by its name", body, event.Kind, kind, named)
	}
	said := false
	for _, from := range []map[string]json.RawMessage{fields, data} {
		var id string
		if text := from["jobId"]; read(text, &id) || read(text, new(json.Number)) {
			said = true
			if id == "" {
				id = string(text)
			}
			if id != event.JobID {
				t.Fatalf("%q: job %q, want %q", body, event.JobID, id)
			}
		}
		var attempt uint32
		if read(from["attempt"], &attempt) && (!event.HasAttempt || event.Attempt != attempt) {
			t.Fatalf("%q: attempt %d (%v), want %d", body, event.Attempt, event.HasAttempt, attempt)
		}
	}
	if said != (event.JobID != "") || said != (kind != Message) || event.StaleAfter != 0 && kind != Progress {
		t.Fatalf("%q became %+v", body, event)
	}
	var progress float64
	odd := event.Name == JobProgress && data["progress"] != nil && (!read(data["progress"], &progress) || progress < 0 || progress > 100)
	odd = odd || kind == Message && slipOf(event.Name) != ""
	if odd != (len(warnings) == 1) || len(warnings) > 1 {
		t.Fatalf("%q: warnings %v", body, warnings)
	}
}

// checkBatchAgrees puts the body between two good items: it must fare as it
// does alone and must not touch its neighbours.
func checkBatchAgrees(t *testing.T, body []byte, event Event, warnings []Warning, err error) {
	const good = `{"userId":"g","event":"g","data":1}`
	items, batchErr := ParseBatch([]byte(`{"events":[`+good+`,`+string(body)+`,`+good+`]}`), 100, 1<<20)
	if err == nil {
		if batchErr != nil || len(items) != 3 || items[1].Err != nil || !reflect.DeepEqual(items[1].Event, event) || !slices.Equal(items[1].Warnings, warnings) {
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
