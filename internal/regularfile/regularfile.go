// Package regularfile opens the files that people name: to read them, whole and bounded, and to append to them.
package regularfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
)

// Read returns the content of the regular file at path, which may have up to most bytes. It follows symbolic links,
// which Kubernetes mounts files behind. Anything except a regular file is an error, at once: a pipe would block its
// reader.
//
// The error does not name path, so that the caller can name it as the user wrote it. It matches fs.ErrNotExist and the
// like.
func Read(path string, most int64) ([]byte, error) { return ReadPieces(path, most, func() {}) }

// ReadPieces is Read, and calls between after each 256 KiB.
func ReadPieces(path string, most int64, between func()) ([]byte, error) {
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
		return nil, errKind
	}
	return readAll(f, info.Size(), most, between)
}

// ReadArgument is Read for a file that is named on a command line, where a pipe is as good: /dev/stdin, or
// <(openssl x509 …). It waits for the end of a pipe.
func ReadArgument(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, cause(err)
	}
	defer f.Close()
	return readAll(f, 0, most, func() {})
}

// piece is how much of a file is read at once. The first touch of so much memory, and its clearing by bytes.Buffer, take
// a tenth of a second for a file of 50 MB, which Go's runtime can't interrupt: all other goroutines would wait.
const piece = 256 << 10

// readAll reads f, which probably has size bytes.
func readAll(f *os.File, size, most int64, between func()) ([]byte, error) {
	data := make([]byte, 0, min(size, most)+bytes.MinRead) // so that nothing grows while it is read
	for {
		n, err := f.Read(data[len(data):min(cap(data), len(data)+piece)])
		data = data[:len(data)+n]
		switch {
		case int64(len(data)) > most:
			return nil, fmt.Errorf("larger than %d bytes", most)
		case err == io.EOF:
			return data, nil
		case err != nil:
			return nil, cause(err)
		}
		if len(data) == cap(data) {
			data = slices.Grow(data, bytes.MinRead)
		}
		between()
	}
}

var errKind = errors.New("not a regular file")

// Append opens a file to append to, and makes it with that mode if it is not there. Anything except a regular file is an
// error, at once, except what is this process's standard output or error under another name, as /dev/stdout, and
// /dev/null. The error does not name path.
func Append(path string, mode fs.FileMode) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY|nonblock, mode)
	if err != nil {
		if CheckAppend(path) == errKind {
			err = errKind // a pipe without a reader, a folder
		}
		return nil, cause(err)
	}
	info, err := f.Stat()
	if err == nil {
		err = appendable(info)
	}
	if err != nil {
		f.Close()
		return nil, cause(err)
	}
	return f, nil
}

// CheckAppend reports whether what is at path is nothing that Append opens. It opens and makes nothing; that nothing is
// there is no error.
func CheckAppend(path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return cause(err)
	}
	return appendable(info)
}

func appendable(info fs.FileInfo) error {
	if info.Mode().IsRegular() {
		return nil
	}
	for _, own := range []*os.File{os.Stdout, os.Stderr} {
		if one, err := own.Stat(); err == nil && os.SameFile(one, info) {
			return nil
		}
	}
	if null, err := os.Stat(os.DevNull); err == nil && os.SameFile(null, info) {
		return nil
	}
	return errKind
}

// cause is err without the path.
func cause(err error) error {
	if path := (*fs.PathError)(nil); errors.As(err, &path) {
		return path.Err
	}
	return err
}
