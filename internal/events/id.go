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

// ID names one stored event of one user. Ids of a user rise strictly and
// mean the same in every store; the form is that of Redis stream ids. The
// zero ID stands for "not stored" and for "before everything".
type ID struct {
	Ms  uint64 // Unix time in milliseconds
	Seq uint64 // distinguishes events of the same millisecond
}

// ParseID reads the form that String writes, and only that form: no signs,
// no spaces, no leading zeros, no missing half. "0-0" is the zero ID.
func ParseID(s string) (ID, error) {
	if len(s) > maxIDLen {
		return ID{}, errID
	}
	left, right, found := strings.Cut(s, "-")
	if !found {
		return ID{}, errID
	}
	ms, ok := parseDecimal(left)
	if !ok {
		return ID{}, errID
	}
	seq, ok := parseDecimal(right)
	if !ok {
		return ID{}, errID
	}
	return ID{Ms: ms, Seq: seq}, nil
}

// parseDecimal accepts exactly what strconv.FormatUint writes in base 10.
// strconv.ParseUint alone would let leading zeros pass, and two spellings of
// one id must not exist: clients compare ids as strings.
func parseDecimal(s string) (uint64, bool) {
	if s == "" || (s[0] == '0' && len(s) > 1) {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 10, 64) // refuses signs and, in base 10, underscores
	return n, err == nil
}

// IsZero reports whether the id is the zero ID.
func (id ID) IsZero() bool { return id == ID{} }

// Compare orders ids by age: negative when id is older than other, zero when
// they are the same, positive when it is newer.
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
