package embedded

import (
	"bytes"
	"math/rand/v2"
)

// table is a sorted map from keys to values: a skip list. It is not safe for
// concurrent use. Keys and values belong to it and are never changed in
// place, so that readers may keep them without a lock.
type table struct {
	head  node
	level int // levels in use
	size  int // entries
	bytes int // of keys and values
	path  [maxLevel]*node
}

// maxLevel suits 4^12 entries.
const maxLevel = 12

type node struct {
	key, value []byte // a nil value is a deletion of what lies under the table
	next       []*node
}

func newTable() *table {
	return &table{head: node{next: make([]*node, maxLevel)}, level: 1}
}

// seek returns the first node with a key not below key.
func (t *table) seek(key []byte) *node {
	x := &t.head
	for i := t.level - 1; i >= 0; i-- {
		for x.next[i] != nil && bytes.Compare(x.next[i].key, key) < 0 {
			x = x.next[i]
		}
	}
	return x.next[0]
}

// trace is seek that remembers the way, for a change.
func (t *table) trace(key []byte) *node {
	x := &t.head
	for i := t.level - 1; i >= 0; i-- {
		for x.next[i] != nil && bytes.Compare(x.next[i].key, key) < 0 {
			x = x.next[i]
		}
		t.path[i] = x
	}
	return x.next[0]
}

// get returns the value of a key, and whether the table has it.
func (t *table) get(key []byte) (value []byte, ok bool) {
	if x := t.seek(key); x != nil && bytes.Equal(x.key, key) {
		return x.value, true
	}
	return nil, false
}

// put sets the value of a key and returns what it was. It copies a new key.
func (t *table) put(key, value []byte) (old []byte, had bool) {
	if x := t.trace(key); x != nil && bytes.Equal(x.key, key) {
		old, x.value = x.value, value
		t.bytes += len(value) - len(old)
		return old, true
	}
	level := 1
	for r := rand.Uint32(); r&3 == 3 && level < maxLevel; r >>= 2 {
		level++
	}
	for ; t.level < level; t.level++ {
		t.path[t.level] = &t.head
	}
	x := &node{key: bytes.Clone(key), value: value, next: make([]*node, level)}
	for i := range level {
		x.next[i] = t.path[i].next[i]
		t.path[i].next[i] = x
	}
	t.size++
	t.bytes += len(key) + len(value)
	return nil, false
}

// drop removes the entry of a key.
func (t *table) drop(key []byte) {
	x := t.trace(key)
	if x == nil || !bytes.Equal(x.key, key) {
		return
	}
	for i := range x.next {
		t.path[i].next[i] = x.next[i]
	}
	t.size--
	t.bytes -= len(x.key) + len(x.value)
}
