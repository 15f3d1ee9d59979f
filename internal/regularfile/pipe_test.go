//go:build unix

package regularfile_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"sallyport/internal/regularfile"
)

// A pipe without a writer blocks whoever opens it: only the arguments of a command may be one.
func TestPipe(t *testing.T) {
	pipe, link := filepath.Join(t.TempDir(), "pipe"), filepath.Join(t.TempDir(), "link")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(pipe, link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{pipe, link, "/dev/null"} {
		if data, err := regularfile.Read(path, 8); err == nil || err.Error() != "not a regular file" {
			t.Errorf("Read(%s): %q, %v", path, data, err)
		}
	}
	for _, c := range []struct{ content, want, err string }{
		{"12345678", "12345678", ""},
		{"123456789", "", "larger than 8 bytes"},
	} {
		go func() { _ = os.WriteFile(pipe, []byte(c.content), 0) }() // ends when it is read
		got, err := regularfile.ReadArgument(pipe, 8)
		if string(got) != c.want || (err == nil) != (c.err == "") || err != nil && err.Error() != c.err {
			t.Errorf("%s: %q, %v; want %q, %s", c.content, got, err, c.want, c.err)
		}
	}
}
