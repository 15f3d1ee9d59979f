package revocation

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/internal/testpki"
)

func TestParseListRefuses(t *testing.T) {
	ca := newCA(t, "CA")
	unknown := pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}}
	entry := func(e pkix.Extension) []byte {
		der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
			Number: big.NewInt(1), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour),
			RevokedCertificateEntries: []x509.RevocationListEntry{
				{SerialNumber: big.NewInt(1), RevocationTime: time.Now(), ExtraExtensions: []pkix.Extension{e}},
			},
		}, ca.Cert, ca.Key)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	scoped := func(s scope) []byte {
		return crl{extensions: []pkix.Extension{critical(t, oidScope, s)}}.der(t, ca)
	}
	for _, tt := range []struct {
		name string
		der  []byte
		want string
	}{
		{"an unknown critical extension", crl{extensions: []pkix.Extension{unknown}}.der(t, ca), "critical extension 1.2.3 is not known"},
		{"an unknown critical extension of an entry", entry(unknown), "entry 1: a critical extension is not known"},
		{"the issuer of an entry", entry(critical(t, asn1.ObjectIdentifier{2, 5, 29, 29}, "x")), "entry 1: a critical extension is not known"},
		{"indirect", scoped(scope{Indirect: true}), "indirectCRL"},
		{"some reasons", scoped(scope{SomeReasons: asn1.BitString{Bytes: []byte{0x60}, BitLength: 4}}), "onlySomeReasons"},
		{"attribute certificates", scoped(scope{Attributes: true}), "onlyContainsAttributeCerts"},
		{"users and CAs", scoped(scope{OnlyUsers: true, OnlyCAs: true}), "user certificates only and for CA certificates only"},
		{"a point by another name", scoped(scope{Name: pointName{Full: []asn1.RawValue{{Class: 2, Tag: 2, Bytes: []byte("x")}}}}), "has no address"},
		{"a malformed scope", crl{extensions: []pkix.Extension{critical(t, oidScope, 1)}}.der(t, ca), "malformed issuingDistributionPoint"},
		{"a delta below its base", crl{number: 3, base: 4}.der(t, ca), "a number, or with one below"},
		{"a delta of nothing", crl{extensions: []pkix.Extension{critical(t, oidDelta, "x")}}.der(t, ca), "malformed deltaCRLIndicator"},
		{"an extension twice", crl{extensions: []pkix.Extension{extension(t, asn1.ObjectIdentifier{1, 2, 4}, 1), extension(t, asn1.ObjectIdentifier{1, 2, 4}, 1)}}.der(t, ca), "twice"},
		{"upside down", oldList(t, ca, time.Now(), time.Now().Add(-time.Hour)), "nextUpdate is before thisUpdate"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := parseList(tt.der); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

// oldList is a CRL of version 1, which has one entry and may have no nextUpdate.
func oldList(t testing.TB, ca *testpki.Identity, this, next time.Time, revoked ...*testpki.Identity) []byte {
	t.Helper()
	type entry struct {
		Serial *big.Int
		Time   time.Time
	}
	type tbs struct {
		Algorithm pkix.AlgorithmIdentifier
		Issuer    asn1.RawValue
		This      time.Time
		Next      time.Time `asn1:"optional"`
		Revoked   []entry   `asn1:"optional,omitempty"`
	}
	algorithm := pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}} // ecdsa-with-SHA256
	body := tbs{Algorithm: algorithm, Issuer: asn1.RawValue{FullBytes: ca.Cert.RawSubject}, This: this.UTC()}
	if !next.IsZero() {
		body.Next = next.UTC()
	}
	for _, one := range revoked {
		body.Revoked = append(body.Revoked, entry{one.Cert.SerialNumber, this.UTC()})
	}
	der, err := asn1.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256(der)
	signature, err := ca.Key.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	all, err := asn1.Marshal(struct {
		TBS       asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}{asn1.RawValue{FullBytes: der}, algorithm, asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestListWithoutNextUpdate(t *testing.T) {
	ca := newCA(t, "CA")
	good, bad := ca.Issue(testpki.Leaf{}), ca.Issue(testpki.Leaf{})
	this := time.Now().Add(-time.Hour)
	c, err := New(Options{}).Checker(Policy{CRL: []string{file(t, oldList(t, ca, this, time.Time{}, bad))}})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		leaf *testpki.Identity
		at   time.Duration // after thisUpdate
		want Status
	}{
		{"good", good, time.Hour, Good},
		{"revoked", bad, time.Hour, Revoked},
		{"good for a day", good, withoutNextUpdate - time.Minute, Good},
		{"and no longer", good, withoutNextUpdate + time.Second, Unknown},
		{"but revoked for ever", bad, withoutNextUpdate + time.Second, Revoked},
	} {
		if a := c.Status(path(tt.leaf, ca), this.Add(tt.at)); a.Status != tt.want {
			t.Errorf("%s: %+v", tt.name, a)
		}
	}
}

func TestSignatures(t *testing.T) {
	for _, tt := range []struct {
		name      string
		key       crypto.Signer
		algorithm x509.SignatureAlgorithm
	}{
		{"RSA SHA-256", testpki.NewRSA(t, 2048), x509.SHA256WithRSA},
		{"RSA SHA-384", testpki.NewRSA(t, 2048), x509.SHA384WithRSA},
		{"RSA SHA-512", testpki.NewRSA(t, 2048), x509.SHA512WithRSA},
		{"PSS SHA-256", testpki.NewRSA(t, 2048), x509.SHA256WithRSAPSS},
		{"PSS SHA-384", testpki.NewRSA(t, 2048), x509.SHA384WithRSAPSS},
		{"PSS SHA-512", testpki.NewRSA(t, 2048), x509.SHA512WithRSAPSS},
		{"P-256", testpki.NewKey(t), x509.ECDSAWithSHA256},
		{"P-384", testpki.NewEC(t, elliptic.P384()), x509.ECDSAWithSHA384},
		{"P-521", testpki.NewEC(t, elliptic.P521()), x509.ECDSAWithSHA512},
		{"Ed25519", testpki.NewEd25519(t), x509.PureEd25519},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ca := testpki.SelfSigned(t, testpki.Leaf{CommonName: "CA", Key: tt.key, Usages: testpki.NoUsages, Change: func(c *x509.Certificate) {
				c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign
			}})
			serials := make([]*big.Int, 3_000) // hashed in pieces
			for i := range serials {
				serials[i] = big.NewInt(int64(i + 1000))
			}
			der := crl{serials: serials, algorithm: tt.algorithm}.der(t, ca)
			l, err := parseList(bytes.Clone(der))
			if err != nil {
				t.Fatal(err)
			}
			if err := l.check(newIssuer(ca.Cert)); err != nil {
				t.Error(err)
			}
			head, err := x509.ParseRevocationList(der)
			if err != nil || head.CheckSignatureFrom(ca.Cert) != nil {
				t.Fatal("x509 doesn't take it", err)
			}
			der[bytes.Index(der, []byte{2, 2, 3, 0xe8})+3] ^= 1 // another serial number
			if l, err = parseList(der); err != nil {
				t.Fatal(err)
			}
			if l.check(newIssuer(ca.Cert)) == nil {
				t.Error("a forged list is taken for the issuer's")
			}
		})
	}
	t.Run("another kind of key", func(t *testing.T) {
		l, err := parseList(crl{}.der(t, newCA(t, "CA")))
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range []crypto.Signer{testpki.NewRSA(t, 2048), testpki.NewEd25519(t)} {
			cert := &x509.Certificate{PublicKey: key.Public()}
			if err := l.verify(cert); err == nil || !strings.Contains(err.Error(), "another kind of key") {
				t.Errorf("%T: %v", key, err)
			}
		}
		l.algorithm = x509.PureEd25519
		if l.verify(&x509.Certificate{PublicKey: ed25519.PublicKey(make([]byte, ed25519.PublicKeySize))}) == nil {
			t.Error("a signature of ECDSA is taken for one of Ed25519")
		}
	})
}

func TestSerials(t *testing.T) {
	for _, n := range []string{"0", "1", "7f", "80", "ff", "100", "7fff", "8000", "-1", "-80", "-81", "ffffffffffffffffffffffffffffffffffffffff"} {
		serial, _ := new(big.Int).SetString(n, 16)
		der, err := asn1.Marshal(serial)
		if err != nil {
			t.Fatal(err)
		}
		if got := appendSerial([]byte("x"), serial); string(got) != "x"+string(der[2:]) || !isInteger(der[2:]) {
			t.Errorf("%s is %x, want %x", n, got[1:], der[2:])
		}
	}
	for _, bad := range [][]byte{{}, {0, 1}, {0xff, 0x80}} {
		if isInteger(bad) {
			t.Errorf("%x is taken for an INTEGER", bad)
		}
	}
}

func TestSortHashes(t *testing.T) {
	for _, n := range []int{0, 1, 100, pieceItems, pieceItems + 1, 100_000} {
		hashes := make([]uint64, n)
		for i := range hashes {
			hashes[i] = hashSerial(big.NewInt(int64(i / 2)).Bytes()) // each twice
		}
		want := slices.Sorted(slices.Values(hashes))
		if sortHashes(hashes); !slices.Equal(hashes, want) {
			t.Errorf("%d hashes are not sorted", n)
		}
	}
}

// large is a CRL of 50 MB, with 1.3 million entries, and the CA that it is of.
var large = sync.OnceValues(func() ([]byte, *testpki.Identity) {
	t := testpki.Panic
	ca := newCA(t, "Large")
	template, err := asn1.Marshal(struct {
		Serial     *big.Int
		Time       time.Time
		Extensions []pkix.Extension
	}{new(big.Int).Lsh(big.NewInt(1), 38), time.Now().UTC(), []pkix.Extension{{Id: oidReason, Value: []byte{10, 1, 1}}}})
	if err != nil {
		panic(err)
	}
	const size = 50_000_000
	entries := make([]byte, 0, size)
	for i := uint32(0); len(entries)+len(template) <= size; i++ {
		at := len(entries)
		entries = append(entries, template...)
		copy(entries[at+5:], []byte{byte(i >> 24), byte(i >> 16), byte(i >> 8), byte(i)})
	}
	algorithm := pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}}
	tbs, err := asn1.Marshal(struct {
		Version   int
		Algorithm pkix.AlgorithmIdentifier
		Issuer    asn1.RawValue
		This      time.Time
		Next      time.Time
		Revoked   asn1.RawValue
	}{
		1, algorithm,
		asn1.RawValue{FullBytes: ca.Cert.RawSubject},
		time.Now().UTC(), time.Now().Add(24 * time.Hour).UTC(),
		asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: entries},
	})
	if err != nil {
		panic(err)
	}
	digest := sha256.Sum256(tbs)
	signature, err := ca.Key.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		panic(err)
	}
	der, err := asn1.Marshal(struct {
		TBS       asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}{asn1.RawValue{FullBytes: tbs}, algorithm, asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}})
	if err != nil {
		panic(err)
	}
	return der, ca
})

func BenchmarkLoadLarge(b *testing.B) {
	der, _ := large()
	at := file(b, der)
	b.SetBytes(int64(len(der)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := New(Options{}).Checker(Policy{CRL: []string{at}}); err != nil {
			b.Fatal(err)
		}
	}
}

// FuzzParseList compares what is read with what x509 reads: of all that x509 takes, and that is not refused for a reason
// of ours, the revoked serial numbers are the same.
func FuzzParseList(f *testing.F) {
	ca := newCA(testpki.Panic, "CA")
	leaf := ca.Issue(testpki.Leaf{})
	f.Add(crl{}.der(f, ca))
	f.Add(crl{revoked: []*testpki.Identity{leaf, ca}}.der(f, ca))
	f.Add(crl{number: 5, base: 3, revoked: []*testpki.Identity{ca}, removed: []*testpki.Identity{leaf}}.der(f, ca))
	f.Add(crl{extensions: []pkix.Extension{critical(f, oidScope, scope{Name: named("http://127.0.0.1/1.crl"), OnlyUsers: true})}}.der(f, ca))
	f.Add(crl{extensions: []pkix.Extension{extension(f, oidFreshest, []point{{Name: named("http://127.0.0.1/d.crl")}})}}.der(f, ca))
	f.Add(oldList(f, ca, time.Now(), time.Time{}, leaf))
	f.Add(crl{revoked: []*testpki.Identity{leaf}}.pem(f, ca))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) == 0 || data[0] != 0x30 {
			_, _ = parseLists(data) // PEM: it must not panic
			return
		}
		want, refused := x509.ParseRevocationList(data)
		got, err := parseList(bytes.Clone(data))
		if refused != nil || err != nil {
			if refused == nil && errors.Is(err, errMalformed) {
				t.Fatalf("x509 takes it, and it is called malformed: %v", err)
			}
			return
		}
		var revoked, removed []uint64
		for _, e := range want.RevokedCertificateEntries {
			h := hashSerial(appendSerial(nil, e.SerialNumber))
			if e.ReasonCode == removeFromCRL && got.base != nil {
				removed = append(removed, h)
			} else {
				revoked = append(revoked, h)
			}
		}
		slices.Sort(revoked)
		slices.Sort(removed)
		if !slices.Equal(got.revoked, revoked) || !slices.Equal(got.removed, removed) {
			t.Fatalf("%d revoked, %d removed; x509 says %d, %d", len(got.revoked), len(got.removed), len(revoked), len(removed))
		}
		if !got.thisUpdate.Equal(want.ThisUpdate) || !got.nextUpdate.Equal(want.NextUpdate) || !bytes.Equal(got.issuer, want.RawIssuer) {
			t.Fatal("the head is read in another way")
		}
		if hash := hashOf[got.algorithm]; hash != 0 && !bytes.Equal(got.signed, sum(hash, want.RawTBSRevocationList)) {
			t.Fatal("the signature is checked over something else")
		}
	})
}
