package embedded

import "bytes"

// space is what the rules need of a store: sorted keys. Slices that come out
// of it are read-only and valid as long as the view they come from. A value
// that goes into put belongs to the space from then on; a key is copied.
type space interface {
	get(key []byte) []byte // nil when there is none
	put(key, value []byte)
	drop(key []byte) (old []byte) // nil when there was none
	// scan calls fn for the keys from from to below to, until fn is false.
	// fn must not change the space.
	scan(from, to []byte, fn func(key, value []byte) bool)
}

// ground is what lies under the tables: the file.
type ground interface {
	get(key []byte) []byte
	// seek returns the first key not below key, and what steps on from it;
	// nil keys at the end.
	seek(key []byte) (k, v []byte, step func() (k, v []byte))
}

// view is a space of up to three layers: changes that are not under way to
// the disk yet, changes that are, and the file.
type view struct {
	top   *table
	under *table   // nil when nothing is under way
	file  ground   // nil for a store in memory
	undo  []change // not kept without a file: then nothing can fail
}

// change is what a key of the top table was before.
type change struct {
	key, value []byte
	had        bool
}

func (v *view) get(key []byte) []byte {
	if value, ok := v.top.get(key); ok {
		return value
	}
	if v.under != nil {
		if value, ok := v.under.get(key); ok {
			return value
		}
	}
	if v.file != nil {
		return v.file.get(key)
	}
	return nil
}

func (v *view) put(key, value []byte) {
	old, had := v.top.put(key, value)
	if v.file != nil {
		v.undo = append(v.undo, change{old.key, old.value, had})
	}
}

func (v *view) drop(key []byte) (old []byte) {
	if v.file == nil {
		return v.top.drop(key)
	}
	if old = v.get(key); old != nil {
		v.put(key, nil)
	}
	return old
}

// rollback takes back every change made through this view.
func (v *view) rollback() {
	for i := len(v.undo) - 1; i >= 0; i-- {
		if c := v.undo[i]; c.had {
			v.top.put(c.key, c.value)
		} else {
			v.top.drop(c.key)
		}
	}
	v.undo = v.undo[:0]
}

func (v *view) scan(from, to []byte, fn func(key, value []byte) bool) {
	a := v.top.cursor(from)
	b := v.under.cursor(from)
	var key, value []byte
	var step func() (k, v []byte)
	if v.file != nil {
		key, value, step = v.file.seek(from)
	}
	for {
		// The lowest key of the three; of equal ones the uppermost layer's.
		k, val := key, value
		if e := b.entry(); e.key != nil && (k == nil || bytes.Compare(e.key, k) <= 0) {
			k, val = e.key, e.value
		}
		if e := a.entry(); e.key != nil && (k == nil || bytes.Compare(e.key, k) <= 0) {
			k, val = e.key, e.value
		}
		if k == nil || bytes.Compare(k, to) >= 0 {
			return
		}
		same := key != nil && bytes.Equal(key, k)
		a.pass(k)
		b.pass(k)
		if val != nil && !fn(k, val) {
			return
		}
		if same {
			key, value = step()
		}
	}
}
