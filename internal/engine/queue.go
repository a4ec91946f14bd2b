package engine

import (
	"errors"
	"os"
	"sync"
	"time"
)

// writeChunk is how much one write hands to the kernel at most: small frames are gathered up to it, large ones cut. A client
// that does not take one chunk within WriteTimeout is slow. Frames are copied together and not written as vectors: that works
// through TLS in one record, and leaves no vectors behind in the connection.
const writeChunk = 32 << 10

// chunks are the buffers that output is gathered in; one is held only during a write.
var chunks = sync.Pool{New: func() any {
	b := make([]byte, 0, writeChunk)
	return &b
}}

// queue is the output that a connection has accepted and the kernel has not. It is guarded by Conn.mu.
type queue struct {
	frames []*Frame
	sent   int // bytes of frames[0] that are written
	bytes  int // of all frames, less sent
}

func (q *queue) empty() bool { return len(q.frames) == 0 }

func (q *queue) push(f *Frame) {
	if q.frames == nil {
		q.frames = make([]*Frame, 0, 4)
	}
	q.frames = append(q.frames, f)
	q.bytes += len(f.wire)
}

// unshift puts a frame in front of a queue of which nothing has been written.
func (q *queue) unshift(f *Frame) {
	q.frames = append([]*Frame{f}, q.frames...)
	q.bytes += len(f.wire)
}

// chunk returns the next bytes to write, at most cap(buf): part of one large frame, or several gathered in buf.
func (q *queue) chunk(buf []byte) []byte {
	first := q.frames[0].wire[q.sent:]
	if len(q.frames) == 1 || len(first) >= cap(buf)/2 {
		return first[:min(len(first), cap(buf))]
	}
	buf = append(buf[:0], first...)
	for _, f := range q.frames[1:] {
		if len(buf)+len(f.wire) > cap(buf) {
			break
		}
		buf = append(buf, f.wire...)
	}
	return buf
}

// advance drops the n bytes that have been written.
func (q *queue) advance(n int) {
	q.bytes -= n
	n += q.sent
	done := 0
	for done < len(q.frames) && n >= len(q.frames[done].wire) {
		n -= len(q.frames[done].wire)
		q.frames[done] = nil
		done++
	}
	q.sent = n
	q.frames = q.frames[done:]
	if len(q.frames) == 0 {
		q.frames = nil // an idle connection keeps no queue
	}
}

// drop forgets the first n frames, of which nothing was written before; polling takes whole frames.
func (q *queue) drop(n int) {
	clear(q.frames[:n])
	if q.frames = q.frames[n:]; len(q.frames) == 0 {
		q.frames = nil
	}
}

func (c *Conn) pushLocked(f *Frame) {
	c.out.push(f)
	c.srv.count.buffered.Add(int64(len(f.wire)))
}

func (c *Conn) advanceLocked(n int) {
	c.out.advance(n)
	c.srv.count.buffered.Add(-int64(n))
}

// flush is the flusher: the only writer to nc while it lives, which is while the queue is not empty.
func (c *Conn) flush() {
	defer c.srv.wg.Done()
	buf := chunks.Get().(*[]byte)
	defer chunks.Put(buf)
	c.mu.Lock()
	nc := c.nc
	for {
		if c.state == stateDead || c.corked > 0 || c.out.empty() {
			break
		}
		b := c.out.chunk(*buf)
		c.mu.Unlock()
		nc.SetWriteDeadline(time.Now().Add(c.srv.cfg.WriteTimeout))
		n, err := nc.Write(b)
		c.mu.Lock()
		if c.state == stateDead {
			break
		}
		c.advanceLocked(n)
		if err != nil {
			reason := ReasonTransportError
			if errors.Is(err, os.ErrDeadlineExceeded) {
				reason = ReasonSlowClient
			}
			c.endLocked(reason, 0, abruptly)
			break
		}
	}
	c.flushing = false
	if c.state != stateClosing || !c.out.empty() {
		c.mu.Unlock()
		return
	}
	c.mu.Unlock()
	halfClose(nc)
	c.mu.Lock()
	c.flushedLocked()
	c.mu.Unlock()
}

// flushedLocked notes that a closing session has handed everything over. The peer has closeGrace for its end; a reader that has
// not come to wait for it yet will set that deadline itself.
func (c *Conn) flushedLocked() {
	if c.state == stateClosing {
		c.state = stateFlushed
	}
	switch {
	case c.lingers && c.departed:
		c.nc.SetReadDeadline(longAgo)
	case c.lingers:
		c.nc.SetReadDeadline(time.Now().Add(closeGrace))
	}
}
