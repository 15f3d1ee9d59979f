// Package fileset is the files of a folder as one value: read with bounds, sealed for a store, and put in the place of a
// folder so that they are seen all together or not at all.
package fileset

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
)

// Bounds of a Set.
const (
	MaxFiles = 1000
	MaxFile  = 4 << 20  // bytes
	MaxBytes = 32 << 20 // of all files together
	maxPath  = 255
	maxDepth = 16
)

// A File is one file of a Set.
type File struct {
	Path    string // relative, with slashes; see CheckPath
	Content []byte
}

// A Set is files with different paths, sorted by them.
type Set []File

// NewSet makes a Set of files in any order. What is out of bounds is an error.
func NewSet(files []File) (Set, error) {
	s := Set(slices.SortedFunc(slices.Values(files), func(a, b File) int { return cmp.Compare(a.Path, b.Path) }))
	total, folders := 0, map[string]bool{}
	for _, f := range s {
		for folder := path.Dir(f.Path); folder != "." && folder != "/"; folder = path.Dir(folder) {
			folders[folder] = true
		}
	}
	for i, f := range s {
		if err := CheckPath(f.Path); err != nil {
			return nil, err
		}
		total += len(f.Content)
		switch {
		case folders[f.Path], i > 0 && s[i-1].Path == f.Path:
			return nil, fmt.Errorf("%s: another file or folder has that name", f.Path)
		case len(f.Content) > MaxFile:
			return nil, fmt.Errorf("%s: %w", f.Path, errLarge)
		}
	}
	switch {
	case len(s) == 0:
		return nil, errors.New("it holds no files")
	case len(s) > MaxFiles:
		return nil, fmt.Errorf("more than %d files", MaxFiles)
	case total > MaxBytes:
		return nil, fmt.Errorf("more than %d bytes in all files together", MaxBytes)
	}
	return s, nil
}

// CheckPath reports why a path can't be one of a Set: it is relative and plain, and each name in it is of ASCII letters,
// digits, spaces within and -_.,+=@~, and does not begin with a dot. So it means the same on every system and in every
// database.
func CheckPath(p string) error {
	names := strings.Split(p, "/")
	ok := len(p) <= maxPath && len(names) <= maxDepth
	for _, name := range names {
		ok = ok && name != "" && name[0] != '.' && strings.TrimSpace(name) == name && !strings.ContainsFunc(name, odd)
	}
	if !ok {
		return fmt.Errorf("%q: a file's name is of letters, digits, spaces and -_.,+=@~, does not begin with a dot, "+
			"and has at most %d characters with its folders", p, maxPath)
	}
	return nil
}

func odd(r rune) bool {
	letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
	return !letter && !strings.ContainsRune(" -_.,+=@~", r)
}

// Read reads the files in a folder and the folders below it. Names that begin with a dot are left out, as editors' and
// version control's are. A symbolic link is followed to a file within the folder, as Kubernetes makes them; anything else
// that is no regular file is an error, and what is out of bounds.
func Read(dir string) (Set, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("%w: name the folder that holds the files", cause(err))
	}
	defer root.Close()
	var files []File
	total := int64(0)
	err = fs.WalkDir(root.FS(), ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return fmt.Errorf("%s: %w", name, cause(err))
		case name == ".":
			return nil
		case strings.HasPrefix(entry.Name(), "."):
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		case entry.IsDir():
			return nil
		}
		if err := CheckPath(name); err != nil {
			return err
		}
		content, err := readFile(root, name)
		if err != nil && entry.Type()&fs.ModeSymlink != 0 {
			return fmt.Errorf("%s: a link that leads to no file in this folder (%w): put the file itself there", name, cause(err))
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, cause(err))
		}
		files = append(files, File{name, content})
		if total += int64(len(content)); len(files) > MaxFiles || total > MaxBytes {
			return fs.SkipAll // NewSet says it
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return NewSet(files)
}

func readFile(root *os.Root, name string) ([]byte, error) {
	info, err := root.Stat(name) // before it is opened: a pipe would block
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	if err == nil && len(content) > MaxFile {
		err = errLarge
	}
	return content, err
}

var errLarge = fmt.Errorf("larger than %d bytes", MaxFile)

// cause is err without the path.
func cause(err error) error {
	if p := (*fs.PathError)(nil); errors.As(err, &p) {
		return p.Err
	}
	return err
}

// Size is how many bytes all files have together.
func (s Set) Size() (n int) {
	for _, f := range s {
		n += len(f.Content)
	}
	return n
}

// sum writes the version and the files to a hash, each with its length, so that no two Sets collide.
func (s Set) sum(h hash.Hash, version int) []byte {
	number := func(n int) {
		var b [8]byte
		binary.BigEndian.PutUint64(b[:], uint64(n))
		h.Write(b[:]) // never fails
	}
	number(version)
	for _, f := range s {
		number(len(f.Path))
		io.WriteString(h, f.Path)
		number(len(f.Content))
		h.Write(f.Content)
	}
	return h.Sum(nil)
}

// plain is a digest that anybody can make.
func (s Set) plain(version int) string { return fmt.Sprintf("%x", s.sum(sha256.New(), version)) }
