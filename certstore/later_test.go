package certstore_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"sallyport/certstore"
)

// TestLater: a store whose database is away is opened by the first call that can, with its tables, whoever else calls.
func TestLater(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "folder")
	source := certstore.Source{URL: "sqlite:" + filepath.Join(folder, "certs.db")}
	s, err := source.Later(certstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Version(t.Context()); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "open store") {
		t.Errorf("while its folder is away: %v", err)
	}
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	clients := []certstore.Client{newClient(t, "a"), newClient(t, "b"), newClient(t, "c")}
	var all sync.WaitGroup
	for _, c := range clients {
		all.Go(func() { add(t, s, c) })
	}
	all.Wait()
	expectList(t, s, clients...)
	if err := s.Listen(t.Context(), func() { t.Error("SQLite tells of a change") }); err != nil {
		t.Errorf("listening where there is nothing to be heard: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, _, err := s.List(t.Context()); err == nil {
		t.Error("it lists after Close")
	}

	if s, err = source.Later(certstore.Options{}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := s.Version(t.Context()); err == nil {
		t.Error("it opens after Close")
	}
	if _, err := (certstore.Source{URL: "nowhere:"}).Later(certstore.Options{}); !errors.Is(err, certstore.ErrInvalid) {
		t.Errorf("of no database: %v", err)
	}
}
