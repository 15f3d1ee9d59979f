//go:build !unix

package wire

import "syscall"

// A probe looks at a socket.
type probe struct{}

// readable reports false: this system has no probe.
func (*probe) readable(syscall.RawConn) bool { return false }
