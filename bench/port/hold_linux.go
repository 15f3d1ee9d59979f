package port

import (
	"errors"
	"os"
	"syscall"
)

// hold binds a socket that never listens. It is bound without SO_REUSEADDR, so that the port is nobody else's, and gets it
// afterwards, so that a listener of which the same is true may share the port. Linux lends neither listeners nor clients
// a port that a socket is bound to by name.
func hold(number int) (*Held, error) {
	socket, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	let := func() error { return os.NewSyscallError("close", syscall.Close(socket)) }
	if err := syscall.Bind(socket, &syscall.SockaddrInet4{Port: number, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return nil, errors.Join(os.NewSyscallError("bind", err), let())
	}
	if err := syscall.SetsockoptInt(socket, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		return nil, errors.Join(os.NewSyscallError("setsockopt", err), let())
	}
	name, err := syscall.Getsockname(socket)
	if err != nil {
		return nil, errors.Join(os.NewSyscallError("getsockname", err), let())
	}
	at, ok := name.(*syscall.SockaddrInet4)
	if !ok {
		return nil, errors.Join(errors.New("not an IPv4 address"), let())
	}
	return &Held{number: at.Port, let: let}, nil
}
