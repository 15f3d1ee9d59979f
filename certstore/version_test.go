package certstore_test

import (
	"errors"
	"io/fs"
	"os"
	"testing"

	"sallyport/certstore"
)

// A database that is away is an error as long as it is, and no change; what changed meanwhile shows when it is back.
func TestVersionSurvives(t *testing.T) {
	path := newFile(t)
	s := open(t, "sqlite:"+path, certstore.Options{})
	before, err := s.Version(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := s.Version(t.Context()); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("away: %v", err)
		}
	}
	if err := os.Rename(path+".away", path); err != nil {
		t.Fatal(err)
	}
	back, err := s.Version(t.Context())
	if err != nil || back != before {
		t.Errorf("back: version %d instead of %d, %v", back, before, err)
	}
	add(t, open(t, "sqlite:"+path, certstore.Options{}), newClient(t, "acme"))
	if after, err := s.Version(t.Context()); err != nil || after == back {
		t.Errorf("the version stayed %d, %v", after, err)
	}
}

// A database that only an older program has opened has no mark: its version changes with everything that does.
func TestVersionOfOldTables(t *testing.T) {
	path := newFile(t)
	s := open(t, "sqlite:"+path, certstore.Options{})
	raw := rawSQL(t, path)
	mustExec(t, raw, `DROP TABLE SALLYPORT_CHANGE`)
	for _, trigger := range []string{"AM_API", "AM_API_CLIENT_CERTIFICATE"} {
		for _, event := range []string{"INSERTED", "UPDATED", "DELETED"} {
			mustExec(t, raw, `DROP TRIGGER `+trigger+`_`+event)
		}
	}
	old := open(t, "sqlite:"+path, certstore.Options{ReadOnly: true})
	before, err := old.Version(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if again, err := old.Version(t.Context()); err != nil || again != before {
		t.Errorf("the version went from %d to %d by itself, %v", before, again, err)
	}
	add(t, s, newClient(t, "acme"))
	if after, err := old.Version(t.Context()); err != nil || after == before {
		t.Errorf("the version stayed %d, %v", after, err)
	}
}
