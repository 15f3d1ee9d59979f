package clientcert

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"sallyport/internal/testpki"
)

// certificates are two valid certificates whose base64 has "+", "/" and padding: what the formats encode differently.
var certificates = sync.OnceValue(func() [2][]byte {
	return [2][]byte{certificate("a client"), certificate("another client")}
})

func certificate(cn string) []byte {
	for {
		der := testpki.SelfSigned(testpki.Panic, testpki.Leaf{CommonName: cn}).Cert.Raw
		if text := base64.StdEncoding.EncodeToString(der); strings.Contains(text, "+") && strings.Contains(text, "/") && len(der)%3 != 0 {
			return der
		}
	}
}

func pemOf(list ...[]byte) string {
	var b strings.Builder
	for _, der := range list {
		b.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	return b.String()
}

// The encodings of load balancers.
var (
	// escaped is NGINX's $ssl_client_escaped_cert: everything but unreserved characters is percent-encoded.
	escaped = func(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }
	// envoyEscaped is Envoy's: of the characters in PEM, those with a meaning in URLs are percent-encoded.
	envoyEscaped = strings.NewReplacer(" ", "%20", "\n", "%0A", "+", "%2B", "/", "%2F", "=", "%3D").Replace
	// albEscaped is AWS ALB's, which leaves "+", "=" and "/" as they are.
	albEscaped = strings.NewReplacer(" ", "%20", "\n", "%0A").Replace
	// spaced is NGINX's $ssl_client_cert after its line ends have become spaces.
	spaced = strings.NewReplacer("\n", " ").Replace
	base   = base64.StdEncoding.EncodeToString
)

func sequence(der []byte) string { return ":" + base(der) + ":" }

// TestParse decodes each encoding to the certificate it was made from, and refuses everything else.
func TestParse(t *testing.T) {
	a, b := certificates()[0], certificates()[1]
	text := pemOf(a)
	sum := sha256.Sum256(a)
	hash := hex.EncodeToString(sum[:])
	key := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("no key at all")}))
	one, two := [][]byte{a}, [][]byte{a, b}

	for _, c := range []struct {
		name   string
		format Format
		value  string
		want   [][]byte // nil: an error
	}{
		{"NGINX, escaped", Auto, escaped(text), one},
		{"escapes in lower case", Auto, strings.NewReplacer("%0A", "%0a", "%2B", "%2b", "%2F", "%2f", "%3D", "%3d").Replace(escaped(text)), one},
		{"a plus that is itself", Auto, albEscaped(text), one},
		{"everything escaped", Auto, everyByte(text), one},
		{"CR LF, escaped", Auto, escaped(strings.ReplaceAll(text, "\n", "\r\n")), one},
		{"spaces for line ends", Auto, spaced(text), one},
		{"tabs for line ends", Auto, strings.ReplaceAll(text, "\n", "\t"), one},
		{"NGINX, folded lines", Auto, strings.ReplaceAll(text, "\n", "\n\t"), one},
		{"no line ends", Auto, strings.ReplaceAll(text, "\n", ""), one},
		{"base64 of DER", Auto, base(a), one},
		{"without padding", Auto, strings.TrimRight(base(a), "="), one},
		{"base64url of DER", Auto, base64.URLEncoding.EncodeToString(a), one},
		{"without padding", Auto, base64.RawURLEncoding.EncodeToString(a), one},
		{"base64 of PEM", Auto, base([]byte(text)), one},
		{"base64url of PEM", Auto, base64.RawURLEncoding.EncodeToString([]byte(text)), one},
		{"byte sequence", Auto, sequence(a), one},
		{"space around", Auto, " \t" + sequence(a) + "\t ", one},

		{"empty", Auto, "", nil},
		{"spaces", Auto, " \t ", nil},
		{"two blocks", Auto, escaped(pemOf(a, b)), nil},
		{"the same block twice", Auto, escaped(pemOf(a, a)), nil},
		{"two blocks with spaces", Auto, spaced(pemOf(a, b)), nil},
		{"two blocks in base64", Auto, base([]byte(pemOf(a, b))), nil},
		{"two values in one line", Auto, escaped(text) + ", " + escaped(text), nil},
		{"two of base64", Auto, base(a) + "," + base(b), nil},
		{"two byte sequences", Auto, sequence(a) + ", " + sequence(b), nil},
		{"a private key", Auto, escaped(key), nil},
		{"a private key behind", Auto, escaped(text + key), nil},
		{"a private key before", Auto, escaped(key + text), nil},
		{"another block", Auto, escaped(strings.ReplaceAll(text, "CERTIFICATE", "TRUSTED CERTIFICATE")), nil},
		{"text before", Auto, escaped("Bag Attributes\n" + text), nil},
		{"text behind", Auto, escaped(text + "x"), nil},
		{"a PEM header", Auto, escaped(strings.Replace(text, "-----\n", "-----\nProc-Type: 4,ENCRYPTED\n\n", 1)), nil},
		{"half a block", Auto, escaped(text[:len(text)/2]), nil},
		{"no end", Auto, escaped(strings.TrimSuffix(text, "-----\n")), nil},
		{"no inside", Auto, escaped("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"), nil},
		{"bad escape", Auto, strings.Replace(escaped(text), "%0A", "%0G", 1), nil},
		{"escape at the end", Auto, escaped(text) + "%", nil},
		{"half an escape", Auto, escaped(text) + "%0", nil},
		{"escape with a sign", Auto, strings.Replace(escaped(text), "%0A", "%+A", 1), nil},
		{"escaped twice", Auto, escaped(escaped(text)), nil},
		{"a plus for a space", Auto, url.QueryEscape(text), nil},
		{"a header behind", Auto, escaped(text) + "%0d%0aX: y", nil},
		{"a header in front", Auto, "X: y%0d%0a" + escaped(text), nil},
		{"a header inside", Auto, strings.Replace(escaped(text), "%0A", "%0d%0aX: y%0d%0a", 1), nil},
		{"NUL", Auto, escaped(text) + "%00", nil},
		{"NUL inside", Auto, strings.Replace(escaped(text), "%0A", "%00", 1), nil},
		{"a byte sequence with parameters", Auto, sequence(a) + ";a=b", nil},
		{"half a byte sequence", Auto, ":" + base(a), nil},
		{"an empty byte sequence", Auto, "::", nil},
		{"a byte sequence in base64url", Auto, ":" + base64.URLEncoding.EncodeToString(a) + ":", nil},
		{"a byte sequence without padding", Auto, ":" + strings.TrimRight(base(a), "=") + ":", nil},
		{"both alphabets", Auto, strings.Replace(base(a), "+", "-", 1), nil},
		{"base64 with spaces", Auto, base(a)[:8] + " " + base(a)[8:], nil},
		{"base64 of base64", Auto, base([]byte(base(a))), [][]byte{[]byte(base(a))}}, // not a certificate, which x509 notices
		{"random text", Auto, "random text, and no certificate", nil},
		{"only a colon", Auto, ":", nil},
		{"only padding", Auto, "====", nil},
		{"64 KiB of A", Auto, strings.Repeat("A", maxHeader), [][]byte{make([]byte, maxHeader/4*3)}},
		{"more", Auto, strings.Repeat("A", maxHeader+1), nil},
		{"64 KiB of %", Auto, strings.Repeat("%", maxHeader), nil},
		{"64 KiB of PEM", Auto, spaced(strings.Repeat(text, maxHeader/len(text))), nil},

		{"pinned", RFC9440, sequence(a), one},
		{"pinned, two", RFC9440, sequence(a) + ", " + sequence(b), nil},
		{"pinned, PEM", RFC9440, escaped(text), nil},
		{"pinned, base64", RFC9440, base(a), nil},
		{"pinned, empty", RFC9440, "", nil},

		{"ALB", ALB, albEscaped(text), one},
		{"ALB, chain", ALB, albEscaped(pemOf(a, b)), two},
		{"ALB, too long a chain", ALB, albEscaped(strings.Repeat(text, maxChain+1)), nil},
		{"ALB, a private key among them", ALB, albEscaped(text + key), nil},
		{"ALB, base64", ALB, base(a), nil},
		{"ALB, byte sequence", ALB, sequence(a), nil},
		{"ALB, empty", ALB, "", nil},
		{"ALB, not escaped", ALB, spaced(text), nil},
		{"ALB, two values", ALB, albEscaped(text) + "," + albEscaped(text), nil},
		{"ALB, escaped twice", ALB, escaped(albEscaped(text)), nil},

		{"XFCC", XFCC, `Cert="` + envoyEscaped(text) + `"`, one},
		{"XFCC, unquoted", XFCC, `Cert=` + escaped(text), one},
		{"XFCC, any case", XFCC, `hASH=` + strings.ToUpper(hash) + `;CERT="` + envoyEscaped(text) + `"`, one},
		{"XFCC, all fields", XFCC, `By=spiffe://a;By=spiffe://b;Hash=` + hash + `;Cert="` + envoyEscaped(text) + `";Subject="CN=\"x\",O=y;z=\\";URI=u;URI=;DNS=a;DNS=b`, one},
		{"XFCC, chain", XFCC, `Cert="` + envoyEscaped(text) + `";Chain="` + envoyEscaped(pemOf(a, b)) + `"`, two},
		{"XFCC, chain without the leaf", XFCC, `Cert="` + envoyEscaped(text) + `";Chain="` + envoyEscaped(pemOf(b)) + `"`, two},
		{"XFCC, chain alone", XFCC, `Chain="` + envoyEscaped(pemOf(a, b)) + `"`, nil},
		{"XFCC, hash alone", XFCC, `Hash=` + hash, nil},
		{"XFCC, another's hash", XFCC, `Hash=` + strings.Repeat("0", 64) + `;Cert="` + envoyEscaped(text) + `"`, nil},
		{"XFCC, an empty hash", XFCC, `Hash=;Cert="` + envoyEscaped(text) + `"`, nil},
		{"XFCC, two certificates", XFCC, `Cert="` + envoyEscaped(text) + `";Cert="` + envoyEscaped(text) + `"`, nil},
		{"XFCC, two in one", XFCC, `Cert="` + envoyEscaped(pemOf(a, b)) + `"`, nil},
		{"XFCC, two elements", XFCC, `Cert="` + envoyEscaped(text) + `",Cert="` + envoyEscaped(pemOf(b)) + `"`, nil},
		{"XFCC, an element before", XFCC, `By=a,Cert="` + envoyEscaped(text) + `"`, nil},
		{"XFCC, an element behind", XFCC, `Cert="` + envoyEscaped(text) + `",By=a`, nil},
		{"XFCC, a comma at the end", XFCC, `Cert="` + envoyEscaped(text) + `",`, nil},
		{"XFCC, a semicolon at the end", XFCC, `Cert="` + envoyEscaped(text) + `";`, nil},
		{"XFCC, something behind the quotes", XFCC, `Cert="` + envoyEscaped(text) + `"x`, nil},
		{"XFCC, an open quote", XFCC, `Cert="` + envoyEscaped(text), nil},
		{"XFCC, a backslash at the end", XFCC, `Cert="` + envoyEscaped(text) + `\`, nil},
		{"XFCC, a quoted element in the subject", XFCC, `Subject="a\";Cert=\"b";Cert="` + envoyEscaped(text) + `"`, one},
		{"XFCC, an unknown key", XFCC, `Certificate="` + envoyEscaped(text) + `"`, nil},
		{"XFCC, no key", XFCC, `="` + envoyEscaped(text) + `"`, nil},
		{"XFCC, a space before the key", XFCC, `By=a; Cert="` + envoyEscaped(text) + `"`, nil},
		{"XFCC, PEM alone", XFCC, escaped(text), nil},
		{"XFCC, a private key", XFCC, `Cert="` + envoyEscaped(text+key) + `"`, nil},
		{"XFCC, too long a chain", XFCC, `Cert="` + envoyEscaped(text) + `";Chain="` + envoyEscaped(strings.Repeat(text, maxChain+1)) + `"`, nil},
		{"XFCC, a bad chain", XFCC, `Cert="` + envoyEscaped(text) + `";Chain="%"`, nil},
		{"XFCC, empty", XFCC, "", nil},

		{"no such format", 99, escaped(text), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := c.format.parse(c.value)
			if (err == nil) != (c.want != nil) {
				t.Fatalf("%d certificates, %v", len(got), err)
			}
			if len(got) != len(c.want) {
				t.Fatalf("%d certificates, want %d", len(got), len(c.want))
			}
			for i := range got {
				if !bytes.Equal(got[i], c.want[i]) {
					t.Errorf("certificate %d differs", i)
				}
			}
			if err != nil && strings.ContainsAny(err.Error(), "\r\n%") {
				t.Errorf("the error quotes what the client sent: %q", err)
			}
		})
	}
}

// everyByte percent-encodes every byte.
func everyByte(text string) string {
	var b strings.Builder
	for i := range len(text) {
		b.WriteByte('%')
		b.WriteString(hex.EncodeToString([]byte{text[i]}))
	}
	return b.String()
}

func testFile(t testing.TB, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(string(data), "\n")
}

// TestRFC9440Example reads the example of RFC 9440 appendix A, and the same certificates in the forms that the
// documentation of Envoy and AWS describes. The elements without a certificate come from that documentation.
func TestRFC9440Example(t *testing.T) {
	list, err := RFC9440.parse(testFile(t, "rfc9440-client-cert.txt"))
	if err != nil {
		t.Fatal(err)
	}
	rest, err := parseByteSequences(testFile(t, "rfc9440-client-cert-chain.txt"))
	if err != nil {
		t.Fatal(err)
	}
	list = append(list, rest...)
	var subjects []string
	for _, der := range list {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		subjects = append(subjects, cert.Subject.CommonName)
	}
	if got := strings.Join(subjects, " / "); got != "BC / LA Intermediate CA / Let's Authenticate Root Authority" {
		t.Errorf("the chain is %s", got)
	}
	for name, c := range map[string]struct {
		format Format
		want   int // certificates; 0: an error
	}{
		"envoy-cert.txt": {XFCC, 1}, "envoy-chain.txt": {XFCC, 3}, "alb-passthrough.txt": {ALB, 3},
		"envoy-no-cert.txt": {XFCC, 0}, "envoy-two-elements.txt": {XFCC, 0},
	} {
		got, err := c.format.parse(testFile(t, name))
		if (err == nil) != (c.want > 0) || len(got) != c.want {
			t.Errorf("%s: %d certificates, %v", name, len(got), err)
			continue
		}
		for i := range got {
			if !bytes.Equal(got[i], list[i]) {
				t.Errorf("%s: certificate %d differs", name, i)
			}
		}
	}
}

// TestParseFormat accepts exactly one spelling of each format.
func TestParseFormat(t *testing.T) {
	for word, want := range map[string]Format{"auto": Auto, "rfc9440": RFC9440, "xfcc": XFCC, "alb": ALB} {
		if got, err := ParseFormat(word); got != want || err != nil {
			t.Errorf("%s: %v, %v", word, got, err)
		}
	}
	for _, word := range []string{"", "AUTO", "nginx", "rfc9440 ", "xfcc,alb"} {
		if _, err := ParseFormat(word); err == nil {
			t.Errorf("%q is a format", word)
		}
	}
}
