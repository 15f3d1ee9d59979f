package quickstart

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"sallyport/internal/regularfile"
)

// fileLock is held while a quickstart runs in the folder: a second one would move the ports of the first.
const fileLock = ".lock"

// errHeld is lockFile's for a file that another process has locked.
var errHeld = errors.New("held by another process")

// lock takes the folder for this process until the returned file is closed. The system releases it when the process
// ends, however it ends.
func (f *folder) lock() (*os.File, error) {
	file, err := os.OpenFile(f.path(fileLock), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("taking %s: %w", f.shown, err)
	}
	switch err := lockFile(file); {
	case errors.Is(err, errHeld):
		file.Close()
		return nil, fmt.Errorf("%w: a quickstart runs in %s already%s: use that one, stop it, "+
			"or name another folder with --dir and other ports with --port-offset", ErrUsage, f.shown, f.holder())
	case err != nil:
		return nil, errors.Join(fmt.Errorf("taking %s: %w", f.shown, err), file.Close())
	}
	err = file.Truncate(0)
	if err == nil {
		_, err = fmt.Fprintln(file, os.Getpid())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("taking %s: %w", f.shown, err), file.Close())
	}
	return file, nil
}

// holder names the process that has the lock, if it can be told.
func (f *folder) holder() string {
	data, err := regularfile.Read(f.path(fileLock), 64)
	if err != nil {
		return ""
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return ""
	}
	return fmt.Sprintf(" (process %d)", pid)
}
