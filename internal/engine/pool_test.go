package engine

import "testing"

// A message in a million fragments must not be copied a million times.
func TestBufferGrowsByDoubling(t *testing.T) {
	var b buffer
	copies := 0
	for before := 0; len(b.b) < 1<<20; {
		b.b = b.b[:len(b.b)+len(b.room(3))]
		if cap(b.b) != before {
			copies++
			before = cap(b.b)
		}
		if cap(b.b) > max(512, 2*len(b.b)) {
			t.Fatalf("%d bytes for %d", cap(b.b), len(b.b))
		}
	}
	if copies > 12 {
		t.Errorf("%d copies", copies)
	}
}
