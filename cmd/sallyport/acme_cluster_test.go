package main_test

import (
	"crypto/x509"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"sallyport/internal/testacme"
	"sallyport/internal/testdb"
	"sallyport/internal/testserver"
)

// TestACMECluster has two nodes share what they get from a CA, which validates by one challenge at one address before both,
// while clients call all the time: each certificate is ordered once, by one node, is renewed in time, and both show it.
func TestACMECluster(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		challenge string
		share     func(*testing.T, *acmeSettings)
	}{
		"PostgreSQL, TLS-ALPN-01": {"tls-alpn-01", func(t *testing.T, s *acmeSettings) {
			db := testdb.Postgres(t, testdb.Options{}).New(t)
			s.store = fmt.Sprintf(`{url: "%s", password: "%s"}`, db.URL, db.Password)
			s.more += ", storage: store, keyFile: secrets/shared.key"
		}},
		"files, HTTP-01": {"http-01", func(t *testing.T, s *acmeSettings) {
			s.more += `, folder: "` + filepath.Join(t.TempDir(), "shared") + `"`
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			at := newFront(t)
			options := at.options()
			options.Validity = time.Minute
			ca := testacme.Start(t, options)
			s := acmeSettings{names: "a.test, b.test", keyTypes: "ecdsa, rsa", more: ", challenges: [" + row.challenge + "]"}
			row.share(t, &s)
			a, b := acmeDemo(t, ca, s), acmeDemo(t, ca, s)
			a.mustRun("config", "key", "secrets/shared.key")
			b.write("secrets/shared.key", a.read("secrets/shared.key"))
			at.to(a, b)
			nodes := []*demoFolder{a, b}
			processes := map[*demoFolder]*process{}
			for _, d := range nodes {
				processes[d], _ = d.serve(new(counter))
			}

			names, kinds, roots := []string{"a.test", "b.test"}, []string{"ecdsa", "rsa"}, ca.Trust()
			seen := &sightings{serials: map[string]bool{}}
			first := sameEverywhere(t, nodes, names, kinds, roots, nil, seen)
			load := callAll(t, nodes, names, kinds, roots, seen)
			sameEverywhere(t, nodes, names, kinds, roots, first, seen)
			testserver.Eventually(t, "each order's certificate is shown", func() error {
				if orders, issued, shown := ca.Orders(), ca.Issued(), seen.count(); orders != issued || issued != shown || shown < 8 {
					return fmt.Errorf("%d orders, %d certificates, %d shown", orders, issued, shown)
				}
				return nil
			})
			load.stop()
			if ca.Accounts() != 1 {
				t.Errorf("%d accounts", ca.Accounts())
			}
			t.Logf("%d calls, %d certificates", load.calls.Load(), seen.count())
			for _, p := range processes {
				p.stopClean()
			}
		})
	}
}

// sameEverywhere waits until all nodes show the same certificates, and others than before, and returns them.
func sameEverywhere(
	t *testing.T, nodes []*demoFolder, names, kinds []string, roots *x509.CertPool, before map[string]*x509.Certificate, seen *sightings,
) (now map[string]*x509.Certificate) {
	t.Helper()
	testserver.Eventually(t, "all nodes show the same", func() error {
		now = map[string]*x509.Certificate{}
		var problems []error
		for _, name := range names {
			for _, kind := range kinds {
				for _, d := range nodes {
					cert, err := d.certificateFor(name, kind, roots)
					if err != nil {
						problems = append(problems, err)
						continue
					}
					seen.add(cert)
					switch other := now[name+kind]; {
					case before[name+kind] != nil && cert.Equal(before[name+kind]):
						problems = append(problems, errors.New("still the one before"))
					case other != nil && !cert.Equal(other):
						problems = append(problems, errors.New("another one at the other node"))
					}
					now[name+kind] = cert
				}
			}
		}
		return errors.Join(problems...)
	})
	return now
}
