package engine

import (
	"encoding/binary"
	"errors"
	"net"
	"sync"
	"syscall"
)

// ErrClosed is returned by Send on a connection that is closed or closing.
var ErrClosed = errors.New("engine: connection is closed")

// connState is how far a session is on its way from its handshake to its end, see Conn. It only moves forward.
type connState uint8

const (
	stateOpen connState = iota
	stateLeaving
	stateClosing
	stateFlushed
	stateDead
)

// transportState is what a session's packets go over, see Conn.
type transportState uint8

const (
	polling transportState = iota
	probing
	probed
	webSocket
)

// Conn is one session with one client, on whichever transport it currently is. Its methods may be called from any goroutine,
// also from inside its Handler.
//
// A session is in one of five states:
//
//	state    begins when                              Send     from the client  ends when
//	open     the handshake has come                   accepts  is handled       endLocked, or Close
//	leaving  Close was called while probed            refuses  is handled       the probe is over
//	closing  endLocked: it is over for the handler    refuses  is dropped       the queue is out, or time is up
//	flushed  websocket: the kernel has everything     refuses  is dropped       the client ends, or time is up
//	dead     the queue is dropped, the socket closed  refuses  is not read      endWebSocket, endPolling forget it
//
// An abrupt end goes from any of them to dead at once. Beside that it is on one of four transports:
//
//	transport  packets out              nc and in belong to     next
//	polling    answer polls             none, nc is nil         probing: a websocket with its sid came
//	probing    answer polls             the probe               probed: 2probe; polling: the probe failed
//	probed     answer polls; an idle    the probe               webSocket: 5; polling: the probe failed
//	           poll ends with a noop
//	webSocket  go to nc                 the reader; writes to   stays
//	                                    fd under mu, or to
//	                                    nc by the flusher
//
// A polling session has a poll as well, of which one GET may wait while another still writes, beside one POST; once upgraded it
// is dropped when the last GET is through.
//
// An idle websocket session is this struct, its descriptor and one parked goroutine, so the fields are few and small.
type Conn struct {
	// What a send looks at comes first: to a fan-out every connection is cold, and this is one cache line.

	srv *Server

	// mu guards everything below except in. It is a leaf but for that of Server.beats; no Handler is called under it, and
	// nothing under it waits for the client.
	mu       sync.Mutex
	state    connState
	on       transportState
	direct   bool // fd may be written to, see directWrite
	flushing bool // a flusher goroutine owns the writing side of nc
	started  bool // the handshake is over: the session's goroutine, or its polls, own its end
	awaiting bool // the heartbeat's ping has not been answered
	lingers  bool // the reader only waits for the peer's end of the connection
	departed bool // the client has said goodbye: only the answer is still to go

	fd     int32 // of nc
	corked int32
	out    queue

	nc      net.Conn
	handler Handler // set before started
	poll    *poll   // nil once upgraded and unused
	reason  string  // why the session ended, or is leaving

	id, remote string // constant

	pings, pongs uint32 // seq of the last ping sent, of the last one answered
	beat         beat

	in reader // belongs to the goroutine that reads nc
}

// ID returns the session id. It is a secret between server and client.
func (c *Conn) ID() string { return c.id }

// RemoteAddr returns the RemoteAddr of the handshake request.
func (c *Conn) RemoteAddr() string { return c.remote }

// Open reports whether Send would still accept something.
func (c *Conn) Open() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state == stateOpen
}

// live reports whether the session is not over yet. The caller holds mu.
func (c *Conn) live() bool { return c.state <= stateLeaving }

// Buffered returns how many bytes are queued, not yet handed to the kernel.
func (c *Conn) Buffered() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.out.bytes
}

// Send hands the frames over, adjacent and in order. It never blocks: what the socket does not take at once is queued. It
// returns ErrClosed when the connection is closed or closing, and when the queue would pass MaxQueue, which closes the
// connection as a "slow client".
func (c *Conn) Send(frames ...*Frame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state != stateOpen {
		return ErrClosed
	}
	return c.sendLocked(frames...)
}

// sendLocked accepts frames of an open session.
func (c *Conn) sendLocked(frames ...*Frame) error {
	size, packets := 0, len(frames)
	for _, f := range frames {
		size += len(f.wire)
		packets += int(f.more)
	}
	c.srv.count.packetsOut.Add(uint64(packets))
	c.srv.count.bytesOut.Add(uint64(size))

	direct := c.direct && c.corked == 0 && c.out.empty() // a flusher would mean a queue
	if direct && len(frames) == 1 {
		n, err := directWrite(c.fd, frames[0].wire)
		switch {
		case err != nil:
			c.endLocked(ReasonTransportError, 0, abruptly)
			return ErrClosed
		case n == size:
			return nil
		}
		c.pushLocked(frames[0])
		c.advanceLocked(n)
	} else {
		if !direct && c.out.bytes+size > c.srv.cfg.MaxQueue {
			c.endLocked(ReasonSlowClient, 0, abruptly)
			return ErrClosed
		}
		for _, f := range frames {
			c.pushLocked(f)
		}
	}
	c.writeLocked()
	if c.out.bytes > c.srv.cfg.MaxQueue {
		c.endLocked(ReasonSlowClient, 0, abruptly)
	}
	if !c.live() {
		return ErrClosed
	}
	return nil
}

// directWrite hands the kernel as much of b as it takes at once; the socket does not block. The caller is the only writer.
//
// It goes around net.Conn, whose locks and readiness flags are cold in a fan-out. What those protect from is a write to a
// descriptor that was closed and belongs to another socket by now. Here Conn.mu does: a session's socket is closed by
// Conn.cutLocked alone, and fd is used under the same lock and only while Conn.direct says so, which cutLocked ends first.
// Conn.nc keeps the socket from being closed as garbage.
func directWrite(fd int32, b []byte) (written int, err error) {
	for written < len(b) {
		n, err := send(fd, b[written:])
		written += max(n, 0)
		switch {
		case err == nil && n > 0, errors.Is(err, syscall.EINTR):
		case err == nil, errors.Is(err, syscall.EAGAIN):
			return written, nil
		default:
			return written, err
		}
	}
	return written, nil
}

// descriptor returns the descriptor under nc for directWrite; false when nc is not a plain TCP socket (TLS, a wrapped
// listener), whose output then goes through the queue.
func (s *Server) descriptor(nc net.Conn) (fd int32, ok bool) {
	tcp, ok := nc.(*net.TCPConn)
	if !ok || !canSend || s.cfg.portable {
		return 0, false
	}
	raw, err := tcp.SyscallConn()
	if err == nil {
		err = raw.Control(func(n uintptr) { fd = int32(n) })
	}
	return fd, err == nil
}

// writeLocked moves the queue on: to the socket at once as far as that takes it, then by a flusher; or to a waiting poll.
func (c *Conn) writeLocked() {
	if c.corked > 0 || c.flushing || c.out.empty() {
		return
	}
	if c.on != webSocket {
		c.poll.notify()
		return
	}
	if c.nc == nil {
		return // the handshake is not over
	}
	if c.direct {
		buf := chunks.Get().(*[]byte)
		defer chunks.Put(buf)
		for !c.out.empty() {
			b := c.out.chunk(*buf)
			n, err := directWrite(c.fd, b)
			c.advanceLocked(n)
			if err != nil {
				c.endLocked(ReasonTransportError, 0, abruptly)
				return
			}
			if n < len(b) {
				break
			}
		}
		if c.out.empty() {
			if c.state == stateClosing {
				halfClose(c.nc) // does not wait: it is a TCP socket
				c.flushedLocked()
			}
			return
		}
	}
	c.flushing = true
	c.srv.wg.Add(1) // the session still holds one
	go c.flush()
}

// Ping sends the frames, if any, and a ping behind them in one write. It returns the ping's seq, which Handler.Pong gets back
// when the client has answered: in order, after everything sent before. It is 0 when the connection does not take them.
func (c *Conn) Ping(frames ...*Frame) uint32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state != stateOpen || c.pingLocked(frames...) != nil {
		return 0
	}
	return c.pings
}

// pingLocked sends a ping behind the frames, if any. It counts the ping before it is written: a pong cannot overtake it.
func (c *Conn) pingLocked(frames ...*Frame) error {
	c.pings = nextSeq(c.pings)
	var few [4]*Frame
	return c.sendLocked(append(append(few[:0], frames...), pingFrame)...)
}

// Cork holds output back until as many Uncork calls have followed, which write it all at once. On a connection that is closed
// or closing it does nothing, or the client would be told of the end too late.
func (c *Conn) Cork() {
	c.mu.Lock()
	if c.live() {
		c.corked++
	}
	c.mu.Unlock()
}

// Uncork ends Cork.
func (c *Conn) Uncork() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.uncorkLocked()
}

func (c *Conn) uncorkLocked() {
	if c.corked == 0 {
		return // the end of the session has pulled every cork, and lets none in
	}
	if c.corked--; c.corked == 0 {
		c.writeLocked()
	}
}

// Engine.IO packet types (protocol 4).
const (
	packetOpen    = '0'
	packetClose   = '1'
	packetPing    = '2'
	packetPong    = '3'
	packetMessage = '4'
	packetUpgrade = '5'
	packetNoop    = '6'
)

// Frame is one Engine.IO packet, or several of a Batch, encoded once and shared by any number of connections.
//
// The server's websocket frames are not masked, so the very bytes that go to one websocket go to all of them; long-polling uses
// a slice of the same bytes. A Frame is immutable: wire is not written to after the constructor has returned.
type Frame struct {
	wire   []byte // a whole websocket frame: header, then the packet
	header uint8  // length of the websocket header in wire; 0 in a batch, which is several frames, one behind the other
	more   uint32 // packets behind the first
}

// TextFrame returns the frame of a message packet whose payload is text, usually a Socket.IO packet. The payload must be valid
// UTF-8, since a browser closes its connection on a text frame that is not; it is copied.
func TextFrame(payload []byte) *Frame {
	return newFrame(opText, []byte{packetMessage}, payload)
}

// BinaryFrame returns the frame of a binary message. The payload is copied.
func BinaryFrame(payload []byte) *Frame {
	return newFrame(opBinary, nil, payload)
}

// newFrame encodes an unfragmented, unmasked websocket frame whose payload is head followed by body.
func newFrame(op opcode, head, body []byte) *Frame {
	n := len(head) + len(body)
	wire := appendHeader(make([]byte, 0, 10+n), op, n)
	f := &Frame{header: uint8(len(wire))}
	f.wire = append(append(wire, head...), body...)
	return f
}

// appendHeader appends the header of an unfragmented, unmasked websocket frame whose payload has n bytes.
func appendHeader(wire []byte, op opcode, n int) []byte {
	wire = append(wire, finBit|byte(op))
	switch {
	case n <= 125:
		return append(wire, byte(n))
	case n <= 0xffff:
		return binary.BigEndian.AppendUint16(append(wire, 126), uint16(n))
	}
	return binary.BigEndian.AppendUint64(append(wire, 127), uint64(n))
}

// Size is the number of bytes that the frame takes on a websocket, header included. It is what queues are charged with.
func (f *Frame) Size() int { return len(f.wire) }

// binary reports whether this is a binary message, which has no type byte on websocket and is base64 behind a 'b' on polling.
func (f *Frame) binary() bool { return f.wire[0] == finBit|byte(opBinary) }

// packet returns the bytes after the websocket header. A batch has none of its own.
func (f *Frame) packet() []byte { return f.wire[f.header:] }

// Frames that are the same for every connection.
var (
	pingFrame   = newFrame(opText, []byte{packetPing}, nil)
	noopFrame   = newFrame(opText, []byte{packetNoop}, nil)
	closeFrame  = newFrame(opText, []byte{packetClose}, nil)
	probedFrame = newFrame(opText, []byte("3probe"), nil)
)
