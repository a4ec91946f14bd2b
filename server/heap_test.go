package server

import (
	"math"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
)

func TestTheHeapGrowsToItsFloorAndNoFurther(t *testing.T) {
	before := debug.SetGCPercent(100)
	defer debug.SetGCPercent(before)
	goal := []metrics.Sample{{Name: "/gc/heap/goal:bytes"}, {Name: "/gc/heap/live:bytes"}}
	h := &heap{floor: HeapFloor, percent: 100, live: goal[1:]}
	var ballast []byte
	for _, size := range []int{0, 8 << 20, 24 << 20, 48 << 20, 8 << 20} {
		ballast = make([]byte, size)
		runtime.GC()
		h.adjust()
		metrics.Read(goal)
		live := goal[1].Value.Uint64()
		want := max(2*live, HeapFloor)
		if got := goal[0].Value.Uint64(); math.Abs(float64(got)-float64(want)) > float64(want)/4 {
			t.Errorf("with %d MB live the next collection is at %d MB, want about %d", live>>20, got>>20, want>>20)
		}
		runtime.KeepAlive(ballast)
	}
}
