package events

import (
	"math"
	"slices"
	"testing"
)

func TestIDsRoundTripThroughTheirString(t *testing.T) {
	for _, id := range []ID{
		{}, {Ms: 1}, {Seq: 1}, {Ms: 1763892000123, Seq: 7}, {Ms: math.MaxUint64, Seq: math.MaxUint64},
	} {
		got, err := ParseID(id.String())
		if err != nil || got != id {
			t.Errorf("ParseID(%q) = %v, %v", id.String(), got, err)
		}
	}
	if n := len(ID{Ms: math.MaxUint64, Seq: math.MaxUint64}.String()); n != maxIDLen {
		t.Errorf("the longest id has %d bytes, not %d", n, maxIDLen)
	}
}

func TestParseIDRefusesEveryOtherSpelling(t *testing.T) {
	for _, s := range []string{
		"", "-", "1", "1-", "-1", "1-2-3", "01-2", "1-02", "00-0", "+1-2", "1-+2", " 1-2", "1-2 ", "1 -2", "1- 2",
		"1--2", "-1-2", "1_0-2", "0x1-2", "1.0-2", "1e3-2", "a-b", "1-2\n", "１-2", "*", "1-*", "$",
		"18446744073709551616-0", "0-18446744073709551616", "99999999999999999999-99999999999999999999",
		"000000000000000000000000000000000000000001-1",
	} {
		if id, err := ParseID(s); err == nil {
			t.Errorf("ParseID(%q) = %v, want an error", s, id)
		}
	}
}

func TestIDsAreOrderedByTimeThenSequence(t *testing.T) {
	ordered := []ID{{}, {Seq: 1}, {Ms: 9, Seq: 5}, {Ms: 9, Seq: 50}, {Ms: 10}, {Ms: 10, Seq: math.MaxUint64}, {Ms: math.MaxUint64}}
	shuffled := slices.Clone(ordered)
	slices.Reverse(shuffled)
	slices.SortFunc(shuffled, ID.Compare)
	if !slices.Equal(ordered, shuffled) {
		t.Errorf("sorted to %v", shuffled)
	}
	if c := (ID{Ms: 3, Seq: 4}).Compare(ID{Ms: 3, Seq: 4}); c != 0 {
		t.Errorf("an id compared with itself gives %d", c)
	}
	if !(ID{}).IsZero() || (ID{Seq: 1}).IsZero() {
		t.Error("only the zero id is zero")
	}
}

func FuzzParseID(f *testing.F) {
	for _, s := range []string{"0-0", "1763892000123-7", "18446744073709551615-18446744073709551615", "01-2", "1-", "+1-1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, err := ParseID(s)
		if err != nil {
			return
		}
		if got := id.String(); got != s {
			t.Errorf("%q was accepted but is spelled %q", s, got)
		}
	})
}
