//go:build unix

package wire

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// A probe asks a socket whether it is readable. It lives with its connection because the closure passed to
// RawConn.Control escapes: one allocation a connection instead of one a call.
type probe struct {
	look func(fd uintptr)
	fds  [1]unix.PollFd
	some bool
}

// readable reports whether bytes, the end or an error wait to be read.
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
