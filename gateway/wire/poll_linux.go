package wire

import (
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
