package http1

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A probe looks at a socket. It is kept with its connection, since what the look at a socket is done by escapes.
type probe struct {
	look func(fd uintptr)
	fd   unix.PollFd
	some bool
}

// readable tells whether something has come that has not been read: bytes, the end, or an error.
func (p *probe) readable(raw syscall.RawConn) bool {
	if raw == nil {
		return false
	}
	if p.look == nil {
		p.look = func(fd uintptr) {
			p.fd = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
			// It never waits, so the scheduler isn't told: at moderate load it would wake its monitor for each call.
			var now unix.Timespec
			n, _, err := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&p.fd)), 1, uintptr(unsafe.Pointer(&now)), 0, 0, 0)
			p.some = n != 0 || err != 0
		}
	}
	p.some = true
	return raw.Control(p.look) != nil || p.some
}
