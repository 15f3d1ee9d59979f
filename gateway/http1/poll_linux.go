package http1

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// pollNow tells whether what is looked for is there, or cannot be looked for. It never waits, so the scheduler isn't told:
// at moderate load it would wake its monitor for each call.
func pollNow(fds *[1]unix.PollFd) bool {
	var now unix.Timespec
	n, _, err := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(fds)), 1, uintptr(unsafe.Pointer(&now)), 0, 0, 0)
	return n != 0 || err != 0
}
