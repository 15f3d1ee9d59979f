package certstore_test

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
	"time"

	"sallyport/certstore"
	"sallyport/certstore/certstoretest"
)

// written is a snapshot of three registrations and three denials, and its text.
func written(t testing.TB) (certstore.Snapshot, string) {
	t.Helper()
	a, b := newClient(t, "acme"), newClient(t, "größe “x” \u2028 😀")
	b.KeyType, b.Scopes = certstore.Sandbox, []string{"orders:read", "*"}
	s := certstore.Snapshot{
		Store: "postgres://gw@db.example.com:5432/certs", Read: time.Date(2026, 11, 30, 13, 0, 0, 7e6, time.UTC), Clients: []certstore.Client{a, b, certstoretest.NewCA(t, "partner", "partner.test")},
		Denials: newDenials(t),
	}
	for i := range s.Clients {
		s.Clients[i].Source, s.Clients[i].Fingerprint = certstore.InStore, certstore.Fingerprint(s.Clients[i].Certificate)
	}
	var text bytes.Buffer
	if err := s.Write(&text); err != nil {
		t.Fatal(err)
	}
	return s, text.String()
}

func TestSnapshot(t *testing.T) {
	want, text := written(t)
	got, err := certstore.ParseSnapshot(strings.NewReader(text))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	if !strings.HasPrefix(text, certstore.SnapshotHead) {
		t.Errorf("it begins with %.40q", text)
	}
	empty := certstore.Snapshot{Store: "sqlite:/x", Read: want.Read}
	var b bytes.Buffer
	if err := empty.Write(&b); err != nil {
		t.Fatal(err)
	}
	if got, err := certstore.ParseSnapshot(&b); err != nil || !reflect.DeepEqual(got, empty) {
		t.Errorf("of no registrations: %+v, %v", got, err)
	}
	late := want
	late.Read = late.Read.In(time.FixedZone("", 3600)).Add(time.Microsecond)
	if err := late.Write(&b); err != nil || b.String() != text {
		t.Errorf("the same at another place on earth is another text: %v", err)
	}
}

// TestSnapshotThatIsNotWhole: wherever a snapshot ends early, and whatever byte of it is another, none of it counts.
func TestSnapshotThatIsNotWhole(t *testing.T) {
	_, text := written(t)
	for i := range text {
		for what, torn := range map[string]string{
			"cut": text[:i], "changed": text[:i] + string(text[i]^1) + text[i+1:], "left out": text[:i] + text[i+1:],
		} {
			if s, err := certstore.ParseSnapshot(strings.NewReader(torn)); err == nil || s.Clients != nil {
				t.Fatalf("%s at %d: taken", what, i)
			}
		}
	}
	for _, more := range []string{"\n", " ", text} {
		if _, err := certstore.ParseSnapshot(strings.NewReader(text + more)); err == nil {
			t.Errorf("taken with %.10q behind it", more)
		}
	}
	if _, err := certstore.ParseSnapshot(strings.NewReader(certstore.SnapshotHead + strings.Repeat("x", 1<<20))); err == nil {
		t.Error("a line without an end is taken")
	}
}

func TestSnapshotOfTooMuch(t *testing.T) {
	s, _ := written(t)
	s.Store = strings.Repeat("x", 1<<20)
	if err := s.Write(new(bytes.Buffer)); err == nil {
		t.Error("a line that nobody would read is written")
	}
}

// FuzzSnapshotLine gives a line the right digest.
func FuzzSnapshotLine(f *testing.F) {
	_, text := written(f)
	for line := range strings.Lines(text) {
		f.Add(line)
	}
	f.Add(`{"api":"a","version":"1","alias":"x","keyType":"PRODUCTION","tier":"Gold","certificate":"AA=="}`)
	f.Add(strings.Replace(text[strings.LastIndex(text[:strings.LastIndex(text, "\n")-1], `{"api"`):], `"match":"{`, `"match":"{{`, 1))
	f.Fuzz(func(t *testing.T, line string) {
		c, err := certstore.ParseSnapshotClient([]byte(line))
		if err == nil && (c.Certificate == nil || c.API.Check() != nil || c.Source != certstore.InStore) {
			t.Errorf("%+v is taken", c)
		}
	})
}
