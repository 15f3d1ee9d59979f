package load

import (
	"os"
	"syscall"
	"time"
	"unsafe"
)

// A timer is a timerfd in Go's poller. It wakes the pacer on time; Go's own timers are rounded up to whole milliseconds
// while the process is idle.
type timer struct{ file *os.File }

func newClock(every time.Duration) clock {
	const monotonic, nonblock, cloexec = 1, syscall.O_NONBLOCK, syscall.O_CLOEXEC
	fd, _, errno := syscall.Syscall(syscall.SYS_TIMERFD_CREATE, monotonic, nonblock|cloexec, 0)
	if errno != 0 {
		return newTicker(every)
	}
	t := &timer{os.NewFile(fd, "timerfd")}
	spec := [2]syscall.Timespec{syscall.NsecToTimespec(int64(every)), syscall.NsecToTimespec(int64(every))}
	_, _, errno = syscall.Syscall6(syscall.SYS_TIMERFD_SETTIME, fd, 0, uintptr(unsafe.Pointer(&spec)), 0, 0, 0)
	if errno != 0 {
		t.close()
		return newTicker(every)
	}
	return t
}

func (t *timer) wait() error {
	var missed [8]byte
	_, err := t.file.Read(missed[:])
	return err
}

func (t *timer) close() { t.file.Close() }
