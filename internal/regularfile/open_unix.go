//go:build unix

package regularfile

import "syscall"

// nonblock makes the opening of a pipe return at once instead of waiting for a writer.
const nonblock = syscall.O_NONBLOCK
