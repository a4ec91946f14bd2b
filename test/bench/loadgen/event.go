package main

import (
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"jobwire/test/bench/loadgen/sockets"
)

// jobsPerUser is how many jobs of each user report progress in turn: so many
// that a job moves every few hundred milliseconds, as jobs do, and nothing is
// left for a server to coalesce.
func (t *target) jobsPerUser() int { return max(8, 128/t.users) }

// eventsPerJob is how many events a job of the kind "jobs" has: progress, and its end.
const eventsPerJob = 20

// appendEvent appends the JSON of one event. n is its number in the run; it
// travels in the data and tells the receiver which event this is. All kinds
// are about as long as real ones: 150 to 200 bytes.
func (t *target) appendEvent(dst []byte, user, n int) []byte {
	dst = append(dst, `{"userId":"`...)
	dst = append(dst, userName(user)...)
	kind, job := t.kind, n/t.users%t.jobsPerUser()
	switch kind {
	case "completed":
		job = n
	case "jobs": // each user's jobs are at another point of their lives, so that ends come evenly
		slots := t.jobsPerUser()
		at := n/t.users/slots + job + user
		job += at / eventsPerJob * slots
		if kind = "progress"; at%eventsPerJob == eventsPerJob-1 {
			kind = "completed"
		}
	}
	switch kind {
	case "completed":
		dst = append(dst, `","event":"job_completed","data":{"jobId":"job-`...)
		dst = strconv.AppendInt(dst, int64(job), 10)
		dst = append(dst, `","n":`...)
		dst = strconv.AppendInt(dst, int64(n), 10)
		dst = append(dst, `,"result":{"url":"/exports/2024/report.pdf","bytes":184320,"pages":12}}}`...)
	case "custom":
		dst = append(dst, `","event":"invoice.ready","data":{"invoice":"inv-`...)
		dst = strconv.AppendInt(dst, int64(n), 10)
		dst = append(dst, `","n":`...)
		dst = strconv.AppendInt(dst, int64(n), 10)
		dst = append(dst, `,"amount":"129.90","currency":"EUR","message":"Your invoice can be downloaded now"}}`...)
	default:
		dst = append(dst, `","event":"job_progress","data":{"jobId":"job-`...)
		dst = strconv.AppendInt(dst, int64(job), 10)
		dst = append(dst, `","n":`...)
		dst = strconv.AppendInt(dst, int64(n), 10)
		dst = append(dst, `,"progress":`...)
		dst = strconv.AppendInt(dst, int64(n%100), 10)
		dst = append(dst, `,"stage":"rendering","message":"Rendered 1234 of 5000 frames"}}`...)
	}
	return dst
}

// number is the n of an event that appendEvent wrote; false for any other.
func number(ev sockets.Event) (int, bool) {
	n, err := strconv.Atoi(string(sockets.Field(ev.Body, `"n":`)))
	return n, err == nil
}

// tally counts the events that arrive. One thread adds; another waits.
type tally struct {
	seen []uint8 // times that event n arrived; read by others after wait
	got  atomic.Int64
}

func newTally(n int) *tally { return &tally{seen: make([]uint8, n)} }

func (t *tally) add(n int) {
	if n < len(t.seen) && t.seen[n] < 255 {
		t.seen[n]++
		t.got.Add(1)
	}
}

// wait returns when want events have arrived, or none has for patience.
func (t *tally) wait(want int) { await(&t.got, int64(want)) }

// patience is how long nothing may arrive before the rest counts as lost. Only
// tests change it.
var patience = 5 * time.Second

// await returns when v is want, or has not changed for patience.
func await(v *atomic.Int64, want int64) {
	last, since := v.Load(), time.Now()
	for last != want && time.Since(since) < patience {
		time.Sleep(5 * time.Millisecond)
		if now := v.Load(); now != last {
			last, since = now, time.Now()
		}
	}
}

// count tells how many of the events were lost and how many repeats there were.
func (t *tally) count() (lost, repeated int) {
	for _, n := range t.seen {
		switch {
		case n == 0:
			lost++
		default:
			repeated += int(n) - 1
		}
	}
	return lost, repeated
}

// complete fails unless every event has arrived once: the cost or the latency
// of events that went astray means nothing.
func (t *tally) complete() error {
	if lost, repeated := t.count(); lost+repeated > 0 {
		return fmt.Errorf("of %d events %d were lost and %d repeated", len(t.seen), lost, repeated)
	}
	return nil
}

// accepted checks one answer of POST /v1/events.
func accepted(status int, answer []byte, err error) error {
	if err != nil {
		return err
	}
	if status != 202 {
		return fmt.Errorf("POST answered %d: %.300s", status, answer)
	}
	return nil
}
