package embedded

import (
	"bytes"
	"sync/atomic"
	"unsafe"

	"github.com/tidwall/btree"
)

// table is a sorted map from keys to values. It is not safe for concurrent
// use, but any number may read it while nobody writes. Values belong to it,
// and neither they nor keys are ever changed in place, so that readers may
// keep them without a lock.
//
// Every user has a shelf, since almost all that is done is done to one user:
// what is found on a few shelves is mostly cold, and a search through one
// tree for all would meet a dozen keys of strangers on its way.
type table struct {
	shelves map[string]*shelf
	order   btree.Map[string, *shelf] // the same by their names
	last    atomic.Pointer[shelf]     // of the last look: the next one is mostly for the same user
	entries int
	bytes   int // of keys and values
}

// shelf is what a table has of one user. What belongs to nobody is on the
// shelf without a name; its keys come before those of all users.
type shelf struct {
	name string
	tree btree.Map[string, *slot]
	user *slot // also in the tree: the user's own record, which every call looks at; nil when there is none
}

// slot is where the value of a key is.
type slot struct {
	key   string
	value []byte
}

// entry is one key of a table. A nil value is a deletion of what lies under
// the table.
type entry struct{ key, value []byte }

// find returns the slot of a key, nil when there is none.
func (s *shelf) find(key []byte) *slot {
	if s.isUser(key) {
		return s.user
	}
	at, _ := s.tree.Get(textOf(key))
	return at
}

// isUser reports whether a key of this shelf is that of the user's record.
func (s *shelf) isUser(key []byte) bool {
	return s.name != "" && len(key) == len(s.name)+3 && key[len(key)-1] == kindUser
}

// holds reports whether a key belongs on this shelf; never for the shelf
// without a name. It is owner(key) == s.name without a search.
func (s *shelf) holds(key []byte) bool {
	end := 1 + len(s.name)
	return end > 1 && len(key) > end && key[end] == 0 && key[0] == spaceUser && string(key[1:end]) == s.name
}

func (s *slot) entry() entry { return entry{bytesOf(s.key), s.value} }

// textOf and bytesOf look at the same bytes in another way, which saves a copy
// for every look. Nobody changes them: keys are only ever read, and what a
// table keeps is a copy.

func textOf(key []byte) string { return unsafe.String(unsafe.SliceData(key), len(key)) } //nolint:gosec // see above

func bytesOf(key string) []byte { return unsafe.Slice(unsafe.StringData(key), len(key)) } //nolint:gosec // see above

func newTable() *table { return &table{shelves: make(map[string]*shelf)} }

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
	for c := t.cursor(from); c.ok && fn(c.entry()); c.next() {
	}
}

// cursor is a place in a table that does not change meanwhile.
type cursor struct {
	shelves btree.MapIter[string, *shelf]
	iter    btree.MapIter[string, *slot]
	ok      bool // not at the end
}

// cursor starts at the first entry with a key not below from. A nil table has
// no entries.
func (t *table) cursor(from []byte) (c cursor) {
	if t == nil {
		return c
	}
	c.shelves = t.order.Iter()
	for more := c.shelves.Seek(textOf(owner(from))); more && !c.ok; more = !c.ok && c.shelves.Next() {
		c.iter = c.shelves.Value().tree.Iter()
		c.ok = c.iter.Seek(textOf(from))
	}
	return c
}

// next steps on. The cursor is not at the end.
func (c *cursor) next() {
	if c.ok = c.iter.Next(); !c.ok && c.shelves.Next() {
		c.iter = c.shelves.Value().tree.Iter()
		c.ok = c.iter.First() // no shelf is empty
	}
}

// entry is the one at the cursor; its key is nil at the end.
func (c *cursor) entry() entry {
	if !c.ok {
		return entry{}
	}
	return c.iter.Value().entry()
}

// pass steps on if the cursor is at key.
func (c *cursor) pass(key []byte) {
	if c.ok && bytes.Equal(c.entry().key, key) {
		c.next()
	}
}

// shelf returns the shelf of a key, nil when there is none.
func (t *table) shelf(key []byte) *shelf {
	if last := t.last.Load(); last != nil && last.holds(key) {
		return last
	}
	s := t.shelves[string(owner(key))]
	if s != nil {
		t.last.Store(s)
	}
	return s
}

// get returns the value of a key, and whether the table has it.
func (t *table) get(key []byte) (value []byte, ok bool) {
	if s := t.shelf(key); s != nil {
		if at := s.find(key); at != nil {
			return at.value, true
		}
	}
	return nil, false
}

// put sets the value of a key and returns the table's own copy of the key, with
// the value that it had.
func (t *table) put(key, value []byte) (old entry, had bool) {
	s := t.shelf(key)
	if s == nil {
		s = &shelf{name: string(owner(key))}
		t.shelves[s.name] = s
		t.order.Set(s.name, s)
	}
	if at := s.find(key); at != nil {
		old = at.entry()
		at.value = value
		t.bytes += len(value) - len(old.value)
		return old, true
	}
	at := &slot{string(key), value}
	s.tree.Load(at.key, at) // which tries the end first: there the log grows
	if s.isUser(key) {
		s.user = at
	}
	t.entries++
	t.bytes += len(key) + len(value)
	return entry{key: bytesOf(at.key)}, false
}

// drop removes the entry of a key and returns what its value was.
func (t *table) drop(key []byte) (old []byte) {
	s := t.shelf(key)
	if s == nil {
		return nil
	}
	at, had := s.tree.Delete(textOf(key))
	if !had {
		return nil
	}
	t.entries--
	t.bytes -= len(at.key) + len(at.value)
	if at == s.user {
		s.user = nil
	}
	if s.tree.Len() == 0 {
		delete(t.shelves, s.name)
		t.order.Delete(s.name)
		t.last.Store(nil)
	}
	return at.value
}
