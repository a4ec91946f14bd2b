package embedded

import (
	"testing"
	"time"

	"go.uber.org/goleak"

	"jobwire/internal/delivery"
	"jobwire/internal/store/storetest"
)

func TestMain(m *testing.M) {
	if crashChild() {
		return
	}
	goleak.VerifyTestMain(m)
}

func TestMemoryPassesTheSuite(t *testing.T) {
	storetest.Run(t, func(t *testing.T, limits delivery.Limits, now func() time.Time) storetest.Harness {
		s, err := OpenMemory(limits, Options{Now: now, Logger: quiet})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { closeStore(t, s) })
		return storetest.Harness{Store: s, Another: func() delivery.Store { return s }}
	})
}

// Without a cache, every call reads its user anew.
func TestMemoryWithoutCachePassesTheSuite(t *testing.T) {
	storetest.Run(t, func(t *testing.T, limits delivery.Limits, now func() time.Time) storetest.Harness {
		s, err := OpenMemory(limits, Options{Now: now, Logger: quiet, cacheBytes: 1, WriteBehind: time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { closeStore(t, s) })
		return storetest.Harness{Store: s, Another: func() delivery.Store { return s }}
	})
}

func TestDiskPassesTheSuite(t *testing.T) {
	storetest.Run(t, func(t *testing.T, limits delivery.Limits, now func() time.Time) storetest.Harness {
		dir := t.TempDir()
		var s *Store
		open := func() delivery.Store {
			var err error
			if s, err = Open(dir, limits, Options{Now: now, Logger: quiet}); err != nil {
				t.Fatal(err)
			}
			return s
		}
		t.Cleanup(func() { closeStore(t, s) })
		return storetest.Harness{
			Store:   open(),
			Another: func() delivery.Store { return s },
			Reopen: func() delivery.Store {
				closeStore(t, s)
				return open()
			},
		}
	})
}

func closeStore(t testing.TB, s *Store) {
	t.Helper()
	if err := closeWithin(s, time.Minute); err != nil { // of a machine that is busy, perhaps
		t.Error(err)
	}
}
