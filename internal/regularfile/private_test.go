//go:build unix

package regularfile_test

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"sallyport/internal/regularfile"
)

func TestOpenPrivate(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for name, mode := range map[string]fs.FileMode{"own": 0o600, "read": 0o400, "group": 0o640, "all": 0o604, "run": 0o700} {
		if err := errors.Join(os.WriteFile(at(name), []byte("x"), 0o600), os.Chmod(at(name), mode)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Symlink("own", at("link")), syscall.Mkfifo(at("pipe"), 0o600)); err != nil {
		t.Fatal(err)
	}
	wrong := map[string]string{"group": "0640", "all": "0604", "run": "0700", "pipe": "not a regular file", ".": "not a regular file", "none": "no such file"}
	if os.Geteuid() == 0 {
		if err := errors.Join(os.WriteFile(at("foreign"), nil, 0o600), os.Chown(at("foreign"), 12345, -1)); err != nil {
			t.Fatal(err)
		}
		wrong["foreign"] = "another user"
	}
	for _, name := range []string{"own", "read", "link"} {
		f, err := regularfile.OpenPrivate(at(name))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		f.Close()
	}
	for name, words := range wrong {
		if f, err := regularfile.OpenPrivate(at(name)); err == nil || !strings.Contains(err.Error(), words) || strings.Contains(err.Error(), dir) {
			f.Close()
			t.Errorf("%s: %v, want %q", name, err, words)
		}
	}
}

// TestReplace: a file is replaced whole, or stays what it was, and nothing else is left.
func TestReplace(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	say := func(text string, err error) func(io.Writer) error {
		return func(w io.Writer) error {
			_, failed := io.WriteString(w, text)
			return errors.Join(failed, err)
		}
	}
	is := func(want string) {
		t.Helper()
		got, err := os.ReadFile(file)
		if err != nil || string(got) != want {
			t.Errorf("%q, %v; want %q", got, err, want)
		}
		info, err := os.Stat(file)
		list, again := os.ReadDir(dir)
		if err != nil || again != nil || info.Mode().Perm() != 0o600 || len(list) != 1 {
			t.Errorf("mode %v, in the folder %v; %v, %v", info.Mode(), list, err, again)
		}
	}
	if err := regularfile.Replace(file, say("first", nil)); err != nil {
		t.Fatal(err)
	}
	is("first")
	errFull := errors.New("the disk is full")
	if err := regularfile.Replace(file, say("sec", errFull)); !errors.Is(err, errFull) {
		t.Error(err)
	}
	is("first")
	if err := errors.Join(os.Chmod(file, 0o644), os.WriteFile(file+".new", []byte("of one that was killed"), 0o644)); err != nil {
		t.Fatal(err)
	}
	if err := regularfile.Replace(file, say("third", nil)); err != nil {
		t.Fatal(err)
	}
	is("third")
	if err := regularfile.Replace(filepath.Join(dir, "none", "file"), say("", nil)); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}
