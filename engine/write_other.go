//go:build !unix

package engine

import (
	"errors"
	"net"
	"syscall"
)

// rawConn finds no way to write without waiting here: all output goes through the queue.
func (s *Server) rawConn(net.Conn) syscall.RawConn { return nil }

// writeNow is not called where rawConn returns nil.
func writeNow(syscall.RawConn, []byte) (int, error) { return 0, errors.ErrUnsupported }
