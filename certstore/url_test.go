package certstore_test

import (
	"errors"
	"strings"
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

func TestServerURL(t *testing.T) {
	for _, c := range []struct {
		url, want, password string
		encrypted           bool
	}{
		{"postgres://gw:s3cret@db.example.com/certs", "postgres://gw@db.example.com:5432/certs", "s3cret", true},
		{"postgresql://gw@db:6000/certs", "postgres://gw@db:6000/certs", "", true},
		{"postgres://gw@127.0.0.1/certs", "postgres://gw@127.0.0.1:5432/certs", "", false},
		{"postgres://gw@[::1]:6000/certs", "postgres://gw@[::1]:6000/certs", "", false},
		{"postgres://gw@LOCALHOST/certs", "postgres://gw@LOCALHOST:5432/certs", "", false},
		{"postgres://gw@localhost.example.com/certs", "postgres://gw@localhost.example.com:5432/certs", "", true},
		{"postgres://gw@10.0.0.1/certs?sslmode=disable", "postgres://gw@10.0.0.1:5432/certs?sslmode=disable", "", false},
		{"postgres://gw@localhost/certs?sslmode=verify-full", "postgres://gw@localhost:5432/certs?sslmode=verify-full", "", true},
		{"postgres://gw@/certs?host=/run/postgresql", "postgres://gw@/certs?host=%2Frun%2Fpostgresql", "", false},
		{"postgres://g%40w:a%2Fb%3F%23@db/c%20d", "postgres://g%40w@db:5432/c%20d", "a/b?#", true},
		{"mysql://gw:s3cret@db/certs", "mysql://gw@db:3306/certs", "s3cret", true},
		{"mysql://gw@db/certs?tls=false", "mysql://gw@db:3306/certs?tls=false", "", false},
		{"mysql://gw@127.9.9.9/certs?tls=true", "mysql://gw@127.9.9.9:3306/certs?tls=true", "", true},
		{"sqlserver://gw:s3cret@db/apim", "sqlserver://gw@db:1433/apim", "s3cret", true},
		{"sqlserver://gw@127.0.0.1/apim?encrypt=true", "sqlserver://gw@127.0.0.1:1433/apim?encrypt=true", "", true},
		{"sqlserver://gw@db:1434/apim?encrypt=disable", "sqlserver://gw@db:1434/apim?encrypt=disable", "", false},
		{"mysql://gw@/certs?socket=/run/mysqld/mysqld.sock&tls=false", "mysql://gw@/certs?socket=%2Frun%2Fmysqld%2Fmysqld.sock&tls=false", "", false},
	} {
		u, err := certstore.ParseURL(c.url)
		if err != nil {
			t.Errorf("%s: %v", c.url, err)
			continue
		}
		if u.String() != c.want || u.Password() != c.password || u.Encrypted() != c.encrypted {
			t.Errorf("%s: %s, password %q, TLS %t", c.url, u, u.Password(), u.Encrypted())
		}
		if !u.OnServer() || u.File() != "" || u.InMemory() || u.From("/etc") != u {
			t.Errorf("%s is taken for a file", c.url)
		}
		again, err := certstore.ParseURL(u.String())
		if err != nil || again.String() != c.want {
			t.Errorf("%s is read as %s, %v", u, again, err)
		}
	}
}

func TestServerURLRefuses(t *testing.T) {
	for _, c := range []struct{ url, want string }{
		{"postgres://", "postgres://USER@HOST:PORT/DATABASE"},
		{"postgres://user:secret@/certs", "no host"},
		{"postgres://user:secret@db", "no database"},
		{"postgres://user:secret@db/", "no database"},
		{"postgres://user:secret@db/a/b", "no database"},
		{"postgres://db/certs", "USER"},
		{"postgres://user:secret@a,b/certs", "several"},
		{"postgres://user:secret@a:1,b:2/certs", "USER"},
		{"postgres://user:secret@db:0/certs", "port"},
		{"postgres://user:secret@db:65536/certs", "port"},
		{"postgres://user:secret@db:x/certs", "USER"},
		{"postgres://user:secret@db/certs?sslmode=require", "verify-full"},
		{"postgres://user:secret@db/certs?sslmode=", "verify-full"},
		{"postgres://user:secret@db/certs?sslmode=disable&sslmode=verify-full", "twice"},
		{"postgres://user:secret@db/certs?sslrootcert=/x", `"sslrootcert"`},
		{"postgres://user:secret@db/certs?options=-c%20x", `"options"`},
		{"postgres://user:secret@db/certs?password=secret", `"password"`},
		{"postgres://user:secret@db/certs?tls=true", `"tls"`},
		{"postgres://user:secret@db/certs?host=/run", "socket"},
		{"postgres://user:secret@/certs?host=run", "absolute"},
		{"postgres://user:secret@/certs?host=/run&sslmode=verify-full", "no TLS"},
		{"postgres://user:secret%@db/certs", "USER"},
		{"postgres://user:secret#@db/certs", "USER"},
		{"postgres://user:sec%00ret@db/certs", "NUL"},
		{"mysql://user:secret@db/certs?tls=skip-verify", "true"},
		{"mysql://user:secret@db/certs?tls=preferred", "true"},
		{"mysql://user:secret@db/certs?allowAllFiles=true", `"allowAllFiles"`},
		{"mysql://user:secret@tcp(db:3306)/certs", "USER"},
		{"sqlserver://user:secret@db", "no database"},
		{"sqlserver://user:secret@db/apim?encrypt=false", "encrypt is true or, for no TLS, disable"},
		{"sqlserver://user:secret@db/apim?trustservercertificate=true", `"trustservercertificate" isn't known here: there is encrypt`},
		{"sqlserver://user:secret@db/apim?=/run", `""`},
	} {
		u, err := certstore.ParseURL(c.url)
		if err == nil {
			t.Errorf("%s is read as %s", c.url, u)
			continue
		}
		if !errors.Is(err, certstore.ErrInvalid) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %q", c.url, err, c.want)
		}
		if strings.Contains(err.Error(), "secret") {
			t.Errorf("the error holds the password: %v", err)
		}
	}
}

func TestSource(t *testing.T) {
	for _, c := range []struct {
		source certstore.Source
		want   string
	}{
		{certstore.Source{URL: "postgres://gw@db/certs", Password: "secret", CAFile: "ca.pem"}, ""},
		{certstore.Source{URL: "mysql://gw@localhost/certs", CAFile: "ca.pem"}, ""},
		{certstore.Source{URL: "postgres://gw:other@db/certs", Password: "secret"}, "beside it"},
		{certstore.Source{URL: "postgres://gw@db/certs?sslmode=disable", CAFile: "ca.pem"}, "caFile"},
		{certstore.Source{URL: "mysql://gw@/certs?socket=/run/s", CAFile: "ca.pem"}, "caFile"},
		{certstore.Source{URL: "sqlite:a.db", Password: "secret"}, "password"},
		{certstore.Source{URL: "sqlite:a.db", CAFile: "ca.pem"}, "caFile"},
		{certstore.Source{}, "expected sqlite:PATH"},
	} {
		err := c.source.Check()
		if (err == nil) != (c.want == "") || err != nil && (!strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "secret")) {
			t.Errorf("%s: %v; want %q", c.source.URL, err, c.want)
		}
	}
}
