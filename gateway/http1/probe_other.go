//go:build !unix

package http1

import "syscall"

// A probe looks at a socket.
type probe struct{}

// readable tells whether something has come that has not been read. Here nothing tells.
func (*probe) readable(syscall.RawConn) bool { return false }
