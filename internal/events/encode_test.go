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
		{"a stored event ends in its id", JobProgress, `{"jobId":"j"}`, ID{Ms: 17, Seq: 3}, `2["job_progress",{"jobId":"j"},"17-3"]`},
		{"an event that is not stored has no trailing argument", UserOnline, `{"userId":"u"}`, ID{}, `2["user_online",{"userId":"u"}]`},
		{"data is copied as it stands", "x", "[ 1e400 , 12345678901234567890 ,\n\"\\ud800\" ]", ID{Ms: 1}, "2[\"x\",[ 1e400 , 12345678901234567890 ,\n\"\\ud800\" ],\"1-0\"]"},
	} {
		if got := string(Encode(tc.name, []byte(tc.data), tc.id)); got != tc.want {
			t.Errorf("%s:\n got %s\nwant %s", tc.behaviour, got, tc.want)
		}
	}
}

func TestEncodeAllocatesOnceAndExactly(t *testing.T) {
	data := []byte(`{"jobId":"j","progress":50}`)
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

func BenchmarkEncode(b *testing.B) {
	data := []byte(`{"jobId":"7c1f1f0e-9a52-4a57-8f7d-1f6d7e7e0b11","progress":42,"message":"rendering page 42 of 100"}`)
	b.ReportAllocs()
	for b.Loop() {
		Encode(JobProgress, data, ID{Ms: 1763892000123, Seq: 4})
	}
}
