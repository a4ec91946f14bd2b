package embedded

import (
	"encoding/hex"
	"testing"

	"jobwire/internal/events"
)

// The form of records and keys is that of recordFormat: what this program reads, earlier ones have written.
func TestRecordsKeepTheirForm(t *testing.T) {
	id := func(n uint64) events.ID { return events.ID{Ms: 1000 + n, Seq: n} }
	log := logRecord{id(1), 200, 70000, 300}
	three := number(300)
	for what, c := range map[string]struct {
		record, empty stored
		want          string
	}{
		"a user": {&userRecord{id(2), id(3), id(4), log, 5, 6, 7, 800, 900}, new(userRecord),
			"03ea0702eb0703ec0704e90701c801f0a204ac02050607a0068407"},
		"a message": {&message{at: 1234, log: log, name: "note", data: []byte(`{"n":1}`)}, new(message),
			"03d209e90701c801f0a204ac02046e6f74657b226e223a317d"},
		"a job": {&jobRecord{
			state: jobStalled, attempt: 3, last: id(5), started: 10, updated: 2000,
			progress: jobEvent{id(6), "job_progress", []byte(`{"p":1}`)}, end: jobEvent{id(7), "job_failed", []byte(`{"e":1}`)},
			deadline: 400, indexed: 500, stalled: id(8), silent: 600,
		}, new(jobRecord), "030303ed07050ad00fee07060c6a6f625f70726f6772657373077b2270223a317d" +
			"ef07070a6a6f625f6661696c65649003f403f00708d8047b2265223a317d"},
		"an answer": {&answer{[16]byte{1, 2, 255}, 77, 88, id(9), "job_finished"}, new(answer),
			"030102ff000000000000000000000000004d58f107090c6a6f625f66696e6973686564"},
		"an age":   {&aged{99, []byte("key")}, new(aged), "03636b6579"},
		"a number": {&three, new(number), "03ac02"},
	} {
		var enc, again codec
		b := enc.encode(c.record)
		if got := hex.EncodeToString(b); got != c.want {
			t.Errorf("%s is written as %s, want %s", what, got, c.want)
		}
		new(codec).decode(b, what, c.empty)
		if got := hex.EncodeToString(again.encode(c.empty)); got != c.want {
			t.Errorf("%s is read as %s, want %s", what, got, c.want)
		}
		for n := range b {
			func() {
				defer func() {
					if p := recover(); p != nil && p != damage(what) {
						t.Errorf("%s of %d bytes: %v", what, n, p)
					}
				}()
				new(codec).decode(b[:n], what, c.empty)
			}()
		}
	}
	for got, want := range map[string]string{
		string(dueKey(7, "ann", "1")): "640000000000000007616e6e0031",
		string(ageKey(7, "ann")):      "610000000000000007616e6e",
	} {
		if got := hex.EncodeToString([]byte(got)); got != want {
			t.Errorf("key %s, want %s", got, want)
		}
	}
}
