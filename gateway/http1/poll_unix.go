//go:build unix && !linux

package http1

import "golang.org/x/sys/unix"

// pollNow tells whether what is looked for is there, or cannot be looked for.
func pollNow(fds *[1]unix.PollFd) bool {
	n, err := unix.Poll(fds[:], 0)
	return n != 0 || err != nil
}
