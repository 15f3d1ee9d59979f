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

// TestAppend: a file is made or appended to; what is none is an error at once, whether or not somebody reads a pipe.
func TestAppend(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, want := range []string{"a", "aa"} {
		if err := regularfile.CheckAppend(at("log")); err != nil {
			t.Errorf("CheckAppend: %v", err)
		}
		f, err := regularfile.Append(at("log"), 0o600)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = f.WriteString("a")
		f.Close()
		if got, _ := os.ReadFile(at("log")); string(got) != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	for _, name := range []string{"pipe", "read"} {
		if err := syscall.Mkfifo(at(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	reader, err := os.OpenFile(at("read"), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	for _, path := range []string{at("pipe"), at("read"), dir, "/dev/zero", "/dev/full"} {
		if err := regularfile.CheckAppend(path); err == nil || err.Error() != "not a regular file" {
			t.Errorf("CheckAppend(%s): %v", path, err)
		}
		if f, err := regularfile.Append(path, 0o600); err == nil || err.Error() != "not a regular file" {
			f.Close()
			t.Errorf("Append(%s): %v", path, err)
		}
	}
	f, err := regularfile.Append(os.DevNull, 0o600)
	if err != nil || regularfile.CheckAppend(os.DevNull) != nil {
		t.Errorf("what takes everything: %v, %v", err, regularfile.CheckAppend(os.DevNull))
	}
	f.Close()
	own, err := os.Stdout.Stat()
	if there, again := os.Stat("/dev/stdout"); err != nil || again != nil || !os.SameFile(own, there) {
		t.Skip("this system has no name for the standard output")
	}
	if err := regularfile.CheckAppend("/dev/stdout"); err != nil {
		t.Errorf("the standard output by name: %v", err)
	}
}
