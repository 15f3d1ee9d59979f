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

// TestSuggestedWindow: the CA moves the window, and the certificate is renewed long before it ends (RFC 9773).
func TestSuggestedWindow(t *testing.T) {
	t.Parallel()
	at := freePorts(t)
	ca := testacme.Start(t, testacme.Options{HTTPPort: at.http, TLSPort: at.tls})
	folder := t.TempDir()
	var n *node
	answer(t, at, func() *node { return n })
	n = start(t, ca, folder)
	wishes := []acme.Wish{{Name: "a.test", Kinds: []string{acme.ECDSA}}}
	n.Want(wishes)
	first := wait(t, n, "a.test", acme.ECDSA, anyOne)
	c := n.Certificate("a.test", acme.ECDSA)
	if left := time.Until(c.Renews); left < 50*24*time.Hour || left > 62*24*time.Hour {
		t.Errorf("renews in %s", left)
	}
	n.stop()

	ca.SuggestWindow(first, time.Now().Add(-time.Hour), time.Now().Add(-time.Minute))
	forgetRetryAfter(t, folder)
	n = start(t, ca, folder)
	n.Want(wishes)
	wait(t, n, "a.test", acme.ECDSA, otherThan(first))
	if ca.Orders() != 2 {
		t.Errorf("%d orders", ca.Orders())
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

// TestStaple: the responder's answer is stapled, is there after a start without the responder, and a certificate that the
// CA has revoked is replaced.
func TestStaple(t *testing.T) {
	t.Parallel()
	at := freePorts(t)
	r := testacme.NewResponder(t)
	ca := testacme.Start(t, testacme.Options{HTTPPort: at.http, TLSPort: at.tls, OCSP: r.URL})
	folder := t.TempDir()
	var n *node
	answer(t, at, func() *node { return n })
	n = start(t, ca, folder)
	wishes := []acme.Wish{{Name: "a.test", Kinds: []string{acme.ECDSA}}}
	n.Want(wishes)
	first := wait(t, n, "a.test", acme.ECDSA, anyOne) // though the responder is away
	n.stop()

	r.Start(ca, first)
	n = start(t, ca, folder)
	n.Want(wishes)
	testserver.Eventually(t, "a staple", func() error { return stapled(n, first) })
	n.stop()

	n = start(t, ca, folder)
	n.Want(wishes)
	testserver.Eventually(t, "a staple from the storage", func() error { return stapled(n, first) })
	if ca.Orders() != 1 {
		t.Errorf("%d orders", ca.Orders())
	}
}

// TestRevoked: a certificate that the CA has revoked is replaced.
func TestRevoked(t *testing.T) {
	t.Parallel()
	at := freePorts(t)
	r := testacme.NewResponder(t)
	ca := testacme.Start(t, testacme.Options{HTTPPort: at.http, TLSPort: at.tls, OCSP: r.URL})
	folder := t.TempDir()
	var n *node
	answer(t, at, func() *node { return n })
	n = start(t, ca, folder)
	wishes := []acme.Wish{{Name: "a.test", Kinds: []string{acme.ECDSA}}}
	n.Want(wishes)
	first := wait(t, n, "a.test", acme.ECDSA, anyOne)
	n.stop()

	r.StartRevoking(ca, first)
	n = start(t, ca, folder)
	n.Want(wishes)
	second := wait(t, n, "a.test", acme.ECDSA, otherThan(first))
	if ca.Orders() != 2 || second.SerialNumber.Cmp(first.SerialNumber) == 0 {
		t.Errorf("%d orders", ca.Orders())
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
	at := freePorts(t)
	ca := testacme.Start(t, testacme.Options{HTTPPort: at.http, TLSPort: at.tls})
	folder := t.TempDir()
	var n *node
	answer(t, at, func() *node { return n })
	n = start(t, ca, folder)
	wishes := []acme.Wish{{Name: "a.test", Kinds: []string{acme.ECDSA}}}
	n.Want(wishes)
	first := wait(t, n, "a.test", acme.ECDSA, anyOne)
	n.stop()

	files, err := filepath.Glob(filepath.Join(folder, "certificates", "*", "a.test", "a.test.key"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%q, %v", files, err)
	}
	testserver.Write(t, files[0], string(otherKey(t)))
	n = start(t, ca, folder)
	if c := n.Certificate("a.test", acme.ECDSA); c.Pair == nil || !c.Pair.Leaf.Equal(first) {
		t.Errorf("at the start: %v", c.Trouble)
	}
	n.Want(wishes)
	second := wait(t, n, "a.test", acme.ECDSA, otherThan(first))
	if _, err := tls.X509KeyPair(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: second.Raw}), read(t, files[0])); err != nil {
		t.Error(err)
	}
}

// TestTidy: a process was killed after the certificate was stored and before its order was forgotten. The next start forgets
// it, and orders nothing.
func TestTidy(t *testing.T) {
	t.Parallel()
	at := freePorts(t)
	ca := testacme.Start(t, testacme.Options{HTTPPort: at.http, TLSPort: at.tls})
	folder := t.TempDir()
	var n *node
	answer(t, at, func() *node { return n })
	n = start(t, ca, folder)
	wishes := []acme.Wish{{Name: "a.test", Kinds: []string{acme.ECDSA}}}
	n.Want(wishes)
	wait(t, n, "a.test", acme.ECDSA, anyOne)
	n.stop()

	stored, err := filepath.Glob(filepath.Join(folder, "certificates", "*", "a.test", "a.test.key"))
	if err != nil || len(stored) != 1 {
		t.Fatalf("%q, %v", stored, err)
	}
	key, err := json.Marshal(string(read(t, stored[0])))
	if err != nil {
		t.Fatal(err)
	}
	pending := filepath.Join(folder, "pending", filepath.Base(filepath.Dir(filepath.Dir(stored[0]))))
	testserver.Write(t, filepath.Join(pending, "a.test.key"), string(key))
	testserver.Write(t, filepath.Join(pending, "a.test.order"), `{"location":"`+ca.Directory+`"}`)
	n = start(t, ca, folder)
	n.Want(wishes)
	testserver.Eventually(t, "nothing is pending", func() error {
		if left, err := os.ReadDir(pending); err != nil || len(left) > 0 {
			return fmt.Errorf("%v, %v", left, err)
		}
		return nil
	})
	if ca.Orders() != 1 {
		t.Errorf("%d orders", ca.Orders())
	}
}
