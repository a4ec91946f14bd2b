package embedded

import (
	"bytes"
	"strings"

	"github.com/tidwall/btree"
)

// table is a sorted map from keys to values. It is not safe for concurrent
// use, but any number may read it while nobody writes. Keys and values belong
// to it and are never changed in place, so that readers may keep them without
// a lock.
//
// Every user has a shelf, since almost all that is done is done to one user:
// what is found on a few shelves is mostly cold, and a search through one
// tree for all would meet a dozen keys of strangers on its way.
type table struct {
	shelves map[string]*shelf
	order   *btree.BTreeG[*shelf] // the same by their names
	last    *shelf                // of the last change: the next one is mostly the same user's
	entries int
	bytes   int // of keys and values
}

// shelf is what a table has of one user. What belongs to nobody is on the
// shelf without a name; its keys come before those of all users.
type shelf struct {
	name string
	tree *btree.BTreeG[entry]
	hint btree.PathHint // where the last change was
}

// entry is one key of a table. A nil value is a deletion of what lies under
// the table.
type entry struct{ key, value []byte }

func newTable() *table {
	return &table{
		shelves: make(map[string]*shelf),
		order: btree.NewBTreeGOptions(
			func(a, b *shelf) bool { return strings.Compare(a.name, b.name) < 0 },
			btree.Options{NoLocks: true},
		),
	}
}

func newShelf(name string) *shelf {
	return &shelf{name: name, tree: btree.NewBTreeGOptions(
		func(a, b entry) bool { return bytes.Compare(a.key, b.key) < 0 },
		btree.Options{NoLocks: true},
	)}
}

// owner is the name of the shelf of a key. Also of a part of a key: then
// there is nothing on the shelves before that one that is not below it.
func owner(key []byte) []byte {
	if len(key) == 0 || key[0] != spaceUser {
		return nil
	}
	if end := bytes.IndexByte(key, 0); end > 0 {
		return key[1:end]
	}
	return key[1:]
}

// size is the number of entries.
func (t *table) size() int { return t.entries }

// scan calls fn for the entries from the first with a key not below from,
// until fn is false. fn must not change the table.
func (t *table) scan(from []byte, fn func(entry) bool) {
	for c := t.cursor(from); c.ok && fn(c.iter.Item()); c.next() {
	}
}

// cursor is a place in a table that does not change meanwhile.
type cursor struct {
	shelves btree.IterG[*shelf]
	iter    btree.IterG[entry]
	ok      bool // not at the end
}

// cursor starts at the first entry with a key not below from. A nil table has
// no entries.
func (t *table) cursor(from []byte) (c cursor) {
	if t == nil {
		return c
	}
	c.shelves = t.order.Iter()
	for more := c.shelves.Seek(&shelf{name: string(owner(from))}); more && !c.ok; more = !c.ok && c.shelves.Next() {
		c.iter = c.shelves.Item().tree.Iter()
		c.ok = c.iter.Seek(entry{key: from})
	}
	return c
}

// next steps on. The cursor is not at the end.
func (c *cursor) next() {
	if c.ok = c.iter.Next(); !c.ok && c.shelves.Next() {
		c.iter = c.shelves.Item().tree.Iter()
		c.ok = c.iter.First() // no shelf is empty
	}
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
	if bytes.Equal(c.entry().key, key) && c.ok {
		c.next()
	}
}

// shelf returns the shelf of a key, nil when there is none.
func (t *table) shelf(key []byte) *shelf {
	name := owner(key)
	if t.last != nil && t.last.name == string(name) {
		return t.last
	}
	return t.shelves[string(name)]
}

// get returns the value of a key, and whether the table has it.
func (t *table) get(key []byte) (value []byte, ok bool) {
	if s := t.shelf(key); s != nil {
		e, ok := s.tree.Get(entry{key: key})
		return e.value, ok
	}
	return nil, false
}

// put sets the value of a key and returns the table's own copy of the key, with
// the value that it had.
func (t *table) put(key, value []byte) (old entry, had bool) {
	s := t.shelf(key)
	if s == nil {
		s = newShelf(string(owner(key)))
		t.shelves[s.name] = s
		t.order.Set(s)
	}
	t.last = s
	old, had = s.tree.GetHint(entry{key: key}, &s.hint)
	if had {
		t.bytes += len(value) - len(old.value)
	} else {
		old.key = bytes.Clone(key)
		t.entries++
		t.bytes += len(key) + len(value)
	}
	s.tree.SetHint(entry{old.key, value}, &s.hint)
	return old, had
}

// drop removes the entry of a key and returns what its value was.
func (t *table) drop(key []byte) (old []byte) {
	s := t.shelf(key)
	if s == nil {
		return nil
	}
	e, had := s.tree.DeleteHint(entry{key: key}, &s.hint)
	if !had {
		return nil
	}
	t.entries--
	t.bytes -= len(e.key) + len(e.value)
	t.last = s
	if s.tree.Len() == 0 {
		delete(t.shelves, s.name)
		t.order.Delete(s)
		t.last = nil
	}
	return e.value
}
