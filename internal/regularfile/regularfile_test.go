package regularfile_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sallyport/internal/regularfile"
)

func TestRead(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for name, content := range map[string]string{"full": "12345678", "over": "123456789", "empty": ""} {
		if err := os.WriteFile(at(name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"link": "full", "chain": "link", "dangling": "nowhere", "loop": "loop", "to-folder": "."} {
		if err := os.Symlink(to, at(link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name, want, err string
		is              error
	}{
		{name: "full", want: "12345678"},
		{name: "empty"},
		{name: "link", want: "12345678"},
		{name: "chain", want: "12345678"},
		{name: "over", err: "larger than 8 bytes"},
		{name: ".", err: "not a regular file"},
		{name: "to-folder", err: "not a regular file"},
		{name: "nowhere", is: fs.ErrNotExist},
		{name: "dangling", is: fs.ErrNotExist},
		{name: "loop", err: "too many"},
		{name: "full/below", err: "not a directory"},
	} {
		got, err := regularfile.Read(at(c.name), 8)
		switch {
		case c.err == "" && c.is == nil:
			if err != nil || string(got) != c.want {
				t.Errorf("%s: %q, %v; want %q", c.name, got, err, c.want)
			}
		case err == nil || got != nil:
			t.Errorf("%s: %q, %v; want an error", c.name, got, err)
		case c.is != nil && !errors.Is(err, c.is), !strings.Contains(err.Error(), c.err), strings.Contains(err.Error(), dir):
			t.Errorf("%s: %v; want %q, %v, and no path", c.name, err, c.err, c.is)
		}
	}
}
