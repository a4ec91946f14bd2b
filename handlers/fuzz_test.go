package handlers

import (
	"net/http"
	"testing"
	"time"
)

func FuzzPreferredWait(f *testing.F) {
	for _, seed := range []string{"wait=5", "a, wait = \"6\";x", "wait=", "wait=18446744073709551616", ",;=,"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		wait := preferredWait(http.Header{headerPrefer: {value}})
		if wait < 0 || wait > MaxWait || wait%time.Second != 0 {
			t.Fatalf("%q makes a call wait for %v", value, wait)
		}
	})
}
