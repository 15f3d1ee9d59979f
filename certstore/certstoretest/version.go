package certstoretest

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"sallyport/certstore"
)

func testVersion(t *testing.T, s *certstore.Store) {
	seen := []uint64{Version(t, s)}
	if v := Version(t, s); v != seen[0] {
		t.Errorf("the version went from %d to %d by itself", seen[0], v)
	}
	changed := func() {
		t.Helper()
		v := Version(t, s)
		if slices.Contains(seen, v) {
			t.Errorf("version %d was there before: %v", v, seen)
		}
		seen = append(seen, v)
	}
	Add(t, s, NewClient(t, "acme"))
	changed()
	List(t, s)
	if v := Version(t, s); v != seen[1] {
		t.Errorf("reading changed the version from %d to %d", seen[1], v)
	}
	if err := s.Update(t.Context(), Orders, certstore.Production, "acme", nil, "Silver", nil); err != nil {
		t.Fatal(err)
	}
	changed()
	if err := s.Remove(t.Context(), Orders, certstore.Production, "acme"); err != nil {
		t.Fatal(err)
	}
	changed()
}

// testChanged makes changes, each of which is told of once, when it can be read; what is refused is none.
func testChanged(t *testing.T, db Database) {
	var s *certstore.Store
	var listed []int
	s = Open(t, db.New(t), certstore.Options{Changed: func() { listed = append(listed, len(List(t, s))) }})
	Add(t, s, NewClient(t, "one"))
	Add(t, s, NewClient(t, "two"))
	if err := s.Add(t.Context(), NewClient(t, "two")); !errors.Is(err, certstore.ErrAliasTaken) {
		t.Error(err)
	}
	if err := s.Update(t.Context(), Orders, "", "one", nil, "Silver", nil); err != nil {
		t.Error(err)
	}
	if err := s.Remove(t.Context(), Orders, "", "one"); err != nil {
		t.Error(err)
	}
	if err := s.Remove(t.Context(), Orders, "", "one"); !errors.Is(err, certstore.ErrNotFound) {
		t.Error(err)
	}
	if want := []int{1, 2, 2, 1}; !slices.Equal(listed, want) {
		t.Errorf("there were %v clients when changes were told of, want %v", listed, want)
	}
}

// testVersionOther opens one database twice, as two processes do: what one changes shows in the other's Version, to
// everybody who asks.
func testVersionOther(t *testing.T, db Database) {
	url := db.New(t)
	s, other := Open(t, url, certstore.Options{}), Open(t, url, certstore.Options{})
	seen := []uint64{Version(t, s)}
	for range 20 {
		for _, change := range []func() error{
			func() error { return other.Add(t.Context(), NewClient(t, "acme")) },
			func() error { return other.Update(t.Context(), Orders, "", "acme", nil, "Silver", nil) },
			func() error { return other.Remove(t.Context(), Orders, "", "acme") },
		} {
			if err := change(); err != nil {
				t.Fatal(err)
			}
			v := Version(t, s)
			if slices.Contains(seen, v) || Version(t, s) != v {
				t.Errorf("version %d, then %d, after %v", v, Version(t, s), seen)
			}
			seen = append(seen, v)
		}
	}
	if len(List(t, s)) != 0 {
		t.Error("what was removed is still there")
	}
}

func testVersionClosed(t *testing.T, s *certstore.Store) {
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Version(t.Context()); err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("version: %v", err)
	}
}
