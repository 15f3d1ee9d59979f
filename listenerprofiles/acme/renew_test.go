package acme_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"sallyport/internal/testacme"
	"sallyport/internal/testserver"
	"sallyport/listenerprofiles/acme"
)

// A home is a folder in which a node has had a certificate issued for a.test; that node was stopped.
type home struct {
	ca     *testacme.CA
	folder string
	node   *node // the last one, which answers the CA
	first  *x509.Certificate
}

var aTest = []acme.Wish{{Name: "a.test", Kinds: []string{acme.ECDSA}}}

func newHome(t testing.TB, o testacme.Options) *home {
	t.Helper()
	at := freePorts(t)
	o.HTTPPort, o.TLSPort = at.http, at.tls
	h := &home{ca: testacme.Start(t, o), folder: t.TempDir()}
	answer(t, at, func() *node { return h.node })
	h.start(t).Want(aTest)
	h.first = wait(t, h.node, "a.test", acme.ECDSA, anyOne)
	h.node.stop()
	return h
}

// start starts another node in the folder.
func (h *home) start(t testing.TB) *node {
	t.Helper()
	h.node = start(t, h.ca, h.folder)
	return h.node
}

// TestSuggestedWindow: the CA moves the window, and the certificate is renewed long before it ends (RFC 9773).
func TestSuggestedWindow(t *testing.T) {
	t.Parallel()
	h := newHome(t, testacme.Options{})
	c := h.node.Certificate("a.test", acme.ECDSA)
	if left := time.Until(c.Renews); left < 50*24*time.Hour || left > 62*24*time.Hour {
		t.Errorf("renews in %s", left)
	}

	h.ca.SuggestWindow(h.first, time.Now().Add(-time.Hour), time.Now().Add(-time.Minute))
	forgetRetryAfter(t, h.folder)
	n := h.start(t)
	n.Want(aTest)
	wait(t, n, "a.test", acme.ECDSA, otherThan(h.first))
	if h.ca.Orders() != 2 {
		t.Errorf("%d orders", h.ca.Orders())
	}
}

// forgetRetryAfter has the CA asked for its window at the next start, and not in six hours.
func forgetRetryAfter(t *testing.T, folder string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "certificates", "*", "*", "*.json"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%q, %v", files, err)
	}
	data, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.Replace(string(data), `"_retryAfter": "20`, `"_retryAfter": "19`, 1)
	if changed == string(data) {
		t.Fatalf("no time to ask again in %s", data)
	}
	testserver.Write(t, files[0], changed)
}

// TestStaple: the responder's answer is stapled, and kept for the next start.
func TestStaple(t *testing.T) {
	t.Parallel()
	r := testacme.NewResponder(t)
	h := newHome(t, testacme.Options{OCSP: r.URL}) // though the responder is away
	r.Start(h.ca, h.first)
	n := h.start(t)
	n.Want(aTest)
	testserver.Eventually(t, "a staple", func() error { return stapled(n, h.first) })
	h.node.stop()

	n = h.start(t)
	n.Want(aTest)
	testserver.Eventually(t, "a staple from the storage", func() error { return stapled(n, h.first) })
	if h.ca.Orders() != 1 {
		t.Errorf("%d orders", h.ca.Orders())
	}
}

// TestRevoked: a certificate that the CA has revoked is replaced.
func TestRevoked(t *testing.T) {
	t.Parallel()
	r := testacme.NewResponder(t)
	h := newHome(t, testacme.Options{OCSP: r.URL})
	r.StartRevoking(h.ca, h.first)
	n := h.start(t)
	n.Want(aTest)
	second := wait(t, n, "a.test", acme.ECDSA, otherThan(h.first))
	if h.ca.Orders() != 2 || second.SerialNumber.Cmp(h.first.SerialNumber) == 0 {
		t.Errorf("%d orders", h.ca.Orders())
	}
}

func stapled(n *node, leaf *x509.Certificate) error {
	c := n.Certificate("a.test", acme.ECDSA)
	if c.Pair == nil || c.Pair.OCSPStaple == nil {
		return errors.New("none")
	}
	res, err := ocsp.ParseResponseForCert(c.Pair.OCSPStaple, leaf, nil) // openssl sends the issuer along
	if err == nil && res.Status != ocsp.Good {
		err = fmt.Errorf("status %d", res.Status)
	}
	return err
}

// TestTorn: a process was killed between the key and the certificate of a renewal. What served before serves, and the
// renewal is made again.
func TestTorn(t *testing.T) {
	t.Parallel()
	h := newHome(t, testacme.Options{})
	files, err := filepath.Glob(filepath.Join(h.folder, "certificates", "*", "a.test", "a.test.key"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%q, %v", files, err)
	}
	testserver.Write(t, files[0], string(otherKey(t)))
	n := h.start(t)
	if c := n.Certificate("a.test", acme.ECDSA); c.Pair == nil || !c.Pair.Leaf.Equal(h.first) {
		t.Errorf("at the start: %v", c.Trouble)
	}
	n.Want(aTest)
	second := wait(t, n, "a.test", acme.ECDSA, otherThan(h.first))
	if _, err := tls.X509KeyPair(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: second.Raw}), read(t, files[0])); err != nil {
		t.Error(err)
	}
}

// TestTidy: a process was killed after the certificate was stored and before its order was forgotten. The next start forgets
// it, and orders nothing.
func TestTidy(t *testing.T) {
	t.Parallel()
	h := newHome(t, testacme.Options{})
	stored, err := filepath.Glob(filepath.Join(h.folder, "certificates", "*", "a.test", "a.test.key"))
	if err != nil || len(stored) != 1 {
		t.Fatalf("%q, %v", stored, err)
	}
	key, err := json.Marshal(string(read(t, stored[0])))
	if err != nil {
		t.Fatal(err)
	}
	pending := filepath.Join(h.folder, "pending", filepath.Base(filepath.Dir(filepath.Dir(stored[0]))))
	testserver.Write(t, filepath.Join(pending, "a.test.key"), string(key))
	testserver.Write(t, filepath.Join(pending, "a.test.order"), `{"location":"`+h.ca.Directory+`"}`)
	n := h.start(t)
	n.Want(aTest)
	testserver.Eventually(t, "nothing is pending", func() error {
		if left, err := os.ReadDir(pending); err != nil || len(left) > 0 {
			return fmt.Errorf("%v, %v", left, err)
		}
		return nil
	})
	if h.ca.Orders() != 1 {
		t.Errorf("%d orders", h.ca.Orders())
	}
}
