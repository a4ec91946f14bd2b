package main

import (
	"bytes"
	"errors"
	"os"
	"strconv"
	"time"
)

// otherCores is the metric that the bench adds to every sample: how many cores
// were busy with neither the server nor the generator.
const otherCores = "other_cores"

// quietEnough is how many cores others may use before a figure is doubted.
const quietEnough = 0.15

// others measures what the rest of the machine does meanwhile.
type others struct {
	server      *server
	began       time.Time
	busy, spent time.Duration
}

func startOthers(s *server) (*others, error) {
	busy, err := machineBusy()
	if err != nil {
		return nil, err
	}
	spent, err := s.cpu()
	if err != nil {
		return nil, err
	}
	return &others{server: s, began: time.Now(), busy: busy, spent: spent}, nil
}

// stop returns the cores that others used on average since the start; generator
// is the generator's CPU time in that while.
func (o *others) stop(generator time.Duration) (float64, error) {
	wall := time.Since(o.began)
	busy, err := machineBusy()
	if err != nil {
		return 0, err
	}
	spent, err := o.server.cpu()
	if err != nil {
		return 0, err
	}
	rest := (busy - o.busy) - (spent - o.spent) - generator
	return max(0, float64(rest)/float64(wall)), nil
}

// machineBusy is the time that all cores together have spent working since the
// machine started, less what a hypervisor took from them.
func machineBusy() (time.Duration, error) {
	raw, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	return parseBusy(raw)
}

func parseBusy(raw []byte) (time.Duration, error) {
	first, _, _ := bytes.Cut(raw, []byte("\n"))
	fields := bytes.Fields(first)
	// cpu user nice system idle iowait irq softirq steal …
	if len(fields) < 8 || string(fields[0]) != "cpu" {
		return 0, errors.New("malformed /proc/stat")
	}
	var ticks int64
	for _, i := range []int{1, 2, 3, 6, 7} {
		n, err := strconv.ParseInt(string(fields[i]), 10, 64)
		if err != nil {
			return 0, errors.New("malformed /proc/stat")
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil // USER_HZ is 100
}
