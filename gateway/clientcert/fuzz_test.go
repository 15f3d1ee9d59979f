package clientcert

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"net/url"
	"strings"
	"testing"
	"time"

	"sallyport/listenerprofiles/trust"
)

// FuzzParseAuto and the fuzz targets of the other formats check that no value panics, that the result is bounded, and that
// it survives being encoded in that format and parsed again.
func FuzzParseAuto(f *testing.F) {
	a, b := certificates()[0], certificates()[1]
	for _, seed := range []string{
		"", ":", "::", "%", "%0", "-----", "====", escaped(pemOf(a)), escaped(pemOf(a, b)), albEscaped(pemOf(a)), spaced(pemOf(a)), base(a), base([]byte(pemOf(a))),
		sequence(a), escaped(escaped(pemOf(a))), escaped(pemOf(a)) + "%0d%0aX: y", "-----BEGIN CERTIFICATE----------END CERTIFICATE-----", testFile(f, "alb-passthrough.txt"),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		for _, der := range parsed(t, Auto, value, 1) {
			for _, again := range []string{escaped(pemOf(der)), albEscaped(pemOf(der)), spaced(pemOf(der)), sequence(der)} {
				readAgain(t, Auto, again, der)
			}
		}
		sameAsStandard(t, value)
	})
}

func FuzzParseRFC9440(f *testing.F) {
	a := certificates()[0]
	for _, seed := range []string{"", ":", "::", ":=:", sequence(a), sequence(a) + "," + sequence(a), sequence(a) + ";x=1", testFile(f, "rfc9440-client-cert.txt")} {
		f.Add(seed, testFile(f, "rfc9440-client-cert-chain.txt"))
		f.Add(seed, "")
	}
	f.Fuzz(func(t *testing.T, value, chain string) {
		for _, der := range parsed(t, RFC9440, value, 1) {
			readAgain(t, RFC9440, sequence(der), der)
		}
		if list, err := parseByteSequences(chain); err == nil && (len(list) == 0 || len(list) > maxChain) {
			t.Errorf("a chain of %d certificates", len(list))
		}
	})
}

func FuzzParseXFCC(f *testing.F) {
	a := certificates()[0]
	for _, seed := range []string{
		"", "=", `"`, `Cert="`, `Cert="\`, `Cert=;Cert=`, `By=;URI=,By=`, `Cert="` + envoyEscaped(pemOf(a)) + `"`, `cert=` + escaped(pemOf(a)) + `;Hash=00`,
		testFile(f, "envoy-cert.txt"), testFile(f, "envoy-chain.txt"), testFile(f, "envoy-no-cert.txt"), testFile(f, "envoy-two-elements.txt"),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		list := parsed(t, XFCC, value, 1+maxChain)
		if list == nil {
			return
		}
		sum := sha256.Sum256(list[0])
		readAgain(t, XFCC, `Hash=`+hex.EncodeToString(sum[:])+`;Cert="`+envoyEscaped(pemOf(list[0]))+`"`, list[0])
		// A second element is never overlooked, whatever the first contains.
		for _, other := range []string{value + ",By=a", "By=a," + value} {
			if _, err := XFCC.parse(other); err == nil {
				t.Errorf("two elements are taken for one: %q", other)
			}
		}
	})
}

func FuzzParseALB(f *testing.F) {
	a, b := certificates()[0], certificates()[1]
	for _, seed := range []string{"", "%", albEscaped(pemOf(a)), albEscaped(pemOf(a, b)), escaped(pemOf(a)), testFile(f, "alb-passthrough.txt")} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		if list := parsed(t, ALB, value, maxChain); list != nil {
			readAgain(t, ALB, albEscaped(pemOf(list...)), list...)
		}
		sameAsStandard(t, value)
	})
}

// FuzzRead checks that, whatever the headers contain, only the registered and trusted certificate is ever good.
func FuzzRead(f *testing.F) {
	a, b := certificates()[0], certificates()[1]
	cert, err := x509.ParseCertificate(a)
	if err != nil {
		f.Fatal(err)
	}
	anchors, err := trust.New([]*x509.Certificate{cert})
	if err != nil {
		f.Fatal(err)
	}
	now := time.Unix(2e9, 0)
	var doors [4]*Door
	for i := range doors {
		doors[i] = NewDoor(DoorConfig{Header: "Client-Cert", Format: Format(i), Rules: trust.Rules{Anchors: anchors, Registered: trust.None}})
	}
	good := sha256.Sum256(a)
	for i := range doors {
		for _, der := range [][]byte{a, b} {
			for _, seed := range []string{escaped(pemOf(der)), sequence(der), base(der), `Cert="` + envoyEscaped(pemOf(der)) + `"`, albEscaped(pemOf(der, b))} {
				f.Add(uint8(i), seed, "")
				f.Add(uint8(i), seed, sequence(b))
			}
		}
	}
	f.Fuzz(func(t *testing.T, format uint8, value, chain string) {
		r := lines{"Client-Cert": {value}}
		if chain != "" {
			r["Client-Cert-Chain"] = []string{chain}
		}
		c, err := doors[format%4].Read(r, alone{}, now)
		if err != nil || c == nil {
			t.Fatalf("%v, %v", c, err)
		}
		if err := c.Check(now); err != nil {
			if strings.ContainsAny(err.Error(), "\r\n") {
				t.Errorf("the error has more than one line: %q", err)
			}
			return
		}
		if c.Fingerprint != good || !bytes.Equal(c.Leaf.Raw, a) {
			t.Errorf("%q is a good certificate", value)
		}
	})
}

// lines is a request of which only the headers matter.
type lines map[string][]string

func (lines) Method() string                { return "GET" }
func (lines) Target() string                { return "/" }
func (lines) Authority() string             { return "api.test" }
func (l lines) Values(name string) []string { return l[name] }
func (l lines) Count(match func(string) bool) (n int) {
	for name, values := range l {
		if match(name) {
			n += len(values)
		}
	}
	return n
}

// parsed returns the certificates in the value, or nil if the value is refused.
func parsed(t *testing.T, format Format, value string, most int) [][]byte {
	t.Helper()
	list, err := format.parse(value)
	if err != nil {
		return nil
	}
	if len(list) == 0 || len(list) > most || len(value) > maxHeader {
		t.Fatalf("%d certificates in %d bytes", len(list), len(value))
	}
	for _, der := range list {
		if len(der) == 0 || len(der) > len(value) {
			t.Fatalf("a certificate of %d bytes in a value of %d", len(der), len(value))
		}
	}
	return list
}

func readAgain(t *testing.T, format Format, value string, want ...[]byte) {
	t.Helper()
	if len(value) > maxHeader {
		return
	}
	got, err := format.parse(value)
	if err != nil || len(got) != len(want) {
		t.Fatalf("%d certificates, %v, written anew: %q", len(got), err, value)
	}
	for i := range got {
		if !bytes.Equal(got[i], want[i]) {
			t.Fatalf("another certificate, written anew: %q", value)
		}
	}
}

// sameAsStandard compares unescape with net/url.
func sameAsStandard(t *testing.T, value string) {
	t.Helper()
	got, err := unescape(value)
	want, wantErr := url.PathUnescape(value)
	if (err == nil) != (wantErr == nil) || err == nil && string(got) != want {
		t.Errorf("unescaped as %q, %v; by net/url as %q, %v", got, err, want, wantErr)
	}
}
