//go:build linux && (amd64 || arm64) && !race

package engine

import (
	"syscall"
	"unsafe"
)

// send and receive are send(2) and recv(2) without a flag that could make them wait, so the scheduler need not be told that
// a thread may be gone for long; and write(2) and read(2) would first look at what only files have. Together a tenth of a
// delivery. b is not empty.

func send(fd int32, b []byte) (int, error) {
	return move(syscall.SYS_SENDTO, fd, b, syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL)
}

func receive(fd int32, b []byte) (int, error) {
	return move(syscall.SYS_RECVFROM, fd, b, syscall.MSG_DONTWAIT)
}

func move(call uintptr, fd int32, b []byte, flags uintptr) (int, error) {
	at := unsafe.Pointer(&b[0]) //nolint:gosec // what the kernel reads or fills is b, and only during the call
	n, _, err := syscall.RawSyscall6(call, uintptr(fd), uintptr(at), uintptr(len(b)), flags, 0, 0)
	if err != 0 {
		return 0, err
	}
	return int(n), nil
}
