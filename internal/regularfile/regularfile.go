// Package regularfile reads the files that people name, whole and bounded.
package regularfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// Read returns the content of the regular file at path, which may have up to most bytes. It follows symbolic links,
// which Kubernetes mounts files behind. Anything except a regular file is an error, at once: a pipe would block its
// reader.
//
// The error does not name path, so that the caller can name it as the user wrote it. It matches fs.ErrNotExist and the
// like.
func Read(path string, most int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|nonblock, 0)
	if err != nil {
		return nil, cause(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, cause(err)
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	return readAll(f, info.Size(), most)
}

// ReadArgument is Read for a file that is named on a command line, where a pipe is as good: /dev/stdin, or
// <(openssl x509 …). It waits for the end of a pipe.
func ReadArgument(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, cause(err)
	}
	defer f.Close()
	return readAll(f, 0, most)
}

// readAll reads f, which probably has size bytes.
func readAll(f *os.File, size, most int64) ([]byte, error) {
	var data bytes.Buffer
	data.Grow(int(min(size, most)) + bytes.MinRead) // so that nothing grows while it is read
	if _, err := data.ReadFrom(io.LimitReader(f, most+1)); err != nil {
		return nil, cause(err)
	}
	if int64(data.Len()) > most {
		return nil, fmt.Errorf("larger than %d bytes", most)
	}
	return data.Bytes(), nil
}

// cause is err without the path.
func cause(err error) error {
	if path := (*fs.PathError)(nil); errors.As(err, &path) {
		return path.Err
	}
	return err
}
