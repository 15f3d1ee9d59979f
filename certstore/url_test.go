package certstore_test

import (
	"testing"

	"sallyport/certstore"
)

func TestURL(t *testing.T) {
	for _, c := range []struct {
		url, from, file string
		memory          bool
	}{
		{"sqlite:a.db", "sqlite:/etc/sallyport/a.db", "/etc/sallyport/a.db", false},
		{"sqlite:../x/a.db", "sqlite:/etc/x/a.db", "/etc/x/a.db", false},
		{"sqlite:/var//a.db", "sqlite:/var/a.db", "/var/a.db", false},
		{"sqlite:a b?c%20#d", "sqlite:/etc/sallyport/a b?c%20#d", "/etc/sallyport/a b?c%20#d", false},
		{"sqlite::memory:", "sqlite::memory:", "", true},
	} {
		u, err := certstore.ParseURL(c.url)
		if err != nil || u.String() != c.url {
			t.Errorf("%s: %s, %v", c.url, u, err)
		}
		u = u.From("/etc/sallyport")
		if u.String() != c.from || u.File() != c.file || u.InMemory() != c.memory {
			t.Errorf("%s: %s, file %q, in memory %t", c.url, u, u.File(), u.InMemory())
		}
		if again, err := certstore.ParseURL(u.String()); again != u || err != nil {
			t.Errorf("%s is read as %v, %v", u, again, err)
		}
	}
	if zero := (certstore.URL{}).From("/etc"); zero.String() != "" || zero.File() != "" || zero.InMemory() {
		t.Errorf("the zero URL is %q, file %q", zero, zero.File())
	}
}

// One in memory is made by whoever opens it, and is empty.
func TestReadOnlyInMemory(t *testing.T) {
	s, err := certstore.Open(t.Context(), "sqlite::memory:", certstore.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	clients, problems, err := s.List(t.Context())
	if len(clients) != 0 || len(problems) != 0 || err != nil {
		t.Errorf("%v, %v, %v", clients, problems, err)
	}
}
