package trust_test

import (
	"crypto"
	"crypto/elliptic"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"testing"
	"time"

	"sallyport/internal/testpki"
	"sallyport/listenerprofiles/trust"
)

// names is a critical subjectAltName of otherNames with these types.
func names(t *testing.T, types ...asn1.ObjectIdentifier) func(*x509.Certificate) {
	t.Helper()
	var list []asn1.RawValue
	for _, id := range types {
		name, err := asn1.MarshalWithParams(struct {
			ID    asn1.ObjectIdentifier
			Value string `asn1:"explicit,tag:0,utf8"`
		}{id, "ann@corp.test"}, "tag:0")
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, asn1.RawValue{FullBytes: name})
	}
	value, err := asn1.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	return func(c *x509.Certificate) {
		c.Subject = pkix.Name{}
		c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Critical: true, Value: value})
	}
}

// TestCauses: every reason has a word of its own, whichever door asks, and only what waiting or another trust store cannot
// mend is never good.
func TestCauses(t *testing.T) {
	root := testpki.NewCA(t, "Root")
	upn, other := asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 20, 2, 3}, asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 8, 4}
	strange := pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}}
	issue := func(change ...func(*x509.Certificate)) *testpki.Identity {
		return root.Issue(changed("client", func(c *x509.Certificate) {
			for _, f := range change {
				f(c)
			}
		}))
	}
	usage := func(u x509.KeyUsage) func(*x509.Certificate) { return func(c *x509.Certificate) { c.KeyUsage = u } }
	extra := func(e ...pkix.Extension) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.ExtraExtensions = append(c.ExtraExtensions, e...) }
	}
	keyed := func(key crypto.Signer) *testpki.Identity {
		return root.Issue(testpki.Leaf{CommonName: "client", Key: key})
	}
	old := root.IssueCA("Old", func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Hour) })
	early := root.IssueCA("Early", func(c *x509.Certificate) { c.NotBefore = now.Add(time.Hour) })
	anchors, err := trust.New(chain(root, old, early))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		who   *testpki.Identity
		cause trust.Cause // "": it is good
	}{
		{"no usage", issue(), ""},
		{"digitalSignature", issue(usage(x509.KeyUsageDigitalSignature)), ""},
		{"digitalSignature among others", issue(usage(x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment)), ""},
		{"keyEncipherment", issue(usage(x509.KeyUsageKeyEncipherment)), trust.KeyUsage},
		{"keyAgreement", issue(usage(x509.KeyUsageKeyAgreement)), trust.KeyUsage},
		{"contentCommitment", issue(usage(x509.KeyUsageContentCommitment)), trust.KeyUsage},
		{"a key usage without a bit", issue(extra(pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 15}, Critical: true, Value: []byte{3, 1, 0}})), trust.KeyUsage},
		{"serverAuth", root.Issue(testpki.Leaf{CommonName: "client", Usages: testpki.ServerOnly}), trust.ExtendedKeyUsage},
		{"an extended key usage without one", issue(extra(pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Value: []byte{0x30, 0}})), trust.ExtendedKeyUsage},
		{"expired", issue(func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Second) }), trust.Expired},
		{"not valid yet", issue(func(c *x509.Certificate) { c.NotBefore = now.Add(time.Second) }), trust.NotYetValid},
		{"RSA 1024", keyed(testpki.NewRSA(t, 1024)), trust.Key},
		{"RSA 2048", keyed(testpki.NewRSA(t, 2048)), ""},
		{"P-224", keyed(testpki.NewEC(t, elliptic.P224())), trust.Key},
		{"P-521", keyed(testpki.NewEC(t, elliptic.P521())), ""},
		{"Ed25519", keyed(testpki.NewEd25519(t)), ""},
		{"a critical UPN and no subject", issue(names(t, upn)), ""},
		{"two of them", issue(names(t, upn, upn)), ""},
		{"a critical otherName that is no UPN", issue(names(t, other)), trust.CriticalExtension},
		{"a UPN and such a name", issue(names(t, upn, other)), trust.CriticalExtension},
		{"a critical UPN and an unknown critical extension", issue(names(t, upn), extra(strange)), trust.CriticalExtension},
		{"an unknown critical extension", issue(extra(strange)), trust.CriticalExtension},
		{"of an expired issuer", old.Issue(named("client")), trust.IssuerExpired},
		{"of an issuer that is not valid yet", early.Issue(named("client")), trust.NotYetValid},
		{"of a stranger", testpki.NewCA(t, "Stranger").Issue(named("client")), trust.Untrusted},
		{"of a namesake", testpki.NewCA(t, "Root").Issue(named("client")), trust.Untrusted},
		{"self-signed", testpki.SelfSigned(t, named("client")), trust.Untrusted},
	} {
		_, err := judgeBy(chain(c.who), anchors, false, trust.All, now)
		if got := trust.CauseOf(err); got != c.cause || (err == nil) != (c.cause == "") {
			t.Errorf("%s: %q (%v), want %q", c.name, got, err, c.cause)
		}
		if never := c.cause != "" && c.cause != trust.NotYetValid && c.cause != trust.Untrusted; c.cause.Never() != never {
			t.Errorf("%s is never good: %t", c.cause, !never)
		}
		// A registration stands in for the trust store and for nothing else.
		_, err = judgeBy(chain(c.who), nil, true, trust.All, now)
		own := c.cause == "" || c.cause == trust.Untrusted || c.cause == trust.IssuerExpired || c.name == "of an issuer that is not valid yet"
		if (err == nil) != own {
			t.Errorf("%s, registered: %v", c.name, err)
		}
	}
}

// TestForgeableSignatures: whoever reads why knows that no CA would help.
func TestForgeableSignatures(t *testing.T) {
	root := testpki.NewCA(t, "Root")
	cert, err := x509.ParseCertificate(remade(t, root.Issue(named("client")).Cert, root, ecdsaSHA1, unchanged))
	if err != nil {
		t.Fatal(err)
	}
	anchors, err := trust.New(chain(root))
	if err != nil {
		t.Fatal(err)
	}
	const want = `the certificate is signed by ECDSA-SHA1, which can be forged, so that its issuer "CN=Root" does not vouch for it`
	if _, err := judgeBy([]*x509.Certificate{cert}, anchors, true, trust.SelfSigned, now); trust.CauseOf(err) != trust.Chain || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}
