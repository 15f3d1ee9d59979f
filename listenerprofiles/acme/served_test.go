package acme_test

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"sallyport/internal/testpki"
	"sallyport/internal/testserver"
	"sallyport/listenerprofiles/acme"
)

// TestServedByAnotherCA: until a CA has issued, what another one has issued before serves on, and is due for renewal.
func TestServedByAnotherCA(t *testing.T) {
	folder := t.TempDir()
	root := testpki.NewCA(t, "another CA")
	put := func(ca string, leaf testpki.Leaf) *testpki.Identity {
		t.Helper()
		identity := root.Issue(leaf)
		in := filepath.Join(folder, "served", ca)
		if err := os.MkdirAll(in, 0o700); err != nil {
			t.Fatal(err)
		}
		testserver.Write(t, filepath.Join(in, "a.test.pem"), string(slices.Concat(identity.KeyPEM(), identity.CertPEM())))
		return identity
	}
	put("first", testpki.Leaf{DNSNames: []string{"a.test"}, NotAfter: time.Now().Add(time.Hour)})
	second := put("second", testpki.Leaf{DNSNames: []string{"a.test"}, NotAfter: time.Now().Add(2 * time.Hour)})
	put("third", testpki.Leaf{DNSNames: []string{"a.test"}, NotAfter: time.Now().Add(-time.Hour)})
	m := acme.New(acme.Options{
		Settings: acme.Settings{Directory: "https://ca.example.com/dir", Folder: folder},
		Open:     func(context.Context) (certmagic.Storage, io.Closer, error) { return acme.Files(folder), nil, nil },
	})
	defer m.Close()
	c := m.Certificate("a.test", acme.ECDSA)
	if c.Pair == nil || !c.Pair.Leaf.Equal(second.Cert) {
		t.Fatalf("%+v", c)
	}
	if c.Renews.After(time.Now()) {
		t.Errorf("it is due on %s", c.Renews)
	}
	if c := m.Certificate("a.test", acme.RSA); c.Pair != nil {
		t.Error("a key of another kind")
	}
	if c := m.Certificate("b.test", acme.ECDSA); c.Pair != nil {
		t.Error("a certificate for another name")
	}
}
