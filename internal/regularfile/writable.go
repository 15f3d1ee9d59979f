package regularfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Writable reports why this process could not write the file at path, or make it if there is none. It opens and makes
// nothing.
func Writable(path string) error {
	switch _, err := os.Stat(path); {
	case err == nil:
		return mayWrite(path, false)
	case !errors.Is(err, fs.ErrNotExist):
		return cause(err)
	}
	return WritableFolder(filepath.Dir(path))
}

// WritableFolder reports why this process could not make files in a folder.
func WritableFolder(path string) error {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return fmt.Errorf("folder %s: %w", path, cause(err))
	case !info.IsDir():
		return fmt.Errorf("%s is no folder", path)
	}
	if err := mayWrite(path, true); err != nil {
		return fmt.Errorf("folder %s: %w", path, err)
	}
	return nil
}
