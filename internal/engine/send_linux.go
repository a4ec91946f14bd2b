//go:build linux && (amd64 || arm64) && !race

package engine

import (
	"syscall"
	"unsafe"
)

const canSend = true

// send is send(2) with a flag that keeps it from waiting, so that the scheduler need not be told that a thread may be gone for
// long. b is not empty.
func send(fd int32, b []byte) (int, error) {
	at := unsafe.Pointer(&b[0]) //nolint:gosec // what the kernel reads is b, and only during the call
	n, _, err := syscall.RawSyscall6(syscall.SYS_SENDTO, uintptr(fd), uintptr(at), uintptr(len(b)),
		syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL, 0, 0)
	if err != 0 {
		return 0, err
	}
	return int(n), nil
}
