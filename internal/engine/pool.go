package engine

import "sync"

// chunks are the buffers that output is gathered in; one is held only during a write.
var chunks = sync.Pool{New: func() any {
	b := make([]byte, 0, writeChunk)
	return &b
}}

// buffer is pooled memory for a message on its way in, or a poll answer on its way out.
type buffer struct {
	b []byte
}

// maxPooled keeps one huge message from holding its memory for ever.
const maxPooled = 256 << 10

var buffers = sync.Pool{New: func() any { return &buffer{b: make([]byte, 0, 512)} }}

func newBuffer() *buffer { return buffers.Get().(*buffer) }

// free gives the memory back; the caller keeps no slice of it. A nil buffer is fine.
func (b *buffer) free() {
	if b == nil || cap(b.b) > maxPooled {
		return
	}
	b.b = b.b[:0]
	buffers.Put(b)
}

// room returns free space behind what is there, up to want bytes and at least one. It grows by doubling, so a peer that
// announces much holds no more than twice what it has sent.
func (b *buffer) room(want int) []byte {
	if len(b.b) == cap(b.b) {
		grown := make([]byte, len(b.b), max(512, min(2*cap(b.b), len(b.b)+want)))
		copy(grown, b.b)
		b.b = grown
	}
	return b.b[len(b.b):min(cap(b.b), len(b.b)+want)]
}
