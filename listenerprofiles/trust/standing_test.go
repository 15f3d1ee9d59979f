package trust_test

import (
	"crypto/rand"
	"crypto/x509"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sallyport/internal/testpki"
	"sallyport/listenerprofiles/revocation"
	"sallyport/listenerprofiles/trust"
)

func signsCRLs(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCRLSign }

// lists are files with the CRLs of CAs, each with what that has revoked.
func lists(t *testing.T, now time.Time, revoked map[*testpki.Identity][]*x509.Certificate) (files []string) {
	t.Helper()
	for ca, certs := range revoked {
		list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: now.Add(-time.Hour), NextUpdate: now.Add(1000 * time.Hour)}
		for _, cert := range certs {
			list.RevokedCertificateEntries = append(list.RevokedCertificateEntries,
				x509.RevocationListEntry{SerialNumber: cert.SerialNumber, RevocationTime: list.ThisUpdate})
		}
		der, err := x509.CreateRevocationList(rand.Reader, list, ca.Cert, ca.Key)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "list.crl")
		if err := os.WriteFile(file, der, 0o600); err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	return files
}

// TestPathThatHasEnded: a path without a revoked certificate counts until its end, and not for one that is revoked after it.
func TestPathThatHasEnded(t *testing.T) {
	now := time.Now()
	one, two := testpki.NewCA(t, "One", signsCRLs), testpki.NewCA(t, "Two", signsCRLs)
	inter := one.IssueCA("Issuer", signsCRLs)
	crossed := *inter
	crossed.Cert = two.Issue(testpki.Leaf{
		CommonName: "Issuer", Key: inter.Key, Usages: testpki.NoUsages, NotAfter: now.Add(time.Hour),
		Change: func(c *x509.Certificate) { isCA(c); signsCRLs(c) },
	}).Cert
	leaf := inter.Issue(named("leaf")).Cert
	registry := revocation.New(revocation.Options{Now: func() time.Time { return now }})
	checker, err := registry.Checker(revocation.Policy{CRL: lists(t, now, map[*testpki.Identity][]*x509.Certificate{
		one: {inter.Cert}, two: nil, inter: nil,
	})})
	if err != nil {
		t.Fatal(err)
	}
	anchors, err := trust.New([]*x509.Certificate{one.Cert, two.Cert})
	if err != nil {
		t.Fatal(err)
	}
	rules := trust.Rules{Anchors: anchors, Revocation: checker}
	v, err := rules.Judge([]*x509.Certificate{leaf, inter.Cert, crossed.Cert}, false, nil, now)
	if err != nil || len(v.Paths) != 2 {
		t.Fatalf("%d paths, %v; want both", len(v.Paths), err)
	}
	standing := rules.Standing(leaf, v)
	if err := standing.Check(now); err != nil {
		t.Errorf("while the other path holds: %v", err)
	}
	later := now.Add(2 * time.Hour)
	for _, s := range []*trust.Standing{standing, rules.Standing(leaf, v)} {
		if cause := trust.CauseOf(s.Check(later)); cause != trust.Revoked {
			t.Errorf("when it has ended: %q, want %q", cause, trust.Revoked)
		}
	}
}

// TestEntryOfAnEndedIssuer: an entry of the store is good without its issuer, which admits nothing any more once it has
// ended.
func TestEntryOfAnEndedIssuer(t *testing.T) {
	now := time.Now()
	root := testpki.NewCA(t, "Root", func(c *x509.Certificate) { c.NotAfter = now.Add(time.Hour) })
	leaf := root.Issue(named("leaf")).Cert
	anchors, err := trust.New([]*x509.Certificate{root.Cert, leaf})
	if err != nil {
		t.Fatal(err)
	}
	rules := trust.Rules{Anchors: anchors}
	v, err := rules.Judge([]*x509.Certificate{leaf}, false, nil, now)
	if err != nil {
		t.Fatal(err)
	}
	standing := rules.Standing(leaf, v)
	for at, want := range map[time.Time]bool{now: true, now.Add(2 * time.Hour): false} {
		if !v.Contains(at) || standing.Check(at) != nil {
			t.Errorf("at %v the entry is not good", at)
		}
		if got := standing.Issuers(at, func(*trust.Issuer) bool { return true }); got != want {
			t.Errorf("at %v it has an issuer: %t, want %t", at, got, want)
		}
	}
}

// TestRevokedEntry: an issuer that is an entry of the store beside its own issuer is not spared what that says of it: the
// header's doors need such entries, since the header has the leaf alone. That nothing is known of it takes nothing away.
func TestRevokedEntry(t *testing.T) {
	now := time.Now()
	root := testpki.NewCA(t, "Root", signsCRLs)
	inter := root.IssueCA("Issuer", signsCRLs)
	leaf := inter.Issue(named("leaf")).Cert
	for name, c := range map[string]struct {
		store []*x509.Certificate
		lists map[*testpki.Identity][]*x509.Certificate
		want  trust.Cause
	}{
		"good":                           {chain(root, inter), map[*testpki.Identity][]*x509.Certificate{root: nil, inter: nil}, ""},
		"nothing is known of the issuer": {chain(root, inter), map[*testpki.Identity][]*x509.Certificate{inter: nil}, ""},
		"its issuer is revoked":          {chain(root, inter), map[*testpki.Identity][]*x509.Certificate{root: {inter.Cert}, inter: nil}, trust.Revoked},
		"the root is no entry":           {chain(inter), map[*testpki.Identity][]*x509.Certificate{root: {inter.Cert}, inter: nil}, ""},
		"the issuer is no entry":         {chain(root), map[*testpki.Identity][]*x509.Certificate{root: {inter.Cert}, inter: nil}, trust.Revoked},
		"it is revoked itself":           {chain(root, inter), map[*testpki.Identity][]*x509.Certificate{root: nil, inter: {leaf}}, trust.Revoked},
	} {
		registry := revocation.New(revocation.Options{Now: func() time.Time { return now }})
		checker, err := registry.Checker(revocation.Policy{CRL: lists(t, now, c.lists)})
		if err != nil {
			t.Fatal(err)
		}
		anchors, err := trust.New(c.store)
		if err != nil {
			t.Fatal(err)
		}
		rules := trust.Rules{Anchors: anchors, Revocation: checker}
		v, err := rules.Judge([]*x509.Certificate{leaf, inter.Cert}, false, nil, now)
		if err != nil {
			t.Fatal(err)
		}
		if cause := trust.CauseOf(rules.Standing(leaf, v).Check(now)); cause != c.want {
			t.Errorf("%s: %q, want %q", name, cause, c.want)
		}
	}
}
