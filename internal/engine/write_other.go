//go:build !unix

package engine

import (
	"errors"
	"net"
)

// descriptor finds no way to write without waiting here: all output goes through the queue.
func (s *Server) descriptor(net.Conn) (fd int32, ok bool) { return 0, false }

// directWrite is not called where descriptor returns false.
func directWrite(int32, []byte) (int, error) { return 0, errors.ErrUnsupported }
