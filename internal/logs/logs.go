// Package logs writes log lines without ever holding up or ending the process: a reader of the standard error that stands
// still, or has gone, costs lines, which are counted, and nothing else.
package logs

import (
	"bytes"
	"context"
	"io"
	"sync"
	"sync/atomic"
)

// QueueBytes is how much a Writer holds by default; what comes beyond it is dropped. 1 MiB
const QueueBytes = 1 << 20

// Writer takes what is written to it into a bounded queue, from which one goroutine writes on. Write never waits and never
// fails, so that it may be called with locks held.
type Writer struct {
	to      io.Writer
	limit   int
	dropped func(lines uint64) // see New

	mu    sync.Mutex
	queue []byte // what waits
	lost  uint64 // lines dropped since dropped was told

	broken bool // the last write has failed

	wake  chan struct{}
	stop  chan struct{}
	done  chan struct{}
	total atomic.Uint64
}

// New returns a writer to that holds at most limit bytes, or QueueBytes. When lines were dropped and it can write again, it calls
// dropped with their number, which may log that. Close ends its goroutine.
func New(to io.Writer, limit int, dropped func(lines uint64)) *Writer {
	if limit <= 0 {
		limit = QueueBytes
	}
	w := &Writer{
		to: to, limit: limit, dropped: dropped,
		wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}),
	}
	go w.run()
	return w
}

// Write queues one line. It returns len(line) and nil, whatever becomes of it.
func (w *Writer) Write(line []byte) (int, error) {
	w.mu.Lock()
	if len(w.queue)+len(line) > w.limit {
		w.lose(1)
	} else {
		w.queue = append(w.queue, line...)
	}
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
	return len(line), nil
}

// lose counts lines; the caller holds mu.
func (w *Writer) lose(lines uint64) {
	w.lost += lines
	w.total.Add(lines)
}

// Dropped is how many lines were dropped so far.
func (w *Writer) Dropped() uint64 { return w.total.Load() }

func (w *Writer) run() {
	defer close(w.done)
	for stopping := false; !stopping; {
		select {
		case <-w.wake:
		case <-w.stop:
			stopping = true
		}
		for w.flush() {
		}
	}
}

// flush writes what waits, and reports whether there may be more. With nothing left it tells what was dropped: then there is
// room for that.
func (w *Writer) flush() bool {
	w.mu.Lock()
	batch, lost := w.queue, w.lost
	w.queue = nil
	if len(batch) == 0 && !w.broken {
		w.lost = 0
	}
	broken := w.broken
	w.mu.Unlock()
	if len(batch) == 0 {
		if lost > 0 && !broken {
			w.dropped(lost)
		}
		return lost > 0 && !broken
	}
	_, err := w.to.Write(batch)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.broken = err != nil; w.broken {
		w.lose(uint64(bytes.Count(batch, []byte{'\n'})))
	}
	return true
}

// Close writes what waits until ctx ends, and then gives up: the goroutine may hang in a Write for ever, and is left behind.
// What is written after Close is dropped.
func (w *Writer) Close(ctx context.Context) error {
	close(w.stop)
	select {
	case <-w.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
