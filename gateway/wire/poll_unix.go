//go:build unix && !linux

package wire

import "golang.org/x/sys/unix"

// pollNow reports whether the event is there, or the socket cannot be asked.
func pollNow(fds *[1]unix.PollFd) bool {
	n, err := unix.Poll(fds[:], 0)
	return n != 0 || err != nil
}
