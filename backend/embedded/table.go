package embedded

import (
	"bytes"

	"github.com/tidwall/btree"
)

// table is a sorted map from keys to values. It is not safe for concurrent
// use, but any number may read it while nobody writes. Keys and values belong
// to it and are never changed in place, so that readers may keep them without
// a lock.
type table struct {
	tree  *btree.BTreeG[entry]
	hint  btree.PathHint // where the last change was: the next one is mostly the same user's
	bytes int            // of keys and values
}

// entry is one key of a table. A nil value is a deletion of what lies under
// the table.
type entry struct{ key, value []byte }

func newTable() *table {
	return &table{tree: btree.NewBTreeGOptions(
		func(a, b entry) bool { return bytes.Compare(a.key, b.key) < 0 },
		btree.Options{NoLocks: true},
	)}
}

// size is the number of entries.
func (t *table) size() int { return t.tree.Len() }

// scan calls fn for the entries from the first with a key not below from,
// until fn is false. fn must not change the table.
func (t *table) scan(from []byte, fn func(entry) bool) { t.tree.Ascend(entry{key: from}, fn) }

// cursor is a place in a table that does not change meanwhile.
type cursor struct {
	iter btree.IterG[entry]
	ok   bool // not at the end
}

// cursor starts at the first entry with a key not below from. A nil table has
// no entries.
func (t *table) cursor(from []byte) (c cursor) {
	if t != nil {
		c.iter = t.tree.Iter()
		c.ok = c.iter.Seek(entry{key: from})
	}
	return c
}

// entry is the one at the cursor; its key is nil at the end.
func (c *cursor) entry() entry {
	if !c.ok {
		return entry{}
	}
	return c.iter.Item()
}

// pass steps on if the cursor is at key.
func (c *cursor) pass(key []byte) {
	if bytes.Equal(c.entry().key, key) {
		c.ok = c.ok && c.iter.Next()
	}
}

// get returns the value of a key, and whether the table has it.
func (t *table) get(key []byte) (value []byte, ok bool) {
	e, ok := t.tree.Get(entry{key: key})
	return e.value, ok
}

// put sets the value of a key and returns what it was. The key belongs to the
// table from then on.
func (t *table) put(key, value []byte) (old []byte, had bool) {
	e, had := t.tree.SetHint(entry{key, value}, &t.hint)
	if had {
		t.bytes += len(value) - len(e.value)
	} else {
		t.bytes += len(key) + len(value)
	}
	return e.value, had
}

// drop removes the entry of a key.
func (t *table) drop(key []byte) {
	if e, had := t.tree.DeleteHint(entry{key: key}, &t.hint); had {
		t.bytes -= len(e.key) + len(e.value)
	}
}
