package certstoretest

import (
	"bytes"
	"cmp"
	"errors"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/certstore"
	"sallyport/internal/testpki"
)

// Deny puts denials on the list, which are new to it.
func Deny(t testing.TB, s *certstore.Store, denials ...certstore.Denial) {
	t.Helper()
	for _, d := range denials {
		if added, err := s.AddDenial(t.Context(), d); err != nil || !added {
			t.Fatalf("%s: %v, %v", d.By(), added, err)
		}
	}
}

// ExpectDenials expects the list to have exactly these, but for when they were added, and no row that can't be read.
func ExpectDenials(t testing.TB, s *certstore.Store, want ...certstore.Denial) {
	t.Helper()
	list, unreadable, err := s.Denials(t.Context())
	if err != nil || len(unreadable) > 0 {
		t.Fatal(unreadable, err)
	}
	ExpectSameDenials(t, list, want)
}

// ExpectSameDenials compares two lists, in whatever order.
func ExpectSameDenials(t testing.TB, got, want []certstore.Denial) {
	t.Helper()
	byID := func(a, b certstore.Denial) int { return cmp.Compare(a.ID(), b.ID()) }
	got, want = slices.SortedFunc(slices.Values(got), byID), slices.SortedFunc(slices.Values(want), byID)
	same := slices.EqualFunc(got, want, func(a, b certstore.Denial) bool {
		return a.Fingerprint == b.Fingerprint && a.Key == b.Key && bytes.Equal(a.Issuer, b.Issuer) && bytes.Equal(a.Serial, b.Serial) &&
			(a.Issuer == nil) == (b.Issuer == nil) && a.Comment == b.Comment
	})
	if !same {
		t.Errorf("the deny list has %+v, want %+v", got, want)
	}
}

func testDenials(t *testing.T, s *certstore.Store) {
	ExpectDenials(t, s)
	one, two := testpki.NewCA(t, "Namesake"), testpki.NewCA(t, "Namesake")
	cert := one.Issue(testpki.Leaf{CommonName: "client"}).Cert
	other := two.Issue(testpki.Leaf{CommonName: "client"}).Cert
	byPrint, byNumber, byKey := certstore.DenyCertificate(cert), certstore.DenySerial(cert), certstore.DenyKey(cert)
	byPrint.Comment, byKey.Comment = `it's "größe" 😀 % _`, strings.Repeat("😀", 255)
	zero, long := byNumber, byNumber
	zero.Serial, long.Serial = nil, bytes.Repeat([]byte{0xff}, 64)
	all := []certstore.Denial{byPrint, byNumber, byKey, certstore.DenyCertificate(other), zero, long}
	Deny(t, s, all...)
	ExpectDenials(t, s, all...)
	for _, d := range all {
		d.Comment = "again"
		if added, err := s.AddDenial(t.Context(), d); err != nil || added {
			t.Errorf("%s, again: %v, %v", d.By(), added, err)
		}
	}
	ExpectDenials(t, s, all...)
	list, _, err := s.Denials(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range list {
		if age := time.Since(d.Since); age < -time.Minute || age > time.Minute {
			t.Errorf("%s is since %s", d.By(), d.Since)
		}
		if d.Kind() == "serial" && len(d.Serial) == 0 {
			d.Serial = []byte{} // the same number
		}
		if err := s.RemoveDenial(t.Context(), d); err != nil {
			t.Error(err)
		}
		if err := s.RemoveDenial(t.Context(), d); !errors.Is(err, certstore.ErrNotDenied) {
			t.Errorf("%s, removed twice: %v", d.By(), err)
		}
		all = slices.DeleteFunc(all, func(other certstore.Denial) bool { return other.ID() == d.ID() })
		ExpectDenials(t, s, all...)
	}
	Deny(t, s, byPrint) // what was removed can come again
	ExpectDenials(t, s, byPrint)
}

func testDenialsRefuse(t *testing.T, s *certstore.Store) {
	cert := testpki.NewCA(t, "Root").Issue(testpki.Leaf{CommonName: "client"}).Cert
	good := certstore.DenySerial(cert)
	change := func(f func(*certstore.Denial)) certstore.Denial {
		d := good
		f(&d)
		return d
	}
	for name, d := range map[string]certstore.Denial{
		"nothing":               {},
		"two ways":              change(func(d *certstore.Denial) { d.Fingerprint[0] = 1 }),
		"two others":            {Fingerprint: [32]byte{1}, Key: [32]byte{1}},
		"a serial alone":        {Serial: []byte{1}},
		"a serial of a key":     {Serial: []byte{1}, Key: [32]byte{1}},
		"a zero in front":       change(func(d *certstore.Denial) { d.Serial = append([]byte{0}, d.Serial...) }),
		"a long serial":         change(func(d *certstore.Denial) { d.Serial = bytes.Repeat([]byte{1}, 65) }),
		"an issuer that is not": change(func(d *certstore.Denial) { d.Issuer = []byte("CN=Root") }),
		"an empty issuer":       change(func(d *certstore.Denial) { d.Issuer = []byte{} }),
		"more than an issuer":   change(func(d *certstore.Denial) { d.Issuer = append(slices.Clone(d.Issuer), 0) }),
		"a long comment":        change(func(d *certstore.Denial) { d.Comment = strings.Repeat("a", 256) }),
		"a comment of lines":    change(func(d *certstore.Denial) { d.Comment = "a\nb" }),
	} {
		if added, err := s.AddDenial(t.Context(), d); added || !errors.Is(err, certstore.ErrInvalid) {
			t.Errorf("%s: %v, %v", name, added, err)
		}
	}
	ExpectDenials(t, s)
	if err := s.RemoveDenial(t.Context(), certstore.Denial{}); !errors.Is(err, certstore.ErrInvalid) {
		t.Errorf("remove nothing: %v", err)
	}
}

// testDenialsVersion: whoever follows registrations hears of denials, and registrations are what they were.
func testDenialsVersion(t *testing.T, s *certstore.Store) {
	client := NewClient(t, "acme")
	Add(t, s, client)
	d := certstore.DenyCertificate(client.Certificate)
	before := Version(t, s)
	Deny(t, s, d)
	added := Version(t, s)
	if err := s.RemoveDenial(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	if removed := Version(t, s); added == before || removed == added || removed == before {
		t.Errorf("version %d, then %d, then %d", before, added, removed)
	}
	ExpectList(t, s, client)
}

// testTwoStoresDeny has two Stores deny the same at the same time: it is on the list once, for both.
func testTwoStoresDeny(t *testing.T, db Database) {
	url := db.New(t)
	told := make(chan bool, 100)
	stores := []*certstore.Store{Open(t, url, certstore.Options{Changed: func() { told <- true }}), Open(t, url, certstore.Options{})}
	var want []certstore.Denial
	cert := testpki.NewCA(t, "Root").Issue(testpki.Leaf{CommonName: "client"}).Cert
	for round := range 10 {
		d := certstore.DenySerial(cert)
		d.Serial = big.NewInt(int64(round + 1)).Bytes()
		seen := []uint64{Version(t, stores[0]), Version(t, stores[1])}
		added := make(chan bool)
		for _, s := range stores {
			go func() {
				var one bool
				err := again(func() (err error) { one, err = s.AddDenial(t.Context(), d); return err })
				if err != nil {
					t.Error(err)
				}
				added <- one
			}()
		}
		if one, other := <-added, <-added; one == other {
			t.Errorf("round %d: %v and %v", round, one, other)
		}
		want = append(want, d)
		for i, s := range stores {
			if Version(t, s) == seen[i] {
				t.Errorf("round %d: store %d hears nothing", round, i)
			}
			ExpectDenials(t, s, want...)
		}
	}
	if len(told) == 0 {
		t.Error("nobody was told of own changes")
	}
	readOnly := Open(t, url, certstore.Options{ReadOnly: true})
	ExpectDenials(t, readOnly, want...)
	if _, err := readOnly.AddDenial(t.Context(), want[0]); !errors.Is(err, certstore.ErrReadOnly) {
		t.Errorf("add to a read-only store: %v", err)
	}
	if err := readOnly.RemoveDenial(t.Context(), want[0]); !errors.Is(err, certstore.ErrReadOnly) {
		t.Errorf("remove from a read-only store: %v", err)
	}
}
