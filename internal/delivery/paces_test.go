package delivery

import (
	"testing"
	"time"
)

// Under a load that never pauses, intervals end in the order in which they began, and the queue of them does not grow.
func TestPacesUnderSteadyLoad(t *testing.T) {
	const underWay, steps = 10, 10_000
	ps := newPaces()
	start := time.Unix(1_000_000, 0)
	at := func(step int) time.Time { return start.Add(time.Duration(step) * time.Millisecond) }
	began := make([]*pace, 0, steps)
	over := 0
	for step := range steps {
		p := new(pace)
		began = append(began, p)
		ps.add(p, at(step+underWay))
		ripe, _, more := ps.ripe(at(step), nil)
		for _, p := range ripe {
			if p != began[over] {
				t.Fatalf("step %d: another interval than the %d. has ended", step, over)
			}
			over++
		}
		if want := max(0, step+1-underWay); over != want || !more {
			t.Fatalf("step %d: %d intervals are over, want %d; more to come: %t", step, over, want, more)
		}
	}
	if n := cap(ps.queue); n > 8*underWay {
		t.Errorf("%d intervals under way take room for %d", underWay, n)
	}
	all := ps.takeAll()
	for i, p := range all {
		if p != began[over+i] {
			t.Errorf("takeAll: %d is another one", i)
		}
	}
	if over+len(all) != steps {
		t.Errorf("%d intervals came out of %d", over+len(all), steps)
	}
}
