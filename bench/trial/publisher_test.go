package trial

import (
	"bytes"
	"crypto/x509"
	"io"
	"net/http"
	"testing"

	"golang.org/x/crypto/ocsp"

	"sallyport/bench/pki"
)

// The publisher says of each certificate what it was told, and notes when it first did.
func TestThePublisherTellsWhatIsRevoked(t *testing.T) {
	set, err := pki.Make(t.TempDir(), 0)
	if err != nil {
		t.Fatal(err)
	}
	authority, err := set.NewAuthority("CA")
	if err != nil {
		t.Fatal(err)
	}
	var certs []*x509.Certificate
	for _, name := range []string{"revoked", "kept"} {
		identity, err := authority.NewClient(name, nil)
		if err != nil {
			t.Fatal(err)
		}
		certs = append(certs, identity.Leaf)
	}
	p, err := publish(authority, authority)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.close(); err != nil {
			t.Error(err)
		}
	}()

	body := func(response *http.Response, err error) []byte {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		data, err := io.ReadAll(response.Body)
		if err != nil || response.StatusCode != http.StatusOK {
			t.Fatalf("%s: %q, %v", response.Status, data, err)
		}
		return data
	}
	listed := func() (n int) {
		t.Helper()
		list, err := x509.ParseRevocationList(body(http.Get(p.List)))
		if err != nil {
			t.Fatal(err)
		}
		if err := list.CheckSignatureFrom(authority.Certificate); err != nil {
			t.Error(err)
		}
		for _, entry := range list.RevokedCertificateEntries {
			if entry.SerialNumber.Cmp(certs[0].SerialNumber) != 0 {
				t.Error("the CRL has another certificate")
			}
		}
		return len(list.RevokedCertificateEntries)
	}
	status := func(c *x509.Certificate) int {
		t.Helper()
		question, err := ocsp.CreateRequest(c, authority.Certificate, nil)
		if err != nil {
			t.Fatal(err)
		}
		answer := body(http.Post(p.Responder, "application/ocsp-request", bytes.NewReader(question)))
		response, err := ocsp.ParseResponseForCert(answer, c, authority.Certificate)
		if err != nil {
			t.Fatal(err)
		}
		return response.Status
	}

	if n := listed(); n != 0 || status(certs[0]) != ocsp.Good || !p.told(certs[0]).IsZero() {
		t.Errorf("before: %d in the CRL, status %d, told %v", n, status(certs[0]), p.told(certs[0]))
	}
	if err := p.replaceList(certs[:1]); err != nil {
		t.Fatal(err)
	}
	p.revoke(certs[:1])
	if !p.listShown().IsZero() || !p.told(certs[0]).IsZero() {
		t.Error("it was told before anybody asked")
	}
	if n := listed(); n != 1 || p.listShown().IsZero() {
		t.Errorf("%d in the CRL, shown %v", n, p.listShown())
	}
	if is := status(certs[0]); is != ocsp.Revoked || p.told(certs[0]).IsZero() {
		t.Errorf("the revoked certificate has status %d, told %v", is, p.told(certs[0]))
	}
	if is := status(certs[1]); is != ocsp.Good || !p.told(certs[1]).IsZero() {
		t.Errorf("the other certificate has status %d", is)
	}
}
