package auth

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

const (
	keyA = "a-key-of-the-billing-workers"
	keyB = "another-key=with-equals=signs="
)

func TestLookupFindsEveryKeyByItsWholeValue(t *testing.T) {
	parsed, err := ParseKeys(" billing = " + keyA + " , render.2=" + keyB)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := NewKeys(parsed)
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{
		keyA: "billing", keyB: "render.2",
		"": "", keyA[:len(keyA)-1]: "", keyA + "x": "", " " + keyA: "", strings.ToUpper(keyA): "", "billing": "", keyA + "," + keyB: "",
		strings.Repeat("x", 1<<20): "",
	} {
		name, ok := keys.Lookup(key)
		if name != want || ok != (want != "") {
			t.Errorf("Lookup(%.40q) = %q, %v", key, name, ok)
		}
	}
}

func TestBadKeysAreAllReportedAndNeverQuoted(t *testing.T) {
	for list, wants := range map[string][]string{
		"":                                    {"part 1"},
		keyA:                                  {"part 1"},
		"a=" + keyA + "," + keyB[:7]:          {"part 2"},
		"a=short,b=shorter-too":               {`"a"`, `"b"`, "24"},
		"a=" + keyA + ",a=" + keyB:            {`two keys are named "a"`},
		"a=" + keyA + ",b=" + keyA:            {`"b" repeats`},
		"=" + keyA:                            {"part 1"},
		"a b=" + keyA:                         {"part 1"},
		strings.Repeat("n", 65) + "=" + keyA:  {"part 1"},
		"a=" + keyA + ",":                     {"part 2"},
		"a=short,secret-without-name,c=short": {`"a"`, "part 2", `"c"`},

		// No bearer header carries these.
		"a=" + keyA + " x":                   {`key "a"`, "ASCII"},
		"a=" + keyA + "\tx":                  {`key "a"`, "ASCII"},
		"a=" + keyA + "\x00":                 {`key "a"`, "ASCII"},
		"a=" + keyA + "\x7f":                 {`key "a"`, "ASCII"},
		"a=" + keyA + "ü,b=" + keyB + "\xff": {`key "a"`, `key "b"`},
	} {
		_, err := ParseKeys(list)
		if err == nil {
			t.Errorf("%q was accepted", list)
			continue
		}
		for _, want := range wants {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%q: %v, want mention of %s", list, err, want)
			}
		}
		for _, secret := range []string{keyA, keyB, keyB[:7], "shorter-too", "secret-without-name"} {
			if strings.Contains(err.Error(), secret) {
				t.Errorf("%q: the error shows a key: %v", list, err)
			}
		}
	}
}

func TestNewKeysWantsKeys(t *testing.T) {
	for behaviour, keys := range map[string][]Key{"none": nil, "a short one": {{"a", "short"}}, "no name": {{"", keyA}}, "one that no header carries": {{"a", keyA + "\n"}}} {
		if _, err := NewKeys(keys); err == nil {
			t.Errorf("%s: accepted", behaviour)
		}
	}
}

func TestKeysDoNotPrintThemselves(t *testing.T) {
	key := Key{"billing", keyA}
	asJSON, err := json.Marshal([]Key{key})
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{fmt.Sprint(key), fmt.Sprintf("%+v %#v %s %q", key, []Key{key}, &key, key), string(asJSON)} {
		if strings.Contains(text, keyA) || !strings.Contains(text, "billing") {
			t.Errorf("prints as %s", text)
		}
	}
}

// Only hashes are kept, so that a dump of the process has no usable key.
func TestKeysKeepsHashesOnly(t *testing.T) {
	keys, err := NewKeys([]Key{{"a", keyA}})
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(keys.entries[0].sum[:]), keyA[:8]) {
		t.Error("the key itself is kept")
	}
}

func TestParseBearer(t *testing.T) {
	for header, want := range map[string]string{
		"Bearer abc": "abc", "bearer abc": "abc", "BEARER   abc ": "abc", "Bearer a.b-c_d~e+f/g=": "a.b-c_d~e+f/g=",
		"": "", "Bearer": "", "Bearer ": "", "Bearerabc": "", "Basic abc": "", "Bearer a b": "", "abc": "", "Bearer a\tb": "", "X Bearer abc": "",
	} {
		got, ok := ParseBearer(header)
		if got != want || ok != (want != "") {
			t.Errorf("ParseBearer(%q) = %q, %v", header, got, ok)
		}
	}
}

func BenchmarkLookup(b *testing.B) {
	var list []Key
	for _, name := range strings.Split("abcdefgh", "") {
		list = append(list, Key{name, keyA + name})
	}
	keys, err := NewKeys(list)
	if err != nil {
		b.Fatal(err)
	}
	for name, key := range map[string]string{"first": keyA + "a", "last": keyA + "h", "none": keyA} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				keys.Lookup(key)
			}
		})
	}
}
