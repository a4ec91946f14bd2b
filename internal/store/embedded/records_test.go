package embedded

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"

	"jobwire/internal/events"
)

func FuzzRecords(f *testing.F) {
	f.Add((&userRecord{last: events.ID{Ms: 1 << 40, Seq: 3}, events: 7, bytes: 900, oldest: 5, keys: 1, oldestKey: 2}).encode())
	f.Add((&logRecord{durable: true, at: 1 << 40, name: "note", job: "1", data: []byte(`{"a":1}`)}).encode())
	f.Add((&jobRecord{state: jobStalled, attempt: 2, last: events.ID{Ms: 5}, deadline: 9, indexed: 9}).encode())
	f.Add((&keyRecord{durable: true, id: events.ID{Ms: 1}, settled: true, status: 1, sockets: 3, reason: "x"}).encode())
	f.Add([]byte{})
	f.Add([]byte{recordFormat, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		// Whatever can be read is written again as a record that means the same.
		if u, err := decodeUser(b); err == nil {
			if again, err := decodeUser(u.encode()); err != nil || again != u {
				t.Errorf("user %+v, then %+v, %v", u, again, err)
			}
		}
		if l, err := decodeLog(b); err == nil {
			again, err := decodeLog(l.encode())
			if err != nil || again.name != l.name || again.job != l.job || again.durable != l.durable ||
				again.at != l.at || !bytes.Equal(again.data, l.data) {
				t.Errorf("event %+v, then %+v, %v", l, again, err)
			}
		}
		if j, err := decodeJob(b); err == nil {
			if again, err := decodeJob(j.encode()); err != nil || again != j {
				t.Errorf("job %+v, then %+v, %v", j, again, err)
			}
		}
		if k, err := decodeKey(b); err == nil {
			if again, err := decodeKey(k.encode()); err != nil || again != k {
				t.Errorf("key %+v, then %+v, %v", k, again, err)
			}
		}
	})
}

func FuzzKeys(f *testing.F) {
	f.Add("ann", "1", uint64(1), uint64(2))
	f.Add("é", "a\x00b", uint64(1<<63), uint64(0))
	f.Fuzz(func(t *testing.T, user, job string, ms, seq uint64) {
		if events.CheckUserID(user) != nil {
			return // a store is never asked about such a user
		}
		id := events.ID{Ms: ms, Seq: seq}
		if got := idOf(logKey(user, id)); got != id {
			t.Errorf("id %s, want %s", got, id)
		}
		for _, key := range [][]byte{logKey(user, id), ageKey(user, id), jobKey(user, job), metaKey(user), answerKey(user, job)} {
			if got := userOf(key); got != user {
				t.Errorf("user %q, want %q", got, user)
			}
		}
		if m, u, j := parseDue(dueKey(ms, user, job)); m != ms || u != user || j != job {
			t.Errorf("deadline %d %q %q", m, u, j)
		}
	})
}

func FuzzHeadPage(f *testing.F) {
	f.Add(make([]byte, metaSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, ok := parseMeta(b); ok && m.pages == 0 {
			t.Error("a file without pages")
		}
	})
}

// The layers of a view must look like one sorted map.
func TestViewIsOneSortedMap(t *testing.T) {
	s := mustOpen(t, t.TempDir(), Options{})
	rnd := rand.New(rand.NewPCG(1, 2))
	oracle := map[string]string{}
	key := func() []byte {
		if rnd.IntN(8) == 0 {
			return []byte{spaceDue, byte('a' + rnd.IntN(26))}
		}
		user := []string{"a", "aa", "ab", "b"}[rnd.IntN(4)]
		k := userKey(user, []byte{kindUser, kindJob, kindLog}[rnd.IntN(3)])
		if k[len(k)-1] != kindUser {
			k = append(k, byte('a'+rnd.IntN(8)))
		}
		return k[:len(k)-rnd.IntN(30)/29] // now and then the beginning of one
	}
	var fl *file
	fail := func(format string, args ...any) {
		t.Helper()
		fl.close() // or closing the store would wait for ever
		s.mu.Unlock()
		t.Fatalf(format, args...)
	}
	for range 3000 {
		s.mu.Lock()
		fl = &file{db: s.db}
		v := &view{top: s.top, under: s.under, file: fl}
		keep := rnd.IntN(4) > 0
		before := map[string]string{}
		for k, val := range oracle {
			before[k] = val
		}
		for range 1 + rnd.IntN(5) {
			k := key()
			if rnd.IntN(3) == 0 {
				v.drop(k)
				delete(oracle, string(k))
			} else {
				val := []byte{1, byte(rnd.IntN(256))}
				v.put(k, val)
				oracle[string(k)] = string(val)
			}
		}
		if !keep {
			v.rollback()
			oracle = before
		}
		from, to := key(), key()
		var got, want []string
		v.scan(from, to, func(k, val []byte) bool {
			if k[0] != spaceGlobal { // the store's own
				got = append(got, string(k)+string(val))
			}
			return true
		})
		for k, val := range oracle {
			if k >= string(from) && k < string(to) {
				want = append(want, k+val)
			}
			if b := v.get([]byte(k)); string(b) != val {
				fail("get %q: %x, want %x", k, b, val)
			}
		}
		slices.Sort(want)
		if !slices.Equal(got, want) {
			fail("scan %q to %q: %x, want %x", from, to, got, want)
		}
		fl.close()
		s.mu.Unlock()
		if rnd.IntN(10) == 0 {
			notify(s.urgent)
		}
	}
}
