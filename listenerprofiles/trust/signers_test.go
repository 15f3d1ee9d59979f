package trust_test

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"slices"
	"testing"
	"time"

	"sallyport/internal/testpki"
	"sallyport/listenerprofiles/trust"
)

// TestDeniedSigner: of a certificate that its registration vouches for, or that is an entry itself, a denied issuer is found
// wherever it is known from, by its signature and never by its name, whatever it may issue.
func TestDeniedSigner(t *testing.T) {
	root := testpki.NewCA(t, "Root")
	inter := root.IssueCA("Issuer", func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Hour) })
	namesake := root.IssueCA("Issuer")
	leaf := inter.Issue(named("leaf")).Cert
	unknown := testpki.NewCA(t, "Other")
	if !bytes.Equal(namesake.Cert.RawSubject, leaf.RawIssuer) {
		t.Fatal("they have two names")
	}
	for name, c := range map[string]struct {
		shown, store, registered []*x509.Certificate
		found                    []*testpki.Identity
	}{
		"shown":                {chain(inter, root), nil, nil, []*testpki.Identity{inter, root}},
		"shown in any order":   {chain(root, namesake, inter), nil, nil, []*testpki.Identity{inter, root}},
		"in the store":         {nil, chain(inter, root, unknown), nil, []*testpki.Identity{inter, root}},
		"registered":           {nil, nil, chain(inter, root), []*testpki.Identity{inter, root}},
		"here and there":       {nil, chain(root), chain(inter), []*testpki.Identity{inter, root}},
		"the nearest alone":    {chain(inter), nil, nil, []*testpki.Identity{inter}},
		"not the nearest":      {chain(root), chain(namesake), chain(unknown), nil},
		"a namesake's":         {chain(namesake), nil, nil, nil},
		"nowhere":              {nil, nil, nil, nil},
		"and it is an entry":   {chain(inter), append(chain(root), leaf), nil, []*testpki.Identity{inter, root}},
		"an entry of nobody's": {nil, append(chain(unknown), leaf), nil, nil},
	} {
		rules := trust.Rules{Registered: trust.All}
		if c.store != nil {
			anchors, err := trust.New(c.store)
			if err != nil {
				t.Fatal(err)
			}
			rules.Anchors = anchors
		}
		for range 2 { // the second time from memory
			v, err := rules.Judge(append([]*x509.Certificate{leaf}, c.shown...), true, trust.NewIssuers(c.registered), now)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			standing := rules.Standing(leaf, v)
			for _, by := range []func(*x509.Certificate) trust.Denial{denyCertificate, denySerial, denyKey} {
				for _, ca := range []*testpki.Identity{inter, root, namesake, unknown} {
					list := trust.NewDenials([]trust.Denial{by(ca.Cert)})
					if found, want := standing.Denied(list) != nil, slices.Contains(c.found, ca); found != want {
						t.Errorf("%s: denied by %s: %t, want %t", name, ca.Cert.Subject, found, want)
					}
				}
				if standing.Denied(trust.NewDenials([]trust.Denial{by(leaf)})) == nil {
					t.Errorf("%s: a denial of the certificate itself is not found", name)
				}
			}
			list := trust.NewDenials([]trust.Denial{denyKey(unknown.Cert)})
			if n := testing.AllocsPerRun(10, func() { standing.Denied(list) }); n != 0 {
				t.Errorf("%s: to ask takes %v allocations", name, n)
			}
		}
	}
}

// TestDeniedSignerIsNotHidden: whatever is shown beside a certificate, whoever the store leads to is found.
func TestDeniedSignerIsNotHidden(t *testing.T) {
	top := testpki.NewCA(t, "Top")
	root := top.IssueCA("Root")
	inter := root.IssueCA("Issuer", func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Hour) }) // on no path
	leaf := inter.Issue(named("leaf")).Cert
	forger, shown := testpki.NewCA(t, "Issuer"), []*x509.Certificate(nil)
	for i := range 15 {
		fake := testpki.Leaf{CommonName: "Issuer", Usages: testpki.NoUsages, Change: isCA}
		if i < 7 {
			fake.Key = inter.Key // which the leaf's signature is by
		}
		shown = append(shown, forger.Issue(fake).Cert)
	}
	odd := *leaf
	odd.SignatureAlgorithm = x509.MD5WithRSA
	unknown := *leaf
	unknown.SignatureAlgorithm = x509.UnknownSignatureAlgorithm
	other := testpki.NewCA(t, "Other").Issue(named("leaf")).Cert
	for name, chain := range map[string][]*x509.Certificate{
		"many signers":           append([]*x509.Certificate{leaf}, shown...),
		"a signature by MD5":     {&odd},
		"a signature that's odd": {&unknown},
		"another's":              append([]*x509.Certificate{other}, shown...),
	} {
		anchors, err := trust.New([]*x509.Certificate{inter.Cert, root.Cert, top.Cert, leaf, other})
		if err != nil {
			t.Fatal(err)
		}
		rules := trust.Rules{Anchors: anchors}
		v, err := rules.Judge(chain, false, nil, now)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		list := trust.NewDenials([]trust.Denial{denyCertificate(top.Cert)})
		if found := rules.Standing(chain[0], v).Denied(list) != nil; found != (name != "another's") {
			t.Errorf("%s: denied: %t", name, found)
		}
	}
}

// TestDeniedIssuerOfManyPaths: of more paths than count each issuer is found.
func TestDeniedIssuerOfManyPaths(t *testing.T) {
	inter := testpki.NewCA(t, "Issuer")
	leaf := inter.Issue(named("leaf")).Cert
	var roots []*testpki.Identity
	store, shown := []*x509.Certificate(nil), []*x509.Certificate{leaf}
	for i := range 12 {
		root := testpki.NewCA(t, fmt.Sprint("Root ", i))
		roots, store = append(roots, root), append(store, root.Cert)
		shown = append(shown, root.Issue(testpki.Leaf{CommonName: "Issuer", Key: inter.Key, Usages: testpki.NoUsages, Change: isCA}).Cert)
	}
	anchors, err := trust.New(store)
	if err != nil {
		t.Fatal(err)
	}
	rules := trust.Rules{Anchors: anchors}
	v, err := rules.Judge(shown, false, nil, now)
	if err != nil {
		t.Fatal(err)
	}
	for i, root := range roots {
		if rules.Standing(leaf, v).Denied(trust.NewDenials([]trust.Denial{denyKey(root.Cert)})) == nil {
			t.Errorf("root %d, which is denied, is not found beside %d paths", i, len(v.Paths))
		}
	}
}

// TestIssuersOfAnEntry: who has issued an entry of the store is found by whole paths: each issuer on it may admit it, if all
// of them were allowed to issue it.
func TestIssuersOfAnEntry(t *testing.T) {
	nothing := func(*x509.Certificate) {}
	for name, c := range map[string]struct {
		root, inter func(*x509.Certificate)
		want        bool
	}{
		"they may":                     {nothing, nothing, true},
		"the root names other domains": {func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"other.test"} }, nothing, false},
		"the issuer names others":      {nothing, func(c *x509.Certificate) { c.ExcludedDNSDomains = []string{"partner.test"} }, false},
		"the root is for servers": {func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		}, nothing, false},
		"the root's path is too long": {func(c *x509.Certificate) { c.MaxPathLen, c.MaxPathLenZero = 0, true }, nothing, false},
		"the issuer has ended":        {nothing, func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Minute) }, false},
	} {
		root := testpki.NewCA(t, "Root", c.root)
		inter := root.IssueCA("Issuer", c.inter)
		leaf := inter.Issue(testpki.Leaf{CommonName: "leaf", Change: func(c *x509.Certificate) {
			c.DNSNames = []string{"a.partner.test"}
		}}).Cert
		for where, know := range map[string]struct{ store, registered, shown []*x509.Certificate }{
			"registered":          {chain(root), chain(root, inter), nil},
			"the issuer's in it":  {chain(root, inter), chain(root, inter), nil},
			"the issuer is shown": {chain(root), chain(root), chain(inter)},
		} {
			anchors, err := trust.New(append(slices.Clone(know.store), leaf))
			if err != nil {
				t.Fatal(err)
			}
			rules := trust.Rules{Anchors: anchors}
			v, err := rules.Judge(append([]*x509.Certificate{leaf}, know.shown...), false, trust.NewIssuers(know.registered), now)
			if err != nil {
				t.Fatalf("%s, %s: the entry itself: %v", name, where, err)
			}
			standing := rules.Standing(leaf, v)
			if err := standing.Check(now); err != nil {
				t.Errorf("%s, %s: the entry itself: %v", name, where, err)
			}
			var got []string
			standing.Issuers(now, func(i *trust.Issuer) bool {
				got = append(got, i.Certificate.Subject.CommonName)
				return false
			})
			if all := slices.Contains(got, "Issuer") && slices.Contains(got, "Root"); all != c.want || !c.want && slices.Contains(got, "Root") {
				t.Errorf("%s, %s: admitted by %q, want it: %t", name, where, got, c.want)
			}
		}
	}
}

// TestEntryThatIsACA: one that is an entry itself and may issue, as its issuer is, leads to that.
func TestEntryThatIsACA(t *testing.T) {
	root := testpki.NewCA(t, "Root")
	inter := root.IssueCA("Issuer", func(c *x509.Certificate) {
		c.KeyUsage |= x509.KeyUsageDigitalSignature
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	})
	anchors, err := trust.New(chain(root, inter))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		who   *testpki.Identity
		paths int
	}{{inter, 1}, {root, 0}} {
		paths, err := anchors.Verify([]*x509.Certificate{c.who.Cert}, nil, now)
		if c.who == root && trust.CauseOf(err) == trust.KeyUsage {
			continue // it signs nothing but certificates
		}
		if err != nil || len(paths) != 1 || len(paths[0].Issuers) != c.paths {
			t.Errorf("%s: %v, %v", c.who.Cert.Subject, paths, err)
		}
	}
}

// TestPathThatBeginsLater: a path that is not valid yet when a certificate is first seen counts from its beginning.
func TestPathThatBeginsLater(t *testing.T) {
	one, two := testpki.NewCA(t, "One"), testpki.NewCA(t, "Two")
	inter := one.IssueCA("Issuer")
	begins := now.Add(time.Hour)
	crossed := two.Issue(testpki.Leaf{
		CommonName: "Issuer", Key: inter.Key, Usages: testpki.NoUsages,
		Change: func(c *x509.Certificate) { isCA(c); c.NotBefore = begins },
	}).Cert
	leaf := inter.Issue(named("leaf")).Cert
	anchors, err := trust.New([]*x509.Certificate{one.Cert, two.Cert})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		at    time.Time
		paths int
	}{{now, 1}, {begins.Add(-time.Second), 1}, {begins, 2}, {begins.Add(time.Hour), 2}, {now, 1}} {
		paths, err := anchors.Verify([]*x509.Certificate{leaf, inter.Cert, crossed}, nil, c.at)
		if err != nil || len(paths) != c.paths {
			t.Errorf("at %v there are %d paths, %v; want %d", c.at, len(paths), err, c.paths)
		}
	}
}
