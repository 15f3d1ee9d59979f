//go:build !linux

package wire

import "syscall"

// gone reports false: on this system only a write reveals that the other end has gone.
func gone(syscall.RawConn) bool { return false }
