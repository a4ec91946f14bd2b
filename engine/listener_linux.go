//go:build linux && (amd64 || arm64) && !race

package engine

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"unsafe"
)

// Listen lets the requests on a listener's TCP connections be read and answered as the engine sends, see send: a POST and
// its answer are three such calls. Deadlines, Close and everything else are the connection's own, and for a websocket it is
// taken out again.
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
	c := &directConn{TCPConn: tcp}
	c.in = transfer{conn: c, name: "read", wait: raw.Read, try: c.in.receive}
	c.out = transfer{conn: c, name: "write", wait: raw.Write, try: c.out.send}
	return c, nil
}

// directConn is a TCP connection that makes its system calls itself, and lets the runtime wait when there is nothing to do.
type directConn struct {
	*net.TCPConn
	in, out transfer
}

// plain returns the connection itself, without what HTTP has of it.
func plain(nc net.Conn) net.Conn {
	if c, ok := nc.(*directConn); ok {
		return c.TCPConn
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

// transfer is one direction of a directConn. What a call needs is kept here, so that it takes no memory.
type transfer struct {
	conn *directConn
	name string                            // as in net.OpError
	wait func(func(fd uintptr) bool) error // calls its argument, whenever the socket is ready, until that is done
	try  func(fd uintptr) bool

	mu  sync.Mutex // held for a whole call; guards what follows
	b   []byte     // still to be read into, or written
	n   int
	err error
}

func (t *transfer) do(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b, t.n, t.err = b, 0, nil
	err := t.wait(t.try)
	t.b = nil
	if err == nil {
		err = t.err
	}
	if err != nil {
		err = t.conn.failure(t.name, err)
	}
	return t.n, err
}

// failure is an error as a TCPConn would give it.
func (c *directConn) failure(op string, err error) error {
	var waiting *net.OpError
	if errors.As(err, &waiting) {
		err = waiting.Err // the connection is closed, or its deadline has passed
	}
	return &net.OpError{Op: op, Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}

// receive is done when something has come, or the end.
func (t *transfer) receive(fd uintptr) bool {
	for {
		at := unsafe.Pointer(&t.b[0]) //nolint:gosec // what the kernel fills is b, and only during the call
		n, _, err := syscall.RawSyscall6(syscall.SYS_RECVFROM, fd, uintptr(at), uintptr(len(t.b)), syscall.MSG_DONTWAIT, 0, 0)
		switch {
		case err == 0:
			t.n = int(n)
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.EAGAIN):
			return false
		default:
			t.err = os.NewSyscallError("recvfrom", err)
		}
		return true
	}
}

// send is done when everything is written.
func (t *transfer) send(fd uintptr) bool {
	n, err := directWrite(int32(fd), t.b)
	t.b, t.n = t.b[n:], t.n+n
	t.err = os.NewSyscallError("sendto", err)
	return err != nil || len(t.b) == 0
}
