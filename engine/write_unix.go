//go:build unix

package engine

import (
	"net"
	"sync"
	"syscall"
)

// rawConn returns the access to the socket under nc that writeNow needs; nil when nc is not a plain TCP socket (TLS, a
// wrapped listener), whose output then goes through the queue.
func (s *Server) rawConn(nc net.Conn) syscall.RawConn {
	tcp, ok := nc.(*net.TCPConn)
	if !ok || s.cfg.portable {
		return nil
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}

// attempt is one write that does not wait. It is pooled because the function that RawConn.Write wants must live on the
// heap: this way it is made once, and a write allocates nothing.
type attempt struct {
	b   []byte
	n   int
	err error
	run func(fd uintptr) bool
}

var attempts = sync.Pool{New: func() any {
	a := new(attempt)
	a.run = a.write
	return a
}}

// write always reports true: to RawConn the attempt is over, also when the socket was full.
func (a *attempt) write(fd uintptr) bool {
	for a.n < len(a.b) {
		n, err := syscall.Write(int(fd), a.b[a.n:])
		if n > 0 {
			a.n += n
		}
		switch err {
		case nil:
			if n == 0 {
				return true
			}
		case syscall.EINTR:
		case syscall.EAGAIN:
			return true
		default:
			a.err = err
			return true
		}
	}
	return true
}

// writeNow hands the kernel as much of b as it takes at once. The caller is the only writer.
func writeNow(raw syscall.RawConn, b []byte) (int, error) {
	a := attempts.Get().(*attempt)
	a.b, a.n, a.err = b, 0, nil
	err := raw.Write(a.run)
	if err == nil {
		err = a.err
	}
	n := a.n
	a.b = nil
	attempts.Put(a)
	return n, err
}
