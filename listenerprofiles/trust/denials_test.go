package trust_test

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"strings"
	"testing"
	"time"

	"sallyport/internal/testpki"
	"sallyport/listenerprofiles/trust"
)

func denyCertificate(c *x509.Certificate) trust.Denial {
	return trust.Denial{Fingerprint: sha256.Sum256(c.Raw)}
}

func denySerial(c *x509.Certificate) trust.Denial {
	return trust.Denial{Issuer: c.RawIssuer, Serial: c.SerialNumber.Bytes()}
}

func denyKey(c *x509.Certificate) trust.Denial {
	return trust.Denial{Key: sha256.Sum256(c.RawSubjectPublicKeyInfo)}
}

// numbered is a certificate with a serial number.
func numbered(ca *testpki.Identity, serial *big.Int) *x509.Certificate {
	return ca.Issue(testpki.Leaf{CommonName: "client", Change: func(c *x509.Certificate) { c.SerialNumber = serial }}).Cert
}

// TestDenials: each way names what it says, and nothing beside it.
func TestDenials(t *testing.T) {
	one, two := testpki.NewCA(t, "Root"), testpki.NewCA(t, "Other")
	cert := numbered(one, big.NewInt(0x0a01))
	key := testpki.NewKey(t)
	namesake := testpki.NewCA(t, "Root")
	first := one.Issue(testpki.Leaf{CommonName: "client", Key: key}).Cert
	again := one.Issue(testpki.Leaf{CommonName: "client", Key: key}).Cert
	huge := new(big.Int).Lsh(big.NewInt(1), 8*100)
	for name, c := range map[string]struct {
		denial  trust.Denial
		is, not []*x509.Certificate
	}{
		"fingerprint": {denyCertificate(first), []*x509.Certificate{first}, []*x509.Certificate{again, cert}},
		"fingerprint, and a namesake's with that number": {
			denyCertificate(cert), []*x509.Certificate{cert}, []*x509.Certificate{numbered(namesake, big.NewInt(0x0a01))},
		},
		"SPKI": {denyKey(first), []*x509.Certificate{first, again}, []*x509.Certificate{cert, one.Cert}},
		"serial": {
			denySerial(cert),
			[]*x509.Certificate{cert, numbered(one, big.NewInt(0x0a01)), numbered(namesake, big.NewInt(0x0a01))},
			[]*x509.Certificate{numbered(two, big.NewInt(0x0a01)), numbered(one, big.NewInt(0x0a)), numbered(one, big.NewInt(0x0a0100)), first},
		},
		"serial with leading zeros": {
			trust.Denial{Issuer: cert.RawIssuer, Serial: []byte{0, 0, 0x0a, 1}}, []*x509.Certificate{cert}, []*x509.Certificate{first},
		},
		"serial 1": {
			trust.Denial{Issuer: cert.RawIssuer, Serial: []byte{1}},
			[]*x509.Certificate{numbered(one, big.NewInt(1))},
			[]*x509.Certificate{numbered(one, big.NewInt(256)), numbered(two, big.NewInt(1))},
		},
		"serial with the highest bit": {
			trust.Denial{Issuer: cert.RawIssuer, Serial: []byte{0xff, 1}},
			[]*x509.Certificate{numbered(one, big.NewInt(0xff01))},
			[]*x509.Certificate{numbered(one, big.NewInt(0xff))},
		},
		"serial of 101 bytes": {
			trust.Denial{Issuer: cert.RawIssuer, Serial: huge.Bytes()},
			[]*x509.Certificate{numbered(one, huge)},
			[]*x509.Certificate{numbered(one, new(big.Int).Add(huge, big.NewInt(1)))},
		},
		"nothing": {trust.Denial{}, nil, []*x509.Certificate{cert, first}},
	} {
		c.denial.Comment = name
		list := trust.NewDenials([]trust.Denial{{Fingerprint: [32]byte{1}}, c.denial})
		for _, cert := range c.is {
			if entry := list.Find([]*x509.Certificate{two.Cert, nil, cert}); entry == nil || entry.Comment != name {
				t.Errorf("%s: serial %x of %s is not found: %v", name, cert.SerialNumber, cert.Issuer, entry)
			}
		}
		for _, cert := range c.not {
			if entry := list.Find([]*x509.Certificate{cert}); entry != nil {
				t.Errorf("%s: serial %x of %s is found: %+v", name, cert.SerialNumber, cert.Issuer, entry)
			}
		}
	}
	var none *trust.Denials
	if none.Len() != 0 || none.Find([]*x509.Certificate{cert}) != nil || none.FindMarks(trust.MarksOf(cert)) != nil {
		t.Error("a nil list is not empty")
	}
}

// TestDenialOfANegativeSerial: crypto/x509 reads no such certificate, and one that had come in all the same is not the one
// with the number without its sign.
func TestDenialOfANegativeSerial(t *testing.T) {
	cert := numbered(testpki.NewCA(t, "Root"), big.NewInt(5))
	negative := *cert
	negative.SerialNumber = big.NewInt(-5)
	list := trust.NewDenials([]trust.Denial{denySerial(cert)})
	if list.Find([]*x509.Certificate{cert}) == nil || list.Find([]*x509.Certificate{&negative}) != nil {
		t.Error("a negative serial number is taken for another")
	}
}

// TestDenialOfAnotherStringType: a name in other types of strings, or letter case, is another issuer's, as it is when paths
// are built.
func TestDenialOfAnotherStringType(t *testing.T) {
	der := func(value string, tag int) []byte {
		name := pkix.RDNSequence{{{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: asn1.RawValue{Tag: tag, Bytes: []byte(value)}}}}
		b, err := asn1.Marshal(name)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	cert := numbered(testpki.NewCA(t, "Root"), big.NewInt(5))
	of := func(issuer []byte) *x509.Certificate {
		other := *cert
		other.RawIssuer = issuer
		return &other
	}
	printableName, utf8Name := der("Root", asn1.TagPrintableString), der("Root", asn1.TagUTF8String)
	list := trust.NewDenials([]trust.Denial{{Issuer: printableName, Serial: []byte{5}}})
	for name, c := range map[string]struct {
		issuer []byte
		found  bool
	}{
		"the same": {printableName, true}, "UTF8String": {utf8Name, false}, "another case": {der("root", asn1.TagPrintableString), false},
		"more of it": {append(bytes.Clone(printableName), 0), false}, "less of it": {printableName[:len(printableName)-1], false},
	} {
		if found := list.Find([]*x509.Certificate{of(c.issuer)}) != nil; found != c.found {
			t.Errorf("%s: found %t", name, found)
		}
	}
}

// TestDenied: the cause is one that may end, and the text says which entry, since when and why, on one line.
func TestDenied(t *testing.T) {
	cert := numbered(testpki.NewCA(t, "Root"), big.NewInt(0x0a01))
	entry := denySerial(cert)
	entry.Since, entry.Comment = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC), "stolen\n"+strings.Repeat("x", 300)
	entry.By = func() string { return "serial 0a01 of \n" + strings.Repeat("y", 300) }
	err := trust.DeniedBy(trust.NewDenials([]trust.Denial{entry}).Find([]*x509.Certificate{cert}))
	if cause := trust.CauseOf(err); cause != trust.Denied || string(cause) != "denied" || cause.Never() {
		t.Errorf("cause %q, never: %t", cause, cause.Never())
	}
	text := err.Error()
	for _, part := range []string{"deny list", "serial 0a01", "2026-11-30T12:00:00Z", "stolen"} {
		if !strings.Contains(text, part) {
			t.Errorf("%q does not say %q", text, part)
		}
	}
	if strings.Contains(text, "\n") || len(text) > 700 {
		t.Errorf("the text is %q", text)
	}
}

// TestDenialsCostNothing: to ask takes no memory, however long the list is.
func TestDenialsCostNothing(t *testing.T) {
	cert := numbered(testpki.NewCA(t, "Root"), new(big.Int).Lsh(big.NewInt(1), 159))
	path := []*x509.Certificate{cert}
	long := make([]trust.Denial, 0, 3000)
	for i := range 1000 {
		serial := big.NewInt(int64(i + 1)).Bytes()
		print := sha256.Sum256(serial)
		long = append(long, trust.Denial{Issuer: cert.RawIssuer, Serial: serial}, trust.Denial{Fingerprint: print}, trust.Denial{Key: print})
	}
	for name, list := range map[string]*trust.Denials{
		"nil": nil, "empty": trust.NewDenials(nil), "long": trust.NewDenials(long), "denied": trust.NewDenials(append(long, denySerial(cert))),
	} {
		var found *trust.Denial
		if n := testing.AllocsPerRun(100, func() { found = list.Find(path) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
		if (found != nil) != (name == "denied") {
			t.Errorf("%s: %v", name, found)
		}
	}
}

func BenchmarkDenials(b *testing.B) {
	cert := numbered(testpki.NewCA(b, "Root"), big.NewInt(5))
	list := make([]trust.Denial, 0, 100_000)
	for i := range cap(list) {
		list = append(list, trust.Denial{Issuer: cert.RawIssuer, Serial: big.NewInt(int64(1000 + i)).Bytes()})
	}
	denials, path, marks := trust.NewDenials(list), []*x509.Certificate{cert}, trust.MarksOf(cert)
	b.Run("none", func(b *testing.B) {
		none := trust.NewDenials(nil)
		for b.Loop() {
			none.FindMarks(marks)
		}
	})
	b.Run("marks", func(b *testing.B) {
		for b.Loop() {
			denials.FindMarks(marks)
		}
	})
	b.Run("path", func(b *testing.B) {
		for b.Loop() {
			denials.Find(path)
		}
	})
	b.Run("new", func(b *testing.B) {
		for b.Loop() {
			trust.NewDenials(list)
		}
	})
}
