package testpki_test

import (
	"crypto/tls"
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"sallyport/internal/testpki"
	"sallyport/listenerprofiles/keystore"
)

const password = "changeit"

// today is any day between the ends of a Leaf's zero value.
var today = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

func verify(t *testing.T, leaf *testpki.Identity, name string, usage x509.ExtKeyUsage, at time.Time, roots ...*testpki.Identity) error {
	t.Helper()
	options := x509.VerifyOptions{
		DNSName:       name,
		Roots:         x509.NewCertPool(),
		Intermediates: x509.NewCertPool(),
		CurrentTime:   at,
		KeyUsages:     []x509.ExtKeyUsage{usage},
	}
	for _, root := range roots {
		options.Roots.AddCert(root.Cert)
	}
	for _, c := range leaf.Chain()[1:] {
		options.Intermediates.AddCert(c)
	}
	_, err := leaf.Cert.Verify(options)
	return err
}

func TestLeaf(t *testing.T) {
	root, other := testpki.NewCA(t, "Root"), testpki.NewCA(t, "Root")
	middle := root.IssueCA("Middle")
	client, below := root.Issue(testpki.Leaf{}), middle.Issue(testpki.Leaf{})
	server := middle.IssueServer("gateway.test", "127.0.0.1")
	const forClient, forServer = x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth
	synctestBegins := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		name  string
		leaf  *testpki.Identity
		host  string
		usage x509.ExtKeyUsage
		at    time.Time
		root  *testpki.Identity
		good  bool
	}{
		{"the zero value is a client's", client, "", forClient, today, root, true},
		{"and no server's", client, "", forServer, today, root, false},
		{"when synctest begins", client, "", forClient, synctestBegins, root, true},
		{"now", client, "", forClient, time.Now(), root, true},
		{"before its time", client, "", forClient, time.Date(1998, 1, 1, 0, 0, 0, 0, time.UTC), root, false},
		{"under a root of the same name", client, "", forClient, today, other, false},
		{"under an intermediate", below, "", forClient, today, root, true},
		{"a server by name", server, "gateway.test", forServer, today, root, true},
		{"a server by address", server, "127.0.0.1", forServer, today, root, true},
		{"a server by another name", server, "other.test", forServer, today, root, false},
		{"a server as a client", server, "", forClient, today, root, false},
		{"without usages", root.Issue(testpki.Leaf{Usages: testpki.NoUsages}), "", forServer, today, root, true},
		{"over", root.Issue(testpki.Leaf{NotAfter: today.Add(-time.Second)}), "", forClient, today, root, false},
		{"to come", root.Issue(testpki.Leaf{NotBefore: today.Add(time.Second)}), "", forClient, today, root, false},
		{"under itself", client, "", forClient, today, client, true},
		{"under a leaf", client.Issue(testpki.Leaf{}), "", forClient, today, root, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := verify(t, tt.leaf, tt.host, tt.usage, tt.at, tt.root); (err == nil) != tt.good {
				t.Errorf("got %v", err)
			}
		})
	}
	if client.Cert.SerialNumber.Cmp(below.Cert.SerialNumber) == 0 {
		t.Error("two certificates have one serial number")
	}
}

func TestTLSLeavesTheRootOut(t *testing.T) {
	middle := testpki.NewCA(t, "Root").IssueCA("Middle").IssueCA("Lower")
	if n := len(middle.IssueServer("gateway.test").TLS().Certificate); n != 3 {
		t.Errorf("%d certificates are sent, want the leaf and two intermediates", n)
	}
}

// TestStores opens each kind of store with the code that opens those of users.
func TestStores(t *testing.T) {
	root := testpki.NewCA(t, "Root")
	server := root.IssueCA("Middle").IssueServer("gateway.test")
	for kind, data := range map[string][]byte{"JKS": server.JKS(password), "PKCS12": server.PKCS12(password), "PEM": server.PEM()} {
		store, err := keystore.Open(data, keystore.Ref{Type: kind, Password: password})
		if err != nil {
			t.Fatal(err)
		}
		pairs, err := store.KeyPairs("", today)
		if err != nil || len(pairs) != 1 || !pairs[0].Leaf.Equal(server.Cert) || len(pairs[0].Certificate) != 2 {
			t.Errorf("%s: %v, %v", kind, pairs, err)
		}
	}
	other := testpki.NewCA(t, "Other")
	for kind, data := range map[string][]byte{
		"JKS":    testpki.TrustJKS(t, password, root.Cert, other.Cert),
		"PKCS12": testpki.TrustPKCS12(t, password, root.Cert, other.Cert),
		"PEM":    testpki.PEM(root.Cert, other.Cert),
	} {
		store, err := keystore.Open(data, keystore.Ref{Type: kind, Password: password})
		if err != nil {
			t.Fatal(err)
		}
		if trusted, err := store.Trusted(); err != nil || len(trusted) != 2 {
			t.Errorf("%s: %v, %v", kind, trusted, err)
		}
	}
}

// TestLoad goes on issuing with a CA that was written to files.
func TestLoad(t *testing.T) {
	for name, key := range map[string]testpki.Leaf{
		"P-256":   {Change: asCA},
		"RSA":     {Change: asCA, Key: testpki.NewRSA(t, 2048)},
		"Ed25519": {Change: asCA, Key: testpki.NewEd25519(t)},
	} {
		root := testpki.SelfSigned(t, key)
		again := testpki.Load(t, root.CertPEM(), root.KeyPEM())
		leaf := again.Issue(testpki.Leaf{})
		if err := verify(t, leaf, "", x509.ExtKeyUsageClientAuth, today, root); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := tls.X509KeyPair(leaf.CertPEM(), leaf.KeyPEM()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func asCA(c *x509.Certificate) { c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign }

func TestPanicSaysWhatCannotBeMade(t *testing.T) {
	defer func() {
		if got, _ := recover().(string); !strings.Contains(got, `sign the certificate of "old"`) {
			t.Errorf("panics with %q", got)
		}
	}()
	testpki.SelfSigned(testpki.Panic, testpki.Leaf{CommonName: "old", Change: func(c *x509.Certificate) { c.SignatureAlgorithm = x509.MD5WithRSA }})
}
