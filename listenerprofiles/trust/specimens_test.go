package trust_test

import (
	"bytes"
	"crypto"
	"crypto/elliptic"
	_ "crypto/md5"
	"crypto/rand"
	_ "crypto/sha1"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"os/exec"
	"slices"
	"testing"
	"time"

	"sallyport/internal/testpki"
	"sallyport/listenerprofiles/trust"
)

// oid reads an object identifier.
func oid(numbers ...int) asn1.ObjectIdentifier { return numbers }

// extend adds extensions, whatever they hold.
func extend(extensions ...pkix.Extension) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.ExtraExtensions = append(c.ExtraExtensions, extensions...) }
}

func usage(u x509.KeyUsage) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.KeyUsage = u }
}

// der encodes a value that is known to encode.
func der(value any, params string) []byte {
	out, err := asn1.MarshalWithParams(value, params)
	if err != nil {
		panic(err)
	}
	return out
}

// The fields of a TBSCertificate of version 3 (RFC 5280 section 4.1).
const (
	tbsVersion = iota
	tbsSerial
	tbsSignature
	tbsIssuer
	tbsValidity
	tbsSubject
	tbsKey
	tbsExtensions
)

// A signing is an algorithm of signatures that crypto/x509 does not make.
type signing struct {
	hash      crypto.Hash
	algorithm []byte
}

var (
	ecdsaSHA256 = signing{crypto.SHA256, der(pkix.AlgorithmIdentifier{Algorithm: oid(1, 2, 840, 10045, 4, 3, 2)}, "")}
	ecdsaSHA1   = signing{crypto.SHA1, der(pkix.AlgorithmIdentifier{Algorithm: oid(1, 2, 840, 10045, 4, 1)}, "")}
	rsaMD5      = signing{crypto.MD5, der(pkix.AlgorithmIdentifier{Algorithm: oid(1, 2, 840, 113549, 1, 1, 4), Parameters: asn1.NullRawValue}, "")}
	rsaSHA1     = signing{crypto.SHA1, der(pkix.AlgorithmIdentifier{Algorithm: oid(1, 2, 840, 113549, 1, 1, 5), Parameters: asn1.NullRawValue}, "")}
)

// remade is a certificate with fields that crypto/x509 does not write, signed anew by issuer.
func remade(t *testing.T, cert *x509.Certificate, issuer *testpki.Identity, by signing, change func(tbs []asn1.RawValue) []asn1.RawValue) []byte {
	t.Helper()
	var tbs []asn1.RawValue
	if _, err := asn1.Unmarshal(cert.RawTBSCertificate, &tbs); err != nil {
		t.Fatal(err)
	}
	tbs[tbsSignature] = asn1.RawValue{FullBytes: by.algorithm}
	signed := der(change(tbs), "")
	digest := by.hash.New()
	digest.Write(signed)
	signature, err := issuer.Key.Sign(rand.Reader, digest.Sum(nil), by.hash)
	if err != nil {
		t.Fatal(err)
	}
	return der([]asn1.RawValue{
		{FullBytes: signed}, {FullBytes: by.algorithm}, {FullBytes: der(asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}, "")},
	}, "")
}

// with replaces one field.
func with(field int, value []byte) func([]asn1.RawValue) []asn1.RawValue {
	return func(tbs []asn1.RawValue) []asn1.RawValue {
		tbs[field] = asn1.RawValue{FullBytes: value}
		return tbs
	}
}

func unchanged(tbs []asn1.RawValue) []asn1.RawValue { return tbs }

// version1 takes away what version 1 does not have.
func version1(tbs []asn1.RawValue) []asn1.RawValue { return tbs[tbsSerial:tbsExtensions] }

// twice repeats the first extension.
func twice(tbs []asn1.RawValue) []asn1.RawValue {
	var list []asn1.RawValue
	if _, err := asn1.Unmarshal(tbs[tbsExtensions].Bytes, &list); err != nil {
		panic(err)
	}
	tbs[tbsExtensions] = asn1.RawValue{FullBytes: der(append(list, list[0]), "explicit,tag:3")}
	return tbs
}

// nameOf is a name of one common name, in a string type of ASN.1.
func nameOf(commonName, params string) []byte {
	type attribute struct {
		Type  asn1.ObjectIdentifier
		Value asn1.RawValue
	}
	value := asn1.RawValue{FullBytes: der(commonName, params)}
	set := asn1.RawValue{FullBytes: der([]attribute{{oid(2, 5, 4, 3), value}}, "set")}
	return der([]asn1.RawValue{set}, "")
}

// publicKey has openssl make a key of a kind that Go lacks, and returns its SubjectPublicKeyInfo.
func publicKey(t *testing.T, args ...string) []byte {
	t.Helper()
	openssl := lookTool(t, "openssl")
	key, err := exec.CommandContext(t.Context(), openssl, append([]string{"genpkey"}, args...)...).Output()
	if err != nil {
		t.Fatalf("openssl genpkey %q: %v", args, err)
	}
	cmd := exec.CommandContext(t.Context(), openssl, "pkey", "-pubout", "-outform", "DER")
	cmd.Stdin = bytes.NewReader(key)
	public, err := cmd.Output()
	if err != nil {
		t.Fatalf("openssl pkey: %v", err)
	}
	return public
}

var (
	idUPN       = oid(1, 3, 6, 1, 4, 1, 311, 20, 2, 3)
	idKeyUsage  = oid(2, 5, 29, 15)
	idNames     = oid(2, 5, 29, 17)
	idExtended  = oid(2, 5, 29, 37)
	idPolicies  = oid(2, 5, 29, 32)
	idNetscape  = oid(2, 16, 840, 1, 113730, 1, 1)
	idAuthority = oid(2, 5, 29, 35)
)

// generalNames is a subjectAltName of what is given, each an encoded GeneralName.
func generalNames(names ...[]byte) []byte {
	var list []asn1.RawValue
	for _, name := range names {
		list = append(list, asn1.RawValue{FullBytes: name})
	}
	return der(list, "")
}

func upnName(name string) []byte {
	return der(struct {
		ID    asn1.ObjectIdentifier
		Value string `asn1:"explicit,tag:0,utf8"`
	}{idUPN, name}, "tag:0")
}

func dnsName(name string) []byte {
	return der(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 2, Bytes: []byte(name)}, "")
}

func directoryName(commonName string) []byte {
	return der(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 4, IsCompound: true, Bytes: nameOf(commonName, "printable")}, "")
}

// specimens makes all of them, of one root unless they say otherwise.
func specimens(t *testing.T) (all []specimen) {
	root, stranger := testpki.NewCA(t, "Root"), testpki.NewCA(t, "Stranger")
	day := time.Now().Truncate(time.Second)
	leaf := func(change ...func(*x509.Certificate)) testpki.Leaf {
		return testpki.Leaf{CommonName: "client", Change: func(c *x509.Certificate) {
			for _, f := range change {
				f(c)
			}
		}}
	}
	issue := func(change ...func(*x509.Certificate)) *testpki.Identity { return root.Issue(leaf(change...)) }
	usages := func(u ...x509.ExtKeyUsage) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.ExtKeyUsage = u }
	}
	subject := func(name pkix.Name) func(*x509.Certificate) { return func(c *x509.Certificate) { c.Subject = name } }
	expired := func(c *x509.Certificate) { c.NotAfter = day.Add(-time.Hour) }
	early := func(c *x509.Certificate) { c.NotBefore = day.Add(time.Hour) }
	isCA := func(c *x509.Certificate) { c.IsCA = true }
	critical := func(id asn1.ObjectIdentifier, value []byte) func(*x509.Certificate) {
		return extend(pkix.Extension{Id: id, Critical: true, Value: value})
	}

	ders := func(certs ...*x509.Certificate) (list [][]byte) {
		for _, c := range certs {
			list = append(list, c.Raw)
		}
		return list
	}
	trusted := ders(root.Cert)
	add := func(name string, chain, store [][]byte, verdict func(*specimen)) {
		s := specimen{name: name, chain: chain, store: store}
		verdict(&s)
		all = append(all, s)
	}
	by := func(name string, who *testpki.Identity, verdict func(*specimen)) {
		add(name, ders(who.Chain()...), trusted, verdict)
	}
	raw := func(name string, leaf []byte, verdict func(*specimen)) { add(name, [][]byte{leaf}, trusted, verdict) }
	plain := issue()
	public := func(name string, key []byte, verdict func(*specimen)) {
		raw(name, remade(t, plain.Cert, root, ecdsaSHA256, with(tbsKey, key)), verdict)
	}

	// Validity.
	by("plain", plain, good)
	by("expired", issue(expired), bad(trust.Expired))
	by("not yet valid", issue(early), bad(trust.NotYetValid))
	by("valid to the end of time", issue(func(c *x509.Certificate) { c.NotAfter = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC) }),
		good)

	// Extended key usage.
	by("serverAuth", issue(usages(x509.ExtKeyUsageServerAuth)), bad(trust.ExtendedKeyUsage))
	by("serverAuth and clientAuth", issue(usages(x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth)), good)
	by("emailProtection", issue(usages(x509.ExtKeyUsageEmailProtection)), bad(trust.ExtendedKeyUsage))
	by("anyExtendedKeyUsage", issue(usages(x509.ExtKeyUsageAny)), unlike("", false, true,
		"OpenSSL asks for clientAuth by name; RFC 5280 section 4.2.1.12 says that any is any"))
	by("no extended key usage", issue(usages()), good)
	by("an unknown extended key usage", issue(usages(), func(c *x509.Certificate) { c.UnknownExtKeyUsage = []asn1.ObjectIdentifier{oid(1, 2, 3)} }),
		bad(trust.ExtendedKeyUsage))
	by("an empty extended key usage", issue(usages(), extend(pkix.Extension{Id: idExtended, Value: []byte{0x30, 0}})),
		bad(trust.ExtendedKeyUsage))
	by("a critical clientAuth", issue(usages(), critical(idExtended, der([]asn1.ObjectIdentifier{oid(1, 3, 6, 1, 5, 5, 7, 3, 2)}, ""))),
		good)
	by("a Netscape type for servers", issue(usages(), extend(pkix.Extension{Id: idNetscape, Value: []byte{3, 2, 6, 0x40}})),
		unlike("", false, false,
			"an extension of the nineties that no RFC knows: crypto/x509 does not read it"))

	// Key usage.
	by("digitalSignature", issue(usage(x509.KeyUsageDigitalSignature)), good)
	by("digitalSignature and keyEncipherment", issue(usage(x509.KeyUsageDigitalSignature|x509.KeyUsageKeyEncipherment)),
		good)
	by("keyEncipherment", issue(usage(x509.KeyUsageKeyEncipherment)), bad(trust.KeyUsage))
	by("keyAgreement", issue(usage(x509.KeyUsageKeyAgreement)), unlike(trust.KeyUsage, true, false,
		"OpenSSL still counts fixed Diffie-Hellman, which TLS 1.3 and all suites here lack"))
	by("contentCommitment", issue(usage(x509.KeyUsageContentCommitment)), bad(trust.KeyUsage))
	by("keyCertSign", issue(usage(x509.KeyUsageCertSign)), bad(trust.KeyUsage))
	by("a key usage without a bit", issue(critical(idKeyUsage, []byte{3, 1, 0})), bad(trust.KeyUsage))

	// Names and other extensions.
	by("an unknown extension", issue(extend(pkix.Extension{Id: oid(1, 2, 3, 4), Value: []byte{5, 0}})), good)
	by("an unknown critical extension", issue(critical(oid(1, 2, 3, 4), []byte{5, 0})), bad(trust.CriticalExtension))
	by("a critical UPN and no subject", issue(subject(pkix.Name{}), critical(idNames, generalNames(upnName("ann@corp.test")))),
		good)
	by("a UPN and a DNS name", issue(extend(pkix.Extension{Id: idNames, Value: generalNames(upnName("ann@corp.test"), dnsName("ann.test"))})),
		good)
	by("a critical UPN and a DNS name, no subject", issue(subject(pkix.Name{}), critical(idNames, generalNames(upnName("ann@corp.test"), dnsName("ann.test")))),
		good)
	by("a critical registeredID alone", issue(subject(pkix.Name{}), critical(idNames, generalNames([]byte{0x88, 3, 0x2a, 3, 4}))),
		unlike(trust.CriticalExtension, true, true,
			"crypto/x509 leaves it unread, and only userPrincipalNames are read besides"))
	by("a critical directoryName alone", issue(subject(pkix.Name{}), critical(idNames, generalNames(directoryName("ann")))),
		unlike(trust.CriticalExtension, true, true,
			"likewise"))
	by("no subject and no other name", issue(subject(pkix.Name{})), unlike("", true, false,
		"Java wants a name in every certificate; here the certificate is its digest"))
	by("a critical certificate policy", issue(critical(idPolicies, der([][]asn1.ObjectIdentifier{{oid(2, 5, 29, 32, 0)}}, ""))),
		good)
	by("critical name constraints", issue(func(c *x509.Certificate) {
		c.PermittedDNSDomains, c.PermittedDNSDomainsCritical = []string{"corp.test"}, true
	}), good)
	raw("an extension twice", remade(t, plain.Cert, root, ecdsaSHA256, twice), bad(trust.Malformed))
	raw("a DNS name that is not ASCII", root.IssueDER(leaf(extend(pkix.Extension{Id: idNames, Value: generalNames(dnsName("zürich.test"))}))),
		unlike(trust.Malformed, true, true,
			"crypto/x509 reads a certificate whole or not at all"))

	// Authorities.
	by("a CA that may sign", issue(isCA, usage(x509.KeyUsageCertSign|x509.KeyUsageDigitalSignature)), good)
	by("a CA that may sign certificates only", issue(isCA, usage(x509.KeyUsageCertSign)), bad(trust.KeyUsage))
	by("a CA without usages", issue(isCA), good)
	by("under an intermediate", root.IssueCA("Middle").Issue(leaf()), good)
	by("under three intermediates", root.IssueCA("A").IssueCA("B").IssueCA("C").Issue(leaf()), good)
	by("an intermediate that is no CA", root.IssueCA("Middle", func(c *x509.Certificate) { c.IsCA = false }).Issue(leaf()),
		bad(trust.Untrusted))
	by("an intermediate without basic constraints", root.IssueCA("Middle", func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = false, false }).Issue(leaf()),
		bad(trust.Untrusted))
	by("an intermediate that may not sign certificates", root.IssueCA("Middle", usage(x509.KeyUsageCRLSign)).Issue(leaf()),
		bad(trust.Untrusted))
	by("an intermediate for servers", root.IssueCA("Middle", usages(x509.ExtKeyUsageServerAuth)).Issue(leaf()),
		unlike(trust.Chain, false, true,
			"Java does not read extended key usages of authorities"))
	by("an intermediate with an unknown critical extension", root.IssueCA("Middle", critical(oid(1, 2, 3, 4), []byte{5, 0})).Issue(leaf()),
		bad(trust.Chain))
	by("a path of the length allowed", root.IssueCA("A", pathLength(1)).IssueCA("B").Issue(leaf()), good)
	by("too long a path", root.IssueCA("A", pathLength(0)).IssueCA("B").Issue(leaf()), bad(trust.Chain))
	by("an intermediate that has expired", root.IssueCA("Middle", expired).Issue(leaf()), bad(trust.IssuerExpired))
	by("an intermediate that is not valid yet", root.IssueCA("Middle", early).Issue(leaf()), bad(trust.NotYetValid))
	under := func(ca *testpki.Identity) [][]byte { return ders(ca.Issue(leaf()).Cert) }
	old, coming := testpki.NewCA(t, "Old", expired), testpki.NewCA(t, "Coming", early)
	add("a root that has expired", under(old), ders(old.Cert), unlike(trust.IssuerExpired, false, true,
		"RFC 5280 section 6.1.1 takes a name and a key for an anchor, and so does Java; a root's own limits count here"))
	add("a root that is not valid yet", under(coming), ders(coming.Cert), unlike(trust.NotYetValid, false, true,
		"likewise"))
	short := testpki.NewCA(t, "Short", pathLength(0))
	add("too long a path under a root", ders(short.IssueCA("Middle").Issue(leaf()).Chain()...), ders(short.Cert),
		unlike(trust.Chain, false, true,
			"likewise"))
	serving := testpki.NewCA(t, "Serving", usages(x509.ExtKeyUsageServerAuth))
	add("a root for servers", under(serving), ders(serving.Cert), unlike(trust.Chain, false, true,
		"likewise"))
	first := remade(t, testpki.SelfSigned(t, testpki.Leaf{CommonName: "First", Key: root.Key}).Cert, root, ecdsaSHA256, version1)
	firsts := root.Issue(leaf())
	add("a root of version 1", [][]byte{remade(t, firsts.Cert, root, ecdsaSHA256, with(tbsIssuer, nameOf("First", "printable")))}, [][]byte{first},
		good)
	middle := root.IssueCA("Middle")
	add("an intermediate of version 1", [][]byte{middle.Issue(leaf()).Cert.Raw, remade(t, middle.Cert, root, ecdsaSHA256, version1)}, trusted,
		bad(trust.Chain))
	lone := testpki.SelfSigned(t, testpki.Leaf{CommonName: "Lone"})
	add("a root that is no CA", under(lone), ders(lone.Cert), bad(trust.Untrusted))
	constrained := func(f func(*x509.Certificate)) *testpki.Identity {
		return root.IssueCA("Middle", func(c *x509.Certificate) { c.PermittedDNSDomainsCritical = true; f(c) })
	}
	inside := constrained(func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"corp.test"} })
	host := func(name string) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.DNSNames = []string{name} }
	}
	by("a DNS name that is permitted", inside.Issue(leaf(host("a.corp.test"))), good)
	by("a DNS name that is not permitted", inside.Issue(leaf(host("a.corp.example"))), bad(trust.Chain))
	by("a DNS name that is excluded", constrained(func(c *x509.Certificate) { c.ExcludedDNSDomains = []string{"corp.test"} }).Issue(leaf(host("a.corp.test"))),
		bad(trust.Chain))
	by("no name that a constraint is about", inside.Issue(leaf()), unlike("", true, false,
		"Java takes the common name for a DNS name where there is no other"))
	subtree := func(name string) []byte { // permits directoryNames
		base := directoryName(name)
		return der(struct {
			Permitted []struct{ Base asn1.RawValue } `asn1:"tag:0"`
		}{[]struct{ Base asn1.RawValue }{{asn1.RawValue{FullBytes: base}}}}, "")
	}
	forSubjects := func(critical bool, name string) *testpki.Identity {
		return root.IssueCA("Middle", extend(pkix.Extension{Id: oid(2, 5, 29, 30), Critical: critical, Value: subtree(name)}))
	}
	by("a subject that is permitted, critical", forSubjects(true, "client").Issue(leaf()),
		unlike(trust.Chain, true, true,
			"crypto/x509 knows no constraints of directoryNames: critical ones bar their authority"))
	by("a subject that is not permitted, critical", forSubjects(true, "other").Issue(leaf()), bad(trust.Chain))
	by("a subject that is permitted", forSubjects(false, "client").Issue(leaf()), good)
	by("a subject that is not permitted", forSubjects(false, "other").Issue(leaf()), unlike("", false, false,
		"and others, which RFC 5280 section 4.2.1.10 forbids, are passed over"))

	// Paths.
	by("of a stranger", stranger.Issue(leaf()), bad(trust.Untrusted))
	by("of a namesake", testpki.NewCA(t, "Root").Issue(leaf()), bad(trust.Untrusted))
	broken := bytes.Clone(plain.Cert.Raw)
	broken[len(broken)-1] ^= 1
	raw("a wrong signature", broken, bad(trust.Untrusted))
	add("two roots of one name", ders(plain.Cert), ders(testpki.NewCA(t, "Root").Cert, root.Cert), good)
	lower := root.IssueCA("Middle").IssueCA("Lower").Issue(leaf()).Chain()
	add("without its intermediates", ders(lower[:1]...), trusted, bad(trust.Untrusted))
	add("intermediates in reverse", ders(lower[0], lower[2], lower[1]), trusted, good)
	add("with its root", ders(append(slices.Clone(lower), root.Cert)...), trusted, good)
	add("with a stranger's certificates", ders(append(slices.Clone(lower), stranger.Cert, stranger.IssueCA("Other").Cert)...), trusted,
		good)
	add("an intermediate as the trust store", ders(lower[:2]...), ders(lower[1]), unlike("", false, true,
		"OpenSSL ends paths at self-signed entries alone, without -partial_chain"))
	crossed := testpki.Leaf{CommonName: "Middle", Key: middle.Key, Usages: testpki.NoUsages, Change: func(c *x509.Certificate) {
		c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign
	}}
	add("cross-signed, the stranger's first", ders(middle.Issue(leaf()).Cert, stranger.Issue(crossed).Cert, middle.Cert), trusted,
		unlike("", false, true,
			"OpenSSL tries one issuer of what is shown, the first that has the name"))
	add("cross-signed, the stranger's last", ders(middle.Issue(leaf()).Cert, middle.Cert, stranger.Issue(crossed).Cert), trusted,
		good)
	raw("its issuer's name as another string type", remade(t, plain.Cert, root, ecdsaSHA256, with(tbsIssuer, nameOf("Root", "utf8"))),
		unlike(trust.Untrusted, true, true,
			"crypto/x509 compares names byte by byte"))
	raw("its issuer's name in capitals", remade(t, plain.Cert, root, ecdsaSHA256, with(tbsIssuer, nameOf("ROOT", "printable"))),
		unlike(trust.Untrusted, true, true,
			"likewise"))
	raw("a key identifier that is not its issuer's", remade(t, issue(extend(pkix.Extension{
		Id: idAuthority, Value: der(struct {
			ID []byte `asn1:"tag:0"`
		}{[]byte("another")}, ""),
	})).Cert, root, ecdsaSHA256, unchanged), unlike("", false, false,
		"it is a hint (RFC 5280 section 4.2.1.1); the signature tells who has issued it"))

	// The trust store.
	add("self-signed", ders(lone.Cert), trusted, bad(trust.Untrusted))
	add("self-signed in the trust store", ders(lone.Cert), ders(lone.Cert), good)
	aged := testpki.SelfSigned(t, leaf(expired))
	add("self-signed in the trust store, expired", ders(aged.Cert), ders(aged.Cert), unlike(trust.Expired, false, true,
		"Java believes an entry, whatever it says"))
	server := testpki.SelfSigned(t, leaf(usages(x509.ExtKeyUsageServerAuth)))
	add("self-signed in the trust store, serverAuth", ders(server.Cert), ders(server.Cert),
		unlike(trust.ExtendedKeyUsage, false, true,
			"likewise"))
	add("a leaf in the trust store", ders(plain.Cert), ders(plain.Cert), unlike("", false, true,
		"likewise"))
	itself := remade(t, lone.Cert, lone, ecdsaSHA1, unchanged)
	add("self-signed by SHA-1 in the trust store", [][]byte{itself}, [][]byte{itself}, good)

	// Signatures.
	rsa := testpki.NewRSA(t, 2048)
	rsaRoot := testpki.SelfSigned(t, testpki.Leaf{CommonName: "RSA", Key: rsa, Usages: testpki.NoUsages, Change: func(c *x509.Certificate) {
		c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign
	}})
	rsaSigned := rsaRoot.Issue(leaf())
	add("signed by RSA", ders(rsaSigned.Cert), ders(rsaRoot.Cert), good)
	add("signed by RSA-PSS", ders(rsaRoot.Issue(leaf(func(c *x509.Certificate) { c.SignatureAlgorithm = x509.SHA256WithRSAPSS })).Cert), ders(rsaRoot.Cert),
		good)
	add("signed by MD5", [][]byte{remade(t, rsaSigned.Cert, rsaRoot, rsaMD5, unchanged)}, ders(rsaRoot.Cert),
		unlike(trust.Chain, true, false,
			"OpenSSL's verify asks for no strength of signatures unless -auth_level is given, as a server gives it"))
	add("signed by SHA-1", [][]byte{remade(t, rsaSigned.Cert, rsaRoot, rsaSHA1, unchanged)}, ders(rsaRoot.Cert),
		unlike(trust.Chain, true, true,
			"likewise, and Java refuses it for servers only"))
	raw("signed by SHA-1 and ECDSA", remade(t, plain.Cert, root, ecdsaSHA1, unchanged),
		unlike(trust.Chain, true, true,
			"likewise"))

	// Keys.
	keyed := func(key crypto.Signer) *testpki.Identity {
		return root.Issue(testpki.Leaf{CommonName: "client", Key: key})
	}
	by("RSA 1024", keyed(testpki.NewRSA(t, 1024)), unlike(trust.Key, true, true,
		"both leave weak keys to TLS, in which OpenSSL from level 2 up refuses it"))
	by("RSA 2048", keyed(rsa), good)
	by("RSA 8192", keyed(testpki.RSA8192()), good)
	by("P-224", keyed(testpki.NewEC(t, elliptic.P224())), unlike(trust.Key, true, true,
		"TLS 1.3 has no signatures by it"))
	by("P-384", keyed(testpki.NewEC(t, elliptic.P384())), good)
	by("P-521", keyed(testpki.NewEC(t, elliptic.P521())), good)
	by("Ed25519", keyed(testpki.NewEd25519(t)), good)
	public("Ed448", publicKey(t, "-algorithm", "ED448"), unlike(trust.Key, true, true,
		"crypto/tls has no signatures by it"))
	public("Brainpool", publicKey(t, "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:brainpoolP256r1"),
		unlike(trust.Malformed, true, true,
			"crypto/x509 does not know the curve, and reads nothing then"))
	public("secp256k1", publicKey(t, "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:secp256k1"),
		unlike(trust.Malformed, true, true,
			"likewise"))
	public("RSA-PSS", publicKey(t, "-algorithm", "RSA-PSS"), unlike(trust.Key, true, true,
		"crypto/tls has no signatures by keys that are for RSA-PSS alone"))

	// Numbers and versions.
	serial := func(n *big.Int) []byte { return remade(t, plain.Cert, root, ecdsaSHA256, with(tbsSerial, der(n, ""))) }
	raw("the serial number 0", serial(big.NewInt(0)), good)
	raw("a negative serial number", serial(big.NewInt(-5)), unlike(trust.Malformed, true, true,
		"crypto/x509 does not read it (RFC 5280 section 4.1.2.2 forbids it)"))
	raw("a serial number of 21 bytes", serial(new(big.Int).Lsh(big.NewInt(1), 166)), good)
	raw("version 1", remade(t, plain.Cert, root, ecdsaSHA256, version1), good)
	return all
}

func pathLength(n int) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.MaxPathLen, c.MaxPathLenZero = n, n == 0 }
}

// good is for what all three accept.
func good(s *specimen) { s.openssl, s.java = true, true }

// bad is for what all three refuse.
func bad(cause trust.Cause) func(*specimen) {
	return func(s *specimen) { s.ours = cause }
}

// unlike is for what they don't agree about, and why.
func unlike(ours trust.Cause, openssl, java bool, why string) func(*specimen) {
	return func(s *specimen) { s.ours, s.openssl, s.java, s.why = ours, openssl, java, why }
}
