package revocation

import (
	"crypto/x509"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/internal/testpki"
	"sallyport/internal/testserver"
)

// An opensslCA is `openssl ca` in a folder.
type opensslCA struct {
	*testpki.Identity
	t   *testing.T
	dir string
}

const opensslConfig = `
[ca]
default_ca = here
[here]
dir = .
database = index.txt
crlnumber = crlnumber
certificate = ca.pem
private_key = key.pem
default_md = sha256
default_crl_days = 1
crl_extensions = full
[full]
authorityKeyIdentifier = keyid:always
[delta]
authorityKeyIdentifier = keyid:always
deltaCRL = critical, ASN1:INTEGER:%s
[users]
authorityKeyIdentifier = keyid:always
issuingDistributionPoint = critical, @userPoint
[userPoint]
fullname = URI:http://127.0.0.1/users.crl
onlyuser = TRUE
[indirect]
issuingDistributionPoint = critical, @indirectPoint
[indirectPoint]
indirectCRL = TRUE
`

// newOpenSSL is a CA that has issued certificates, by the name of its key pair.
func newOpenSSL(t *testing.T, ca *testpki.Identity) *opensslCA {
	o := &opensslCA{ca, t, t.TempDir()}
	testserver.Tool(t, "openssl", "openssl")
	testserver.Write(t, filepath.Join(o.dir, "ca.pem"), string(ca.CertPEM()))
	testserver.Write(t, filepath.Join(o.dir, "key.pem"), string(ca.KeyPEM()))
	testserver.Write(t, filepath.Join(o.dir, "crlnumber"), "0A\n")
	testserver.Write(t, filepath.Join(o.dir, "index.txt"), "")
	o.configure("0A")
	return o
}

func (o *opensslCA) configure(base string) {
	testserver.Write(o.t, filepath.Join(o.dir, "openssl.cnf"), fmt.Sprintf(opensslConfig, "0x"+base))
}

func (o *opensslCA) openssl(args ...string) {
	o.t.Helper()
	command := exec.Command("openssl", args...)
	command.Dir = o.dir
	if out, err := command.CombinedOutput(); err != nil {
		o.t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// revoke puts a certificate on the lists that are made from then on.
func (o *opensslCA) revoke(leaf *testpki.Identity, reason string) {
	o.t.Helper()
	testserver.Write(o.t, filepath.Join(o.dir, "leaf.pem"), string(leaf.CertPEM()))
	o.openssl("ca", "-config", "openssl.cnf", "-revoke", "leaf.pem", "-crl_reason", reason)
}

// list makes a CRL.
func (o *opensslCA) list(extensions string, args ...string) []byte {
	o.t.Helper()
	o.openssl(append([]string{"ca", "-config", "openssl.cnf", "-gencrl", "-crlexts", extensions, "-out", "out.crl"}, args...)...)
	data, err := os.ReadFile(filepath.Join(o.dir, "out.crl"))
	if err != nil {
		o.t.Fatal(err)
	}
	return data
}

// TestOpenSSL takes CRLs of openssl ca: complete ones, a delta, scopes, and a certificate on hold.
func TestOpenSSL(t *testing.T) {
	for name, ca := range map[string]*testpki.Identity{
		"ECDSA": newCA(t, "OpenSSL"),
		"RSA": testpki.SelfSigned(t, testpki.Leaf{CommonName: "OpenSSL", Key: testpki.NewRSA(t, 2048), Usages: testpki.NoUsages, Change: func(c *x509.Certificate) {
			c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign
		}}),
	} {
		t.Run(name, func(t *testing.T) {
			o := newOpenSSL(t, ca)
			good, gone, held, late := ca.Issue(testpki.Leaf{CommonName: "good"}), ca.Issue(testpki.Leaf{CommonName: "gone"}),
				ca.Issue(testpki.Leaf{CommonName: "held"}), ca.Issue(testpki.Leaf{CommonName: "late"})
			o.revoke(gone, "keyCompromise")
			o.revoke(held, "certificateHold")
			at := file(t, o.list("full"))
			r := run(t, Options{})
			c := r.checker(Policy{CRL: []string{at}})
			want := func(c *Checker, good1, gone1, held1, late1 Status) {
				t.Helper()
				eventually(t, c, path(late, ca), late1)
				for _, one := range []struct {
					id   *testpki.Identity
					want Status
				}{{good, good1}, {gone, gone1}, {held, held1}} {
					if a := c.Status(path(one.id, ca), time.Now()); a.Status != one.want {
						t.Errorf("%s: %+v, want %v", one.id.Cert.Subject, a, one.want)
					}
				}
			}
			want(c, Good, Revoked, Revoked, Good)
			if row := r.State()[0]; row.Number != "10" || row.Entries != 2 || row.Issuer != "CN=OpenSSL" {
				t.Errorf("%+v", row)
			}

			o.revoke(late, "superseded")
			delta := file(t, o.list("delta"))
			both := r.checker(Policy{CRL: []string{at, delta}})
			want(both, Good, Revoked, Revoked, Revoked)
			want(c, Good, Revoked, Revoked, Good) // whose policy has no delta
			put(t, at, o.list("full"))
			want(c, Good, Revoked, Revoked, Revoked)
		})
	}
}

// TestOpenSSLScopes takes or refuses lists with an issuingDistributionPoint.
func TestOpenSSLScopes(t *testing.T) {
	ca := newCA(t, "OpenSSL")
	o := newOpenSSL(t, ca)
	o.revoke(ca.Issue(testpki.Leaf{CommonName: "gone"}), "unspecified")
	c, err := New(Options{}).Checker(Policy{CRL: []string{file(t, o.list("users"))}})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		leaf *testpki.Identity
		want Status
	}{
		{naming(ca, []string{"http://127.0.0.1/users.crl"}, nil), Good},
		{naming(ca, []string{"http://127.0.0.1/others.crl"}, nil), Unknown},
		{ca.IssueCA("Inner", func(c *x509.Certificate) { c.CRLDistributionPoints = []string{"http://127.0.0.1/users.crl"} }), Unknown},
	} {
		if a := c.Status(path(tt.leaf, ca), time.Now()); a.Status != tt.want {
			t.Errorf("%s: %+v, want %v", tt.leaf.Cert.Subject, a, tt.want)
		}
	}
	if _, err := New(Options{}).Checker(Policy{CRL: []string{file(t, o.list("indirect"))}}); err == nil || !strings.Contains(err.Error(), "indirectCRL") {
		t.Errorf("an indirect CRL: %v", err)
	}
}

// TestOpenSSLResponder asks openssl ocsp, as the issuer and as its delegate.
func TestOpenSSLResponder(t *testing.T) {
	ca := newCA(t, "OpenSSL")
	delegate := ca.Issue(testpki.Leaf{CommonName: "responder", Usages: ocspSigning})
	impostor := ca.Issue(testpki.Leaf{CommonName: "client"})
	for _, tt := range []struct {
		name   string
		signer *testpki.Identity
		good   Status
		gone   Status
	}{
		{"issuer", ca, Good, Revoked},
		{"delegate", delegate, Good, Revoked},
		{"client", impostor, Unknown, Unknown},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := newOpenSSL(t, ca)
			port := testserver.FreePort(t)
			url := []string{"http://127.0.0.1:" + port}
			good, gone, stranger := naming(ca, nil, url), naming(ca, nil, url), naming(ca, nil, url)
			o.revoke(gone, "keyCompromise")
			index, err := os.ReadFile(filepath.Join(o.dir, "index.txt"))
			if err != nil {
				t.Fatal(err)
			}
			line := fmt.Sprintf("V\t21000101000000Z\t\t%02X\tunknown\t/CN=good\n", good.Cert.SerialNumber)
			testserver.Write(t, filepath.Join(o.dir, "index.txt"), line+string(index))
			testserver.Write(t, filepath.Join(o.dir, "signer.pem"), string(tt.signer.CertPEM()))
			testserver.Write(t, filepath.Join(o.dir, "signer.key"), string(tt.signer.KeyPEM()))
			p := testserver.Process{T: t, Program: testserver.Tool(t, "openssl", "openssl"), Dir: o.dir}
			p.Start(func() []string {
				return []string{
					"ocsp", "-port", port, "-index", "index.txt", "-CA", "ca.pem", "-rsigner", "signer.pem", "-rkey", "signer.key", "-nmin", "5",
				}
			}, func() error { // whoever connects and says nothing keeps it busy
				if data, _ := os.ReadFile(filepath.Join(o.dir, "output")); !strings.Contains(string(data), "waiting for OCSP client") {
					return fmt.Errorf("it does not wait for anybody yet")
				}
				return nil
			})
			c := run(t, Options{Budget: 30 * time.Second}).checker(Policy{OCSP: true})
			for _, one := range []struct {
				leaf *testpki.Identity
				want Status
			}{{good, tt.good}, {gone, tt.gone}, {stranger, Unknown}} {
				if a := asked(c, path(one.leaf, ca)); a.Status != one.want {
					t.Errorf("%+v, want %v", a, one.want)
				}
			}
		})
	}
}
