package wire

import (
	"errors"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Poller reports what happens to the detached sockets of one loop: epoll, edge-triggered. It knows no protocol.
//
// A loop waits within Go's own poller, in which the epoll descriptor is one of many, so that a waiting loop holds no
// thread. All methods except Wake are for the loop's goroutine.
type Poller struct {
	file   *os.File        // the epoll descriptor
	fd     int             // its number
	raw    syscall.RawConn // of file
	events []Event         // of the last Look
	woken  bool

	mu     sync.Mutex
	wakeup int // an eventfd; -1: the poller is closed
}

// An Event is what the poller reports of one socket.
type Event unix.EpollEvent

// Slot and Generation are those that Add was given.
func (e *Event) Slot() uint32 { return uint32(e.Fd) }

// Generation tells a socket from those that had its slot before.
func (e *Event) Generation() uint32 { return uint32(e.Pad) }

// Happened is what to add up over a socket's events until it is acted on.
func (e *Event) Happened() Happened { return Happened(e.Events) }

// Happened is what was reported of a socket; zero: nothing.
type Happened uint32

// Ended reports whether the other end has closed the connection, or its half of it.
func (h Happened) Ended() bool { return h&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 }

const wakeSlot = ^uint32(0)

// NewPoller returns a Poller without sockets.
func NewPoller() (*Poller, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	wakeup, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		unix.Close(epoll)
		return nil, os.NewSyscallError("eventfd", err)
	}
	_ = unix.SetNonblock(epoll, true) // so that Go's poller takes it; SetReadDeadline below fails if it does not
	p := &Poller{file: os.NewFile(uintptr(epoll), "epoll"), fd: epoll, wakeup: wakeup}
	event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: -1, Pad: -1}
	if err = os.NewSyscallError("epoll_ctl", unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, wakeup, &event)); err == nil {
		p.raw, err = p.file.SyscallConn()
	}
	if err == nil {
		err = p.file.SetReadDeadline(time.Now().Add(time.Hour))
	}
	if err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// Close ends the Poller. Wake does nothing from now on: the descriptor's number may soon be another's.
func (p *Poller) Close() {
	p.file.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	unix.Close(p.wakeup)
	p.wakeup = -1
}

// Wake makes Wait and Woken return. Anyone may call it.
func (p *Poller) Wake() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.wakeup >= 0 {
		_, _ = unix.Write(p.wakeup, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // not zero in any byte order
	}
}

// Add watches a socket.
func (p *Poller) Add(fd int, slot, generation uint32) error {
	event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLET, Fd: int32(slot), Pad: int32(generation)}
	return unix.EpollCtl(p.fd, unix.EPOLL_CTL_ADD, fd, &event)
}

// Remove ends Add.
func (p *Poller) Remove(fd int) { _ = unix.EpollCtl(p.fd, unix.EPOLL_CTL_DEL, fd, nil) }

// Wait calls round until it returns true, and between two calls waits for events, for d at most. Events that arrive
// during a round end the wait after it.
func (p *Poller) Wait(d time.Duration, round func() (over bool)) {
	_ = p.file.SetReadDeadline(time.Now().Add(d))
	_ = p.raw.Read(func(uintptr) bool { return round() })
}

// Look returns what has happened so far, of at most that many sockets. It never waits, so the scheduler is not told of
// the system call: it would take it for one that may, and start another thread.
func (p *Poller) Look(most int) ([]Event, error) {
	if cap(p.events) < most+1 {
		p.events = make([]Event, most+1, 2*(most+1))
	}
	room := p.events[:cap(p.events)]
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.fd), uintptr(unsafe.Pointer(unsafe.SliceData(room))), uintptr(len(room)), 0, 0, 0)
	if errno != 0 {
		if errno == unix.EINTR {
			return nil, nil
		}
		return nil, errno
	}
	events := room[:n]
	for i := range events {
		if events[i].Slot() == wakeSlot {
			var count [8]byte
			_, _ = unix.Read(p.wakeup, count[:])
			p.woken = true
			events[i] = events[len(events)-1]
			return events[:len(events)-1], nil
		}
	}
	return events, nil
}

// Woken reports, once, that Wake was called.
func (p *Poller) Woken() bool {
	woken := p.woken
	p.woken = false
	return woken
}

// errNothing is a read or a write that would have to wait.
var errNothing = errors.New("it would have to wait")

// read reads what is there.
func read(fd int, p []byte) (int, error) { return transfer(unix.SYS_READ, fd, p) }

// write writes what the socket takes at once.
func write(fd int, p []byte) (int, error) { return transfer(unix.SYS_WRITE, fd, p) }

// transfer is a system call on a socket that does not block, so the scheduler is not told of it, as in Look.
func transfer(call uintptr, fd int, p []byte) (int, error) {
	for {
		n, _, err := unix.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
		switch err {
		case 0:
			return int(n), nil
		case unix.EINTR:
		case unix.EAGAIN:
			return 0, errNothing
		default:
			return 0, err
		}
	}
}
