package control

import (
	"crypto/x509"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/certstore"
	"sallyport/internal/testdb"
	"sallyport/listenerprofiles/trust"
)

// denied reports whether the list in force names a certificate.
func (b *bed) denied(p *party) bool {
	return b.InForce().Denied().Find([]*x509.Certificate{p.cert}) != nil
}

// raw is the database of a store in a file, past the program.
func raw(t *testing.T, store *certstore.Source) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", strings.TrimPrefix(store.URL, "sqlite:"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// TestDenialsSayWhomTheyName: why a certificate is refused is told in the words of the store's list, however that names it,
// and of the one entry that does.
func TestDenialsSayWhomTheyName(t *testing.T) {
	one, other := issue(t, "one", nil), issue(t, "other", nil)
	for _, by := range []func(*x509.Certificate) certstore.Denial{certstore.DenyCertificate, certstore.DenySerial, certstore.DenyKey} {
		denials := Denials([]certstore.Denial{by(other.cert), by(one.cert)})
		entry, d := denials.Find([]*x509.Certificate{one.cert}), by(one.cert)
		if entry == nil {
			t.Errorf("%s is not found", d.By())
			continue
		}
		if err := trust.DeniedBy(entry); trust.CauseOf(err) != trust.Denied || !strings.Contains(err.Error(), "on the deny list, by "+d.By()+", since") {
			t.Errorf("of %s is told: %v", d.By(), err)
		}
	}
	if denials := Denials([]certstore.Denial{certstore.DenyKey(other.cert)}); denials.Find([]*x509.Certificate{one.cert}) != nil {
		t.Error("another one's names it")
	}
}

// TestDenials: a denial is in force soon after it was made elsewhere, on each kind of database, though no registration has
// changed; it is told once, and so is its end.
func TestDenials(t *testing.T) {
	for name, make := range map[string]func(*testing.T) certstore.Source{
		"SQLite": func(t *testing.T) certstore.Source {
			return certstore.Source{URL: "sqlite:" + filepath.Join(t.TempDir(), "store.db")}
		},
		"PostgreSQL": func(t *testing.T) certstore.Source {
			d := testdb.Postgres(t, testdb.Options{}).New(t)
			return certstore.Source{URL: d.URL, Password: d.Password}
		},
		"MariaDB": func(t *testing.T) certstore.Source {
			d := testdb.MariaDB(t, testdb.Options{}).New(t)
			return certstore.Source{URL: d.URL, Password: d.Password}
		},
	} {
		t.Run(name, func(t *testing.T) {
			source := make(t)
			other, err := source.Open(t.Context(), certstore.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer other.Close()
			b := startBed(t, func(b *bed, _ *Options) {
				s := b.spec.Load()
				s.Store.Value, s.Period = source, time.Hour
				s.Clients = []certstore.Client{client("file", b.client)}
			})
			if b.denied(b.client) || b.InForce().Denied().Len() != 0 {
				t.Error("something is denied to begin with")
			}
			d := certstore.DenyKey(b.client.cert)
			d.Comment = "stolen"
			for round := range 3 {
				if _, err := other.AddDenial(t.Context(), d); err != nil {
					t.Fatal(err)
				}
				eventually(t, "the denial is in force", func() bool { return b.denied(b.client) && !b.denied(b.second) })
				if err := other.RemoveDenial(t.Context(), d); err != nil {
					t.Fatal(err)
				}
				eventually(t, "its end is in force", func() bool { return !b.denied(b.client) })
				came, went := b.log.count("certificates were put on the deny list"), b.log.count("certificates were taken off the deny list")
				if came != round+1 || went != round+1 {
					t.Errorf("told %d and %d times", came, went)
				}
			}
			if b.log.count("comment=stolen") != 6 || b.log.count(d.ID()) != 6 || b.log.count("a client certificate was") != 0 {
				t.Errorf("the log says\n%s", b.log.text.String())
			}
			for _, p := range b.swaps() {
				if p.Denied == nil || p.Listeners != nil || p.Routes != nil {
					t.Errorf("%+v is swapped for a denial", p)
				}
			}
			if err := b.Reload(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestDenialThatBecomesUnreadable: what was denied stays denied, while all else that changes in the store comes into force
// and the row is named; a start with it is an error, since nobody knows what it denies.
func TestDenialThatBecomesUnreadable(t *testing.T) {
	b, other, aliases := storeBed(t)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	deny := func(d certstore.Denial) {
		t.Helper()
		_, err := other.AddDenial(t.Context(), d)
		must(err)
	}
	must(other.Add(t.Context(), client("acme", b.second)))
	deny(certstore.DenyCertificate(b.client.cert))
	deny(certstore.DenyKey(b.second.cert))
	eventually(t, "all is in force", func() bool { return aliases() == "file acme" && b.denied(b.client) && b.denied(b.second) })

	db := raw(t, &b.InForce().Spec.Store.Value)
	_, err := db.Exec(`UPDATE SALLYPORT_DENIAL SET KIND = 'nothing' WHERE KIND = 'fingerprint'`)
	must(err)
	eventually(t, "the row is named", func() bool {
		broken := b.state(store).Broken
		return broken != nil && strings.Contains(broken.Error(), "nothing ") && strings.Contains(broken.Error(), "SALLYPORT_DENIAL")
	})
	if !b.denied(b.client) || !b.denied(b.second) {
		t.Error("what can't be read any more is not denied any more")
	}
	must(other.Remove(t.Context(), orders, certstore.Production, "acme"))
	deny(certstore.DenyCertificate(b.server.cert))
	eventually(t, "the rest of the store is in force", func() bool { return aliases() == "file" && b.denied(b.server) })
	b.change(func(s *Spec) { s.Fixed = map[string]any{"log": 1} })
	eventually(t, "the configuration is another", func() bool { return b.InForce().Spec.Fixed["log"] == 1 })
	if !b.denied(b.client) || b.state(store).Broken == nil {
		t.Errorf("after a reload: denied %t, broken %v", b.denied(b.client), b.state(store).Broken)
	}
	if n := b.log.count("the deny list can't be read as a whole"); n != 1 {
		t.Errorf("told %d times", n)
	}

	spec := *b.InForce().Spec
	if a, err := Build(t.Context(), &spec); err == nil {
		a.Close()
		t.Error("a start takes no notice of the row")
	} else if !strings.Contains(err.Error(), "nothing ") || !strings.Contains(err.Error(), "SALLYPORT_DENIAL") {
		t.Errorf("a start says %v", err)
	}

	_, err = db.Exec(`UPDATE SALLYPORT_DENIAL SET KIND = 'fingerprint' WHERE KIND = 'nothing'`)
	must(err)
	eventually(t, "the row is mended", func() bool { return b.state(store).Broken == nil })
	must(other.RemoveDenial(t.Context(), certstore.DenyCertificate(b.client.cert)))
	eventually(t, "its removal is in force", func() bool { return !b.denied(b.client) && b.denied(b.second) })
}

// TestDenialsEndWithTheirStore: a configuration without the store has none of its denials.
func TestDenialsEndWithTheirStore(t *testing.T) {
	b, other, _ := storeBed(t)
	if _, err := other.AddDenial(t.Context(), certstore.DenyCertificate(b.client.cert)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is denied", func() bool { return b.denied(b.client) })
	b.change(func(s *Spec) { s.Store.Value = certstore.Source{} })
	eventually(t, "it is not denied", func() bool { return !b.denied(b.client) })
	swaps := b.swaps()
	if last := swaps[len(swaps)-1]; last.Denied == nil || last.Denied.Len() != 0 {
		t.Errorf("the last swap is %+v", last)
	}
}

// TestDenialsInTheSnapshot: a start while the database is away denies what was denied when it was there.
func TestDenialsInTheSnapshot(t *testing.T) {
	server := testdb.Postgres(t, testdb.Options{})
	d := server.New(t)
	source := certstore.Source{URL: d.URL, Password: d.Password}
	file := filepath.Join(t.TempDir(), "store.snapshot")
	other, err := source.Open(t.Context(), certstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	use := func(b *bed, _ *Options) {
		s := b.spec.Load()
		s.Store.Value, s.Period, s.Snapshot = source, time.Hour, file
		s.Clients = []certstore.Client{client("file", b.client)}
	}
	b, stop := runBed(t, use)
	eventually(t, "there is a snapshot", func() bool { _, err := os.Stat(file); return err == nil })
	want := certstore.DenySerial(b.client.cert)
	want.Comment = "stolen"
	if _, err := other.AddDenial(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the denial is in force", func() bool { return b.denied(b.client) })
	stop()
	server.Kill()

	b, stop = runBed(t, use)
	if !b.denied(b.client) || b.denied(b.second) || !errors.Is(b.state(store).Broken, certstore.ErrUnavailable) {
		t.Errorf("denied %t; %v", b.denied(b.client), b.state(store).Broken)
	}
	entry := b.InForce().Denied().Find([]*x509.Certificate{b.client.cert})
	if entry == nil || trust.CauseOf(trust.DeniedBy(entry)) != trust.Denied || entry.Comment != "stolen" {
		t.Errorf("the entry is %+v", entry)
	}
	stop()
	s, err := readSnapshot(file, source.URL)
	if err != nil || len(s.Denials) != 1 {
		t.Errorf("afterwards it has %d denials, %v", len(s.Denials), err)
	}
}
