//go:build unix

package engine

import (
	"errors"
	"net"
	"syscall"
)

// descriptor returns the descriptor under nc for directWrite; false when nc is not a plain TCP socket (TLS, a wrapped
// listener), whose output then goes through the queue.
func (s *Server) descriptor(nc net.Conn) (fd int32, ok bool) {
	tcp, ok := nc.(*net.TCPConn)
	if !ok || s.cfg.portable {
		return 0, false
	}
	raw, err := tcp.SyscallConn()
	if err == nil {
		err = raw.Control(func(n uintptr) { fd = int32(n) })
	}
	return fd, err == nil
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
