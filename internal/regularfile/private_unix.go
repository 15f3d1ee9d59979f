//go:build unix

package regularfile

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// private reports why a file is not its user's alone.
func private(info fs.FileInfo) error {
	if mode := info.Mode().Perm(); mode&^0o600 != 0 {
		return fmt.Errorf("its mode is %04o, and others may use it: chmod 600", mode)
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); !ok || stat.Uid != 0 && int(stat.Uid) != os.Geteuid() {
		return fmt.Errorf("it belongs to another user: only this one, number %d, may have made it", os.Geteuid())
	}
	return nil
}
