package fileset

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sallyport/internal/regularfile"
)

// A Version says which Set a folder holds. Its zero value is none.
type Version struct {
	Number int    `json:"version"`
	Digest string `json:"digest"` // that the store has for it
}

// A Folder is a path at which one Set or another is seen. It is a symbolic link to a folder beside it, and a new Set is
// put there by one rename of the link, after all of it is on the disk: so nobody ever sees half of one, whatever happens
// meanwhile. The path must be absolute.
type Folder string

const (
	// MarkFile tells in each version's folder which it is. It begins with a dot: it can't be one of the Set's.
	MarkFile = ".sallyport-version"
	maxMark  = 4096
)

// A mark is the content of MarkFile.
type mark struct {
	Version
	Sum string `json:"sum"` // of the files as they were written
}

// ParseMark reads the content of a MarkFile.
func ParseMark(data []byte) (Version, error) {
	m, err := parseMark(data)
	return m.Version, err
}

func parseMark(data []byte) (m mark, err error) {
	if err := json.Unmarshal(data, &m); err != nil || m.Number < 1 {
		return mark{}, errors.New("it does not say which version of the configuration this is")
	}
	return m, nil
}

// versions is where the folders are that the link leads to.
func (f Folder) versions() string { return string(f) + ".versions" }

// Holds returns the version that is in the folder, of which every file is as it was written. That there is none is an
// error that matches fs.ErrNotExist.
func (f Folder) Holds() (Version, error) {
	if err := f.ours(); err != nil {
		return Version{}, err
	}
	data, err := regularfile.Read(filepath.Join(string(f), MarkFile), maxMark)
	if err != nil {
		return Version{}, fmt.Errorf("%s: %w", f, err)
	}
	m, err := parseMark(data)
	if err != nil {
		return Version{}, fmt.Errorf("%s: %w", f, err)
	}
	s, err := Read(string(f))
	if err != nil {
		return Version{}, fmt.Errorf("%s: %w", f, err)
	}
	if s.plain(m.Number) != m.Sum {
		return Version{}, fmt.Errorf("%s: its files are not those of version %d as they were written", f, m.Number)
	}
	return m.Version, nil
}

// ours reports what is in the link's place instead of a link of ours.
func (f Folder) ours() error {
	target, err := os.Readlink(string(f))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s: %w", f, fs.ErrNotExist)
	case err != nil || filepath.Dir(target) != filepath.Base(f.versions()):
		return fmt.Errorf("%s: something else is there: move it away, and the files of the store take its place", f)
	}
	return nil
}

// Put makes the folder hold a Set as that version. What it held before stays beside it, and what Vouch was called for;
// others are removed.
// Several processes may do so at once.
func (f Folder) Put(v Version, s Set) error {
	if err := f.put(v, s); err != nil {
		return fmt.Errorf("write version %d of the configuration to this node: %w", v.Number, err)
	}
	return nil
}

func (f Folder) put(v Version, s Set) error {
	if err := f.ours(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Mkdir(f.versions(), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return f.locked(func() error {
		last, _ := os.Readlink(string(f))
		good, _ := os.Readlink(f.good())
		next, err := os.MkdirTemp(f.versions(), fmt.Sprintf("%d-", v.Number))
		if err != nil {
			return err
		}
		f.clean(filepath.Base(next), filepath.Base(last), good) // what a killed process has left
		if err := write(next, v, s); err != nil {
			return errors.Join(err, os.RemoveAll(next))
		}
		return f.show(filepath.Base(next))
	})
}

// locked calls f while no other process is in it.
func (f Folder) locked(do func() error) error {
	lock, err := os.OpenFile(filepath.Join(f.versions(), "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := lockFile(lock); err != nil {
		return err
	}
	return do()
}

// show has the link lead to a version.
func (f Folder) show(name string) error {
	return f.link(string(f), filepath.Join(filepath.Base(f.versions()), name))
}

// link makes a symbolic link, in the place of another one. The disk has it when it returns.
func (f Folder) link(path, target string) error {
	next := filepath.Join(f.versions(), "link")
	if err := os.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(target, next); err != nil {
		return err
	}
	if err := sync(f.versions()); err != nil {
		return err
	}
	if err := os.Rename(next, path); err != nil {
		return err
	}
	return sync(filepath.Dir(path))
}

// good is a link to the version that Vouch was called for.
func (f Folder) good() string { return filepath.Join(f.versions(), "good") }

// Vouch says that what the folder holds is good. It is kept until another version is good.
func (f Folder) Vouch() error {
	if f.Vouched() {
		return nil
	}
	err := f.ours()
	if err == nil {
		err = f.locked(func() error {
			held, err := os.Readlink(string(f))
			if err != nil {
				return err
			}
			return f.link(f.good(), filepath.Base(held))
		})
	}
	if err != nil {
		return fmt.Errorf("remember which version of the configuration is good: %w", err)
	}
	return nil
}

// Vouched reports whether Vouch was called for what the folder holds.
func (f Folder) Vouched() bool {
	held, err := os.Readlink(string(f))
	good, missing := os.Readlink(f.good())
	return err == nil && missing == nil && filepath.Base(held) == good
}

// Revert makes the folder hold the version again that Vouch was called for last.
func (f Folder) Revert() error {
	err := f.ours()
	if err == nil {
		err = f.locked(func() error {
			good, err := os.Readlink(f.good())
			if err != nil {
				return err
			}
			return f.show(filepath.Base(good))
		})
	}
	if err != nil {
		return fmt.Errorf("go back to the version of the configuration that was good: %w", err)
	}
	return nil
}

// clean removes all versions but some. What can't be removed is left to the next time.
func (f Folder) clean(keep ...string) {
	entries, _ := os.ReadDir(f.versions())
	for _, e := range entries {
		if e.Name() != "lock" && e.Name() != "good" && !slices.Contains(keep, e.Name()) {
			_ = os.RemoveAll(filepath.Join(f.versions(), e.Name()))
		}
	}
}

// write makes a Set's files in an empty folder, to be read by this user alone, and waits until the disk has them.
func write(dir string, v Version, s Set) error {
	if err := s.Write(dir); err != nil {
		return err
	}
	content, err := json.Marshal(mark{v, s.plain(v.Number)})
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := writeFile(root, MarkFile, content); err != nil {
		return err
	}
	return filepath.WalkDir(dir, func(name string, _ fs.DirEntry, err error) error {
		if err == nil {
			err = sync(name)
		}
		return err
	})
}

// Write makes the files in an empty folder, to be read by this user alone.
func (s Set) Write(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, f := range s {
		if err := CheckPath(f.Path); err != nil {
			return err
		}
		if at := strings.LastIndexByte(f.Path, '/'); at > 0 {
			if err := root.MkdirAll(f.Path[:at], 0o700); err != nil {
				return err
			}
		}
		if err := writeFile(root, f.Path, f.Content); err != nil {
			return err
		}
	}
	return nil
}

func writeFile(root *os.Root, name string, content []byte) error {
	file, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	return errors.Join(err, file.Close())
}

// sync waits until the disk has a file, or which files a folder has.
func sync(name string) error {
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}
