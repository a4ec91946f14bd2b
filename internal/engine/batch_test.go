package engine

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// A batch and its parts carry every message as a packet of its own on both transports, whatever its length.
func TestABatchIsItsMessagesInOrder(t *testing.T) {
	var batch Batch
	var packets []string
	for i, n := range []int{0, 1, 120, 124, 125, 300, 65534, 65535, 70_000, 3} {
		text := fmt.Sprint(i, repeat("x", n))[:n]
		batch.Add([]byte(text))
		packets = append(packets, "4"+text)
	}
	all := len(batch.ends)
	for _, part := range []struct{ first, last int }{{0, all}, {0, 1}, {0, 4}, {4, all}, {all - 1, all}} {
		t.Run(fmt.Sprint(part), func(t *testing.T) {
			s := newTestServer(t, Config{MaxPayload: 1 << 20})
			want := packets[part.first:part.last]
			ws, rec := s.openWebSocket(t)
			sent := s.Stats().PacketsOut
			if err := rec.Send(batch.Frame(part.first, part.last)); err != nil {
				t.Fatal(err)
			}
			if got := s.Stats().PacketsOut - sent; got != uint64(len(want)) {
				t.Errorf("counted as %d packets", got)
			}
			for i := range want {
				if got := ws.packet(); got != want[i] {
					t.Fatalf("websocket: message %d is %.20q of %d bytes, want %d", part.first+i, got, len(got), len(want[i]))
				}
			}
			sid, rec := s.openPoll(t)
			rec.Send(TextFrame([]byte("before")), batch.Frame(part.first, part.last), TextFrame([]byte("behind")))
			a := s.get(t, sid)
			if got := strings.Split(a.body, "\x1e"); !slices.Equal(got, slices.Concat([]string{"4before"}, want, []string{"4behind"})) {
				t.Errorf("polling: %d packets in %d bytes", len(got), len(a.body))
			}
		})
	}
}

// The parts around a message leave out that message alone, and share the batch's bytes.
func TestPartsOfABatchShareItsBytes(t *testing.T) {
	var batch Batch
	for i := range 1000 {
		batch.Add(fmt.Appendf(nil, "%03d", i))
	}
	before, behind := batch.Frame(0, 500), batch.Frame(501, 1000)
	if &before.wire[0] != &batch.wire[0] || &behind.wire[0] != &batch.wire[batch.ends[500]] {
		t.Error("a part is a copy")
	}
	s := newTestServer(t, Config{})
	ws, rec := s.openWebSocket(t)
	rec.Send(before, behind)
	for i := range 1000 {
		if i != 500 {
			ws.wantPacket(fmt.Sprintf("4%03d", i))
		}
	}
}

func TestABatchCountsAgainstTheBoundOfAPoll(t *testing.T) {
	s := newTestServer(t, Config{MaxPayload: 1000})
	sid, rec := s.openPoll(t)
	var batch Batch
	for range 100 {
		batch.Add([]byte(repeat("x", 50)))
	}
	rec.Send(TextFrame([]byte("before")), batch.Frame(0, 10), batch.Frame(10, 100), TextFrame([]byte("behind")))
	for _, want := range []int{11, 90, 1} { // the long one is not cut, and travels alone
		if got := len(strings.Split(s.get(t, sid).body, "\x1e")); got != want {
			t.Errorf("a poll of %d packets, want %d", got, want)
		}
	}
}
