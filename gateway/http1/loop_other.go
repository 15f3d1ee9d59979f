//go:build !linux

package http1

import (
	"errors"
	"net"
	"syscall"
)

// A loop needs epoll.
type loop struct{ ended chan struct{} }

func newLoop(*Engine) (*loop, error) { return nil, errors.ErrUnsupported }

func (*loop) put(*Conn) bool { return false }
func (*loop) close()         {}

// A Socket is for loops.
type Socket struct{}

// NewSocket returns c.
func NewSocket(c net.Conn) net.Conn { return c }

func socketOf(syscall.RawConn) *Socket { return nil }
