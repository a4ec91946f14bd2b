package events

import (
	"cmp"
	"errors"
	"strconv"
	"strings"
)

// maxIDLen is the length of the longest id: two 20-digit numbers and a dash.
const maxIDLen = 41

var errID = errors.New(`not an event id: want "<unix-ms>-<n>"`)

// ID names one stored event of one user. Ids of a user rise strictly and mean the same in every store; the form is that of
// Redis stream ids. The zero ID stands for "not stored" and for "before everything".
type ID struct {
	Ms  uint64 // Unix time in milliseconds
	Seq uint64 // distinguishes events of the same millisecond
}

// ParseID reads the form that String writes, and only that form: no signs, no spaces, no leading zeros, no missing half, since
// clients compare ids as strings. "0-0" is the zero ID.
func ParseID(s string) (ID, error) {
	left, right, _ := strings.Cut(s, "-")
	ms, msErr := strconv.ParseUint(left, 10, 64)
	seq, seqErr := strconv.ParseUint(right, 10, 64)
	id := ID{Ms: ms, Seq: seq}
	var text [maxIDLen]byte
	if msErr != nil || seqErr != nil || string(id.AppendTo(text[:0])) != s {
		return ID{}, errID
	}
	return id, nil
}

// IsZero reports whether the id is the zero ID.
func (id ID) IsZero() bool { return id == ID{} }

// Compare orders ids by age: negative when id is older than other, zero when they are the same, positive when it is newer.
func (id ID) Compare(other ID) int {
	if c := cmp.Compare(id.Ms, other.Ms); c != 0 {
		return c
	}
	return cmp.Compare(id.Seq, other.Seq)
}

// String is "<ms>-<seq>", at most 41 bytes.
func (id ID) String() string {
	var buf [maxIDLen]byte
	return string(id.AppendTo(buf[:0]))
}

// AppendTo appends what String returns.
func (id ID) AppendTo(dst []byte) []byte {
	dst = strconv.AppendUint(dst, id.Ms, 10)
	dst = append(dst, '-')
	return strconv.AppendUint(dst, id.Seq, 10)
}
