package server

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// HeapFloor is the heap, in bytes, below which there is nothing to gain from collecting garbage.
const HeapFloor = 64 << 20

// KeepHeap lets the heap grow to floor bytes before it is collected, instead of to twice what is live: on a small node Go would
// collect many times a second to save a few megabytes. Above the floor everything is as ever. It holds for the process and
// replaces what GOGC says.
func KeepHeap(floor uint64) {
	h := &heap{floor: floor, percent: 100, live: []metrics.Sample{{Name: "/gc/heap/live:bytes"}}}
	collected(h)
}

// heap follows the live heap from one collection to the next. Only cleanups touch it after KeepHeap, and those run one after
// the other.
type heap struct {
	floor   uint64
	percent int
	live    []metrics.Sample
}

func collected(h *heap) {
	h.adjust()
	// What nobody refers to is found by the next collection.
	runtime.AddCleanup(new([16]byte), collected, h)
}

// adjust sets the next collection by what the last one has left.
func (h *heap) adjust() {
	metrics.Read(h.live)
	percent := 100
	// Go itself does not collect below 4 MB times GOGC/100.
	if live := max(h.live[0].Value.Uint64(), 4<<20); live < h.floor/2 {
		percent = int(h.floor*100/live) - 100
	}
	// Setting it stops the world for a moment, so small changes are let be.
	if d := percent - h.percent; d > percent/8 || d < -percent/8 {
		h.percent = percent
		debug.SetGCPercent(percent)
	}
}
