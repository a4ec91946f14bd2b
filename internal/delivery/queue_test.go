package delivery

import "testing"

func TestQueue(t *testing.T) {
	for _, c := range []struct {
		name            string
		waiting, pushes int // items that wait, all the time; items in all
		room            int // for how many there is room at most
	}{
		{"one at a time", 0, 10_000, 16},
		{"never empty", 10, 10_000, 64},
		{"a crowd", 1000, 10_000, 4096},
	} {
		t.Run(c.name, func(t *testing.T) {
			var q queue[*int]
			next, most := 0, 0
			take := func() {
				if n := *q.pop(); n != next {
					t.Fatalf("item %d comes after %d", n, next-1)
				}
				next++
			}
			for i := range c.pushes {
				q.push(&i)
				most = max(most, cap(q.items))
				if i >= c.waiting {
					take()
				}
			}
			for _, p := range q.items[:q.first] {
				if p != nil {
					t.Fatal("an item that was taken is still held")
				}
			}
			for !q.empty() {
				take()
			}
			if next != c.pushes || most > c.room || cap(q.items) > 16 {
				t.Errorf("%d came out; room for %d, at the end for %d", next, most, cap(q.items))
			}
		})
	}
}
