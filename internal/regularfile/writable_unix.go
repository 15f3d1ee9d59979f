//go:build unix

package regularfile

import "golang.org/x/sys/unix"

func mayWrite(path string, folder bool) error {
	mode := uint32(unix.W_OK)
	if folder {
		mode |= unix.X_OK
	}
	return unix.Access(path, mode)
}
