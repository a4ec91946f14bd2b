package embedded

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"jobwire/internal/delivery"
)

func usersInMemory(s *Store) (users int) {
	in := s.current.Load()
	for i := range in.users.shards {
		sh := &in.users.shards[i]
		sh.mu.Lock()
		users += len(sh.users)
		sh.mu.Unlock()
	}
	return users
}

func TestSweptUsersLeaveNothingInMemory(t *testing.T) {
	clock := time.Now()
	s, err := Open("data", delivery.Limits{Retention: time.Minute}, Options{
		fs: vfs.NewMem(), Now: func() time.Time { return clock }, Logger: quiet,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer closeStore(t, s)
	const users = 300
	for i := range users {
		mustPost(t, s, fmt.Sprint("user", i), note())
	}
	clock = clock.Add(time.Hour)
	for more := true; more; {
		swept, err := s.Sweep(ctx)
		if err != nil {
			t.Fatal(err)
		}
		more = swept.More
	}
	if n := usersInMemory(s); n > 0 {
		t.Errorf("%d of %d users that were swept are still in memory", n, users)
	}
}

func TestUsersInMemoryDoNotKeepWhatWasWritten(t *testing.T) {
	s := mustOpen(t, t.TempDir(), Options{})
	heap := func() int {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC() // pools are empty now
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	big := note()
	big.Data = []byte(`"` + strings.Repeat("x", 200_000) + `"`)
	before := heap()
	const users = 300
	for i := range users {
		mustPost(t, s, fmt.Sprint("user", i), big)
		heap()
	}
	if err := s.current.Load().db.Flush(); err != nil {
		t.Fatal(err)
	}
	if kept := heap() - before; kept > users*len(big.Data)/2 {
		t.Errorf("%d MB are kept of %d MB that are on the disk", kept>>20, users*len(big.Data)>>20)
	}
}

func TestAStoreInMemoryRecovers(t *testing.T) {
	s, err := OpenMemory(wide, Options{Logger: quiet, checkEvery: 5 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer closeStore(t, s)
	before := mustPost(t, s, "ann", note())
	s.current.Load().fail(fmt.Errorf("a read takes longer than 10s"))
	eventually(t, "the store works again", func() bool { return s.Ready() == nil })
	if after := mustPost(t, s, "ann", note()); after.Compare(before) <= 0 {
		t.Errorf("%s comes after %s", after, before)
	}
}
