//go:build !unix

package engine

import "net"

// Listen returns the listener as it is: what it is for elsewhere needs descriptors.
func Listen(l net.Listener) net.Listener { return l }

func plain(nc net.Conn) net.Conn { return nc }
