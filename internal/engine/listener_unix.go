//go:build unix

package engine

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// Listen makes requests cheaper on a listener's TCP connections. They are read and answered as the engine sends, see send;
// and a deadline that nobody waits for is only noted. For a websocket the connection is taken out again.
func Listen(l net.Listener) net.Listener { return listener{l} }

type listener struct{ net.Listener }

func (l listener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	tcp, ok := nc.(*net.TCPConn)
	if !ok {
		return nc, err
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return tcp, nil //nolint:nilerr // not the listener's: an error here would end the server
	}
	c := &directConn{Conn: tcp}
	c.in = transfer{conn: tcp, name: "read", wait: raw.Read, arm: tcp.SetReadDeadline, try: c.in.receive}
	c.out = transfer{conn: tcp, name: "write", wait: raw.Write, arm: tcp.SetWriteDeadline, try: c.out.send}
	return c, nil
}

// directConn is a TCP connection that makes its system calls itself, and lets the runtime wait when there is nothing to do.
// It does not have the connection's other ways to read and write, which would not know of its deadlines.
type directConn struct {
	net.Conn // a *net.TCPConn
	in, out  transfer
}

// plain returns the connection itself, without what HTTP has of it; its deadlines are to be set anew.
func plain(nc net.Conn) net.Conn {
	if c, ok := nc.(*directConn); ok {
		return c.Conn
	}
	return nc
}

func (c *directConn) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	n, err := c.in.do(b)
	if n == 0 && err == nil {
		return 0, io.EOF
	}
	return n, err
}

func (c *directConn) Write(b []byte) (int, error) { return c.out.do(b) }

func (c *directConn) CloseWrite() error { return c.in.conn.CloseWrite() }

func (c *directConn) SetReadDeadline(at time.Time) error  { return c.in.setDeadline(at) }
func (c *directConn) SetWriteDeadline(at time.Time) error { return c.out.setDeadline(at) }

func (c *directConn) SetDeadline(at time.Time) error {
	return errors.Join(c.SetReadDeadline(at), c.SetWriteDeadline(at))
}

// transfer is one direction of a directConn. What a call needs is kept here, so that it takes no memory.
type transfer struct {
	conn *net.TCPConn
	name string                            // as in net.OpError
	wait func(func(fd uintptr) bool) error // calls its argument, whenever the socket is ready, until that is done
	arm  func(time.Time) error             // sets the deadline of wait
	try  func(fd uintptr) bool

	mu  sync.Mutex // held for a whole call; guards what follows
	b   []byte     // still to be read into, or written
	n   int
	err error

	// net/http sets eight deadlines for a request, of which one is waited for. So they are noted, and armed by who has to wait.
	limit   sync.Mutex // guards what follows
	at      time.Time
	noted   bool // at is not armed
	waiting bool // a call waits, or is about to: at is armed
}

func (t *transfer) setDeadline(at time.Time) error {
	t.limit.Lock()
	defer t.limit.Unlock()
	t.at, t.noted = at, true
	if t.waiting {
		return t.armLocked()
	}
	return nil
}

func (t *transfer) armLocked() error {
	t.noted = false
	return t.arm(t.at)
}

// do makes a call, unless its deadline has passed.
func (t *transfer) do(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.overdue() {
		return 0, os.ErrDeadlineExceeded
	}
	t.b, t.n, t.err = b, 0, nil
	err := t.wait(t.try)
	for err != nil && errors.Is(err, os.ErrDeadlineExceeded) && t.rearm() {
		err = t.wait(t.try)
	}
	t.b = nil
	t.rest()
	if err == nil {
		err = t.err
	}
	if err != nil {
		err = t.failure(err)
	}
	return t.n, err
}

func (t *transfer) overdue() bool {
	t.limit.Lock()
	defer t.limit.Unlock()
	return !t.at.IsZero() && time.Until(t.at) <= 0
}

// block arms the deadline of a call that has to wait.
func (t *transfer) block() {
	t.limit.Lock()
	defer t.limit.Unlock()
	t.waiting = true
	if t.noted {
		_ = t.armLocked() // of a closed connection: the wait will say so
	}
}

// rearm reports whether the deadline that has ended a wait was an old one. Then the noted one is armed.
func (t *transfer) rearm() bool {
	t.limit.Lock()
	defer t.limit.Unlock()
	return t.noted && t.armLocked() == nil
}

func (t *transfer) rest() {
	t.limit.Lock()
	defer t.limit.Unlock()
	t.waiting = false
}

// failure is an error as a TCPConn would give it.
func (t *transfer) failure(err error) error {
	var waiting *net.OpError
	if errors.As(err, &waiting) {
		err = waiting.Err // the connection is closed, or its deadline has passed
	}
	return &net.OpError{Op: t.name, Net: "tcp", Source: t.conn.LocalAddr(), Addr: t.conn.RemoteAddr(), Err: err}
}

// receive is done when something has come, or the end.
func (t *transfer) receive(fd uintptr) bool {
	n, err := receive(int32(fd), t.b)
	for errors.Is(err, syscall.EINTR) {
		n, err = receive(int32(fd), t.b)
	}
	if errors.Is(err, syscall.EAGAIN) {
		t.block()
		return false
	}
	t.n, t.err = max(n, 0), os.NewSyscallError("read", err)
	return true
}

// send is done when everything is written.
func (t *transfer) send(fd uintptr) bool {
	n, err := directWrite(int32(fd), t.b)
	t.b, t.n, t.err = t.b[n:], t.n+n, os.NewSyscallError("write", err)
	if err != nil || len(t.b) == 0 {
		return true
	}
	t.block()
	return false
}
