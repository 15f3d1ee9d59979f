//go:build linux

package engine_test

import (
	"net"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// The engine's ends of connections, as the kernel sees them: all of them belong to this process.

// gateEnd finds the descriptor of the other end of one of our connections; -1 if it has none.
func gateEnd(c net.Conn) int {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return -1
	}
	want := c.RemoteAddr().(*net.TCPAddr)
	peer := c.LocalAddr().(*net.TCPAddr)
	for fd := range int(min(limit.Cur, 4096)) {
		if at(unix.Getsockname(fd)) == want.Port && at(unix.Getpeername(fd)) == peer.Port {
			return fd
		}
	}
	return -1
}

// at is the port of an address; 0 if there is none.
func at(a unix.Sockaddr, err error) int {
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		if err == nil {
			return a.Port
		}
	case *unix.SockaddrInet6:
		if err == nil {
			return a.Port
		}
	}
	return 0
}

// unread is how many bytes of what we have sent the engine has not read; -1 if it has no such connection.
func unread(c net.Conn) int {
	n, err := unix.IoctlGetInt(gateEnd(c), unix.SIOCINQ)
	if err != nil {
		return -1
	}
	return n
}

// widen lets much wait for the engine before it is read.
func widen(t testing.TB, c net.Conn) {
	t.Helper()
	if err := unix.SetsockoptInt(gateEnd(c), unix.SOL_SOCKET, unix.SO_RCVBUF, 200<<10); err != nil {
		t.Fatal(err)
	}
}

// narrow leaves the engine hardly any room for what it sends us.
func narrow(t testing.TB, c net.Conn) {
	t.Helper()
	if err := unix.SetsockoptInt(gateEnd(c), unix.SOL_SOCKET, unix.SO_SNDBUF, 1); err != nil {
		t.Fatal(err)
	}
}

// narrowReader is a Control that makes a connection, or those of a listener, take hardly anything before it is read.
func narrowReader(_, _ string, c syscall.RawConn) (err error) {
	if problem := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 1) }); problem != nil {
		return problem
	}
	return err
}

// full reports whether a socket takes nothing more at the moment.
func full(fd int) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n == 0
}

// isFull is full for an end of ours.
func isFull(c *net.TCPConn) (is bool) {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	return raw.Control(func(fd uintptr) { is = full(int(fd)) }) == nil && is
}

// running reports whether a goroutine is in that function.
func running(function string) bool {
	for size := 1 << 20; ; size *= 2 {
		stacks := make([]byte, size)
		if n := runtime.Stack(stacks, true); n < size {
			return strings.Contains(string(stacks[:n]), function)
		}
	}
}
