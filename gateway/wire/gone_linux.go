package wire

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// gone reports whether the other end has closed the connection, or its half of it, even if it has sent something
// before.
func gone(raw syscall.RawConn) bool {
	if raw == nil {
		return false
	}
	left := false
	err := raw.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		n, err := unix.Poll(fds, 0)
		left = err == nil && n > 0 && fds[0].Revents&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR) != 0
	})
	return left || err != nil
}
