package proc

import (
	"os"
	"testing"
	"time"
)

func TestCPUCountsWork(t *testing.T) {
	before, err := CPU(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for began := time.Now(); time.Since(began) < 30*time.Millisecond; {
	}
	after, err := CPU(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	// A busy machine may give less than the wall clock's time, never nothing.
	if d := after - before; d < time.Millisecond || d > 10*time.Second {
		t.Errorf("30 ms of work counted as %v", d)
	}
}

func TestCPUOfNobody(t *testing.T) {
	if _, err := CPU(1 << 22); err == nil {
		t.Error("a process that does not exist has CPU time")
	}
}

func TestReadMemoryOfSelf(t *testing.T) {
	m, err := ReadMemory(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if m.RSS < 1000 || m.PSS <= 0 || m.PSS > m.RSS {
		t.Errorf("implausible: %+v", m)
	}
}

func TestParseRollup(t *testing.T) {
	m, err := parseRollup([]byte("00400000-7ffc [rollup]\nRss:  12345 kB\nPss:  12000 kB\nPss_Anon: 7 kB\nShared_Clean: 9 kB\n"))
	if err != nil || m != (Memory{RSS: 12345, PSS: 12000}) {
		t.Errorf("got %+v, %v", m, err)
	}
	if _, err := parseRollup([]byte("nothing\n")); err == nil {
		t.Error("a rollup without Rss is accepted")
	}
}
