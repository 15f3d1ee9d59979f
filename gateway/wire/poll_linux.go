package wire

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// pollNow reports whether the event is there, or the socket cannot be asked. It never waits, so the scheduler is not
// told: at moderate load it would wake its monitor for each call.
func pollNow(fds *[1]unix.PollFd) bool {
	var now unix.Timespec
	n, _, err := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(fds)), 1, uintptr(unsafe.Pointer(&now)), 0, 0, 0)
	return n != 0 || err != 0
}

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
