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

func TestMemoryKeepsTheContract(t *testing.T) {
	storetest.Run(t, func(_ *testing.T, limits delivery.Limits, now func() time.Time) (delivery.Store, func() delivery.Store) {
		return NewMemory(limits, now), nil
	})
}

func TestBoltKeepsTheContract(t *testing.T) {
	storetest.Run(t, func(t *testing.T, limits delivery.Limits, now func() time.Time) (delivery.Store, func() delivery.Store) {
		dir := t.TempDir()
		var s *Bolt
		open := func() delivery.Store {
			var err error
			if s, err = Open(dir, limits, Options{Now: now}); err != nil {
				t.Fatal(err)
			}
			return s
		}
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
		return open(), func() delivery.Store {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			return open()
		}
	})
}
