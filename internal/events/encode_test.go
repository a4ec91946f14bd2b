package events

import (
	"math"
	"testing"
)

func TestEncode(t *testing.T) {
	for _, tc := range []struct {
		behaviour, name, data string
		id                    ID
		want                  string
	}{
		{"a message ends in its id", JobCompleted, `{"jobId":"j"}`, ID{Ms: 17, Seq: 3}, `2["job_completed",{"jobId":"j"},"17-3"]`},
		{"an event without an id has no trailing argument", UserOnline, `{"userId":"u"}`, ID{}, `2["user_online",{"userId":"u"}]`},
		{"an event without an id never ends in a string", "x", `"12 %"`, ID{}, `2["x","12 %",null]`},
		{"nor when the string is empty", "x", `""`, ID{}, `2["x","",null]`},
		{"a string within the data is not at the end", "x", `["12 %"]`, ID{}, `2["x",["12 %"]]`},
		{"a number is no string", "x", `12`, ID{}, `2["x",12]`},
		{"a string with an id ends in the id", "x", `"12 %"`, ID{Ms: 1}, `2["x","12 %","1-0"]`},
		{"data is copied as it stands", "x", "[ 1e400 , 12345678901234567890 ,\n\"\\ud800\" ]", ID{Ms: 1}, "2[\"x\",[ 1e400 , 12345678901234567890 ,\n\"\\ud800\" ],\"1-0\"]"},
	} {
		if got := string(Encode(tc.name, []byte(tc.data), tc.id)); got != tc.want {
			t.Errorf("%s:\n got %s\nwant %s", tc.behaviour, got, tc.want)
		}
		if got := string(AppendEncoded([]byte("4"), tc.name, []byte(tc.data), tc.id)); got != "4"+tc.want {
			t.Errorf("%s: appended it is\n %s\nwant 4%s", tc.behaviour, got, tc.want)
		}
	}
}

func TestEncodeAllocatesOnceAndExactly(t *testing.T) {
	for _, data := range [][]byte{[]byte(`{"jobId":"j","progress":50}`), []byte(`"50 %"`)} {
		for _, id := range []ID{{}, {Ms: 1763892000123, Seq: 4}, {Ms: math.MaxUint64, Seq: math.MaxUint64}} {
			packet := Encode(JobProgress, data, id)
			if len(packet) != cap(packet) {
				t.Errorf("%v: %d bytes in a buffer of %d", id, len(packet), cap(packet))
			}
			if n := testing.AllocsPerRun(100, func() { packet = Encode(JobProgress, data, id) }); n != 1 {
				t.Errorf("%v: %v allocations", id, n)
			}
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	data := []byte(`{"jobId":"7c1f1f0e-9a52-4a57-8f7d-1f6d7e7e0b11","progress":42,"message":"rendering page 42 of 100"}`)
	b.ReportAllocs()
	for b.Loop() {
		Encode(JobProgress, data, ID{Ms: 1763892000123, Seq: 4})
	}
}
