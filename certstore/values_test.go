package certstore_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/certstore"
	"sallyport/certstore/certstoretest"
)

// A database that is gone does not say that its values are: whoever believed that would make new ones.
func TestValuesOfADatabaseThatIsGone(t *testing.T) {
	path := newFile(t)
	s := open(t, "sqlite:"+path, certstore.Options{})
	certstoretest.PutValue(t, s, "acme/key", "k")
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	later, err := certstore.Source{URL: "sqlite:" + filepath.Join(t.TempDir(), "none.db")}.Later(certstore.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer later.Close()
	for what, s := range map[string]*certstore.Store{"moved away": s, "never there": later} {
		_, read := s.Value(t.Context(), "acme/key")
		_, listed := s.Values(t.Context(), "acme")
		for call, err := range map[string]error{"value": read, "values": listed} {
			if err == nil || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "no such file") {
				t.Errorf("%s, %s: %v", what, call, err)
			}
		}
	}
	const secret = "abracadabra"
	_, acquired := s.AcquireLease(t.Context(), "issue", "a", time.Hour)
	for call, err := range map[string]error{
		"put": s.PutValue(t.Context(), "acme/key", []byte(secret)), "remove": s.RemoveValues(t.Context(), "acme"),
		"acquire": acquired, "release": s.ReleaseLease(t.Context(), "issue", "a"),
	} {
		if err == nil || errors.Is(err, fs.ErrNotExist) || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v", call, err)
		}
	}
	if err := os.Rename(path+".away", path); err != nil {
		t.Fatal(err)
	}
	certstoretest.ExpectValue(t, s, "acme/key", "k")
}

// What another program has written is read within bounds, and no error shows it.
func TestValuesOfAnotherProgram(t *testing.T) {
	path := newFile(t)
	s := open(t, "sqlite:"+path, certstore.Options{})
	raw := rawSQL(t, path)
	mustExec(t, raw, `INSERT INTO SALLYPORT_VALUE (NAME, CHANGED_AT, CONTENT) VALUES ('large', 0, zeroblob(?)), ('good', 0, x'6b')`,
		certstore.MaxValue+1)
	if v, err := s.Value(t.Context(), "large"); err == nil || v.Content != nil || !strings.Contains(err.Error(), fmt.Sprint(certstore.MaxValue)) {
		t.Errorf("%d bytes, %v", len(v.Content), err)
	}
	certstoretest.ExpectNames(t, s, "", "good", "large")
	certstoretest.ExpectValue(t, s, "good", "k")
	certstoretest.PutValue(t, s, "large", "small")
	certstoretest.ExpectValue(t, s, "large", "small")

	mustExec(t, raw, `CREATE TRIGGER REFUSED BEFORE UPDATE ON SALLYPORT_VALUE BEGIN SELECT RAISE(ABORT, 'refused'); END`)
	const secret = "abracadabra"
	if err := s.PutValue(t.Context(), "good", []byte(secret)); err == nil || strings.Contains(err.Error(), secret) {
		t.Errorf("put: %v", err)
	}
	certstoretest.ExpectValue(t, s, "good", "k")
}
