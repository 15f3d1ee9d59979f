//go:build unix

package http1

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// A probe looks at a socket. It is kept with its connection, since what the look at a socket is done by escapes.
type probe struct {
	look func(fd uintptr)
	fds  [1]unix.PollFd
	some bool
}

// readable tells whether something has come that has not been read: bytes, the end, or an error.
func (p *probe) readable(raw syscall.RawConn) bool {
	if raw == nil {
		return false
	}
	if p.look == nil {
		p.look = func(fd uintptr) {
			p.fds[0] = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
			p.some = pollNow(&p.fds)
		}
	}
	p.some = true
	return raw.Control(p.look) != nil || p.some
}
