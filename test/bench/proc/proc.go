// Package proc reads what the kernel knows of a process: CPU time and memory.
package proc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// CPU is the user and system time that a process has used in all its threads,
// the ended ones included. It reads the kernel's CPU clock of the process (the
// one clock_getcpuclockid names), which counts nanoseconds where
// /proc/<pid>/stat counts hundredths of a second.
func CPU(pid int) (time.Duration, error) {
	const sched = 2 // CPUCLOCK_SCHED of the kernel's posix-timers.h
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid)<<3|sched, &ts); err != nil {
		return 0, fmt.Errorf("cpu clock of process %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}

// Memory is what a process keeps in memory, in kB.
type Memory struct {
	RSS int // resident set
	PSS int // resident set, shared pages divided among their users
}

// ReadMemory reads a process's memory from smaps_rollup.
func ReadMemory(pid int) (Memory, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return Memory{}, err
	}
	return parseRollup(raw)
}

func parseRollup(raw []byte) (Memory, error) {
	var m Memory
	for line := range bytes.Lines(raw) {
		fields := bytes.Fields(line)
		if len(fields) != 3 {
			continue
		}
		var into *int
		switch string(fields[0]) {
		case "Rss:":
			into = &m.RSS
		case "Pss:":
			into = &m.PSS
		default:
			continue
		}
		n, err := strconv.Atoi(string(fields[1]))
		if err != nil {
			return Memory{}, fmt.Errorf("malformed smaps_rollup: %w", err)
		}
		*into = n
	}
	if m.RSS == 0 {
		return Memory{}, errors.New("smaps_rollup without Rss")
	}
	return m, nil
}
