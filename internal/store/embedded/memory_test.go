package embedded

import (
	"fmt"
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
