package regularfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// OpenPrivate opens a regular file to read it that nobody but this process's user, and root, may read or write. Anything
// else is an error, at once. The error does not name path.
func OpenPrivate(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|nonblock, 0)
	if err != nil {
		return nil, cause(err)
	}
	info, err := f.Stat()
	switch {
	case err != nil:
		err = cause(err)
	case !info.Mode().IsRegular():
		err = errKind
	default:
		err = private(info)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Replace makes a file of mode 0600 of what write writes, on the disk when it returns nil; until then, and after an
// error, the file is as it was. What is written meanwhile is at path with ".new" added. The errors do not name path.
func Replace(path string, write func(io.Writer) error) error {
	temp := path + ".new"
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) { // of a process that was killed
		return fmt.Errorf("%s: %w", temp, cause(err))
	}
	f, err := os.OpenFile(temp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return cause(err)
	}
	err = write(f)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		_ = os.Remove(temp)
		return cause(err)
	}
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return cause(err)
	}
	defer folder.Close()
	return cause(folder.Sync())
}
