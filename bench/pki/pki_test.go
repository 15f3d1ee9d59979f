package pki

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"sallyport/bench/load"
)

func TestMake(t *testing.T) {
	s, err := Make(t.TempDir(), 3)
	if err != nil {
		t.Fatal(err)
	}
	extra, err := s.NewClient("extra")
	if err != nil {
		t.Fatal(err)
	}
	read, err := load.Identities(filepath.Join(s.Folder, "clients"))
	if err != nil {
		t.Fatal(err)
	}
	want := append(s.Identities, extra)
	if len(read) != 4 {
		t.Fatalf("%d certificates", len(read))
	}
	for i, c := range read {
		if !c.Leaf.Equal(want[i].Leaf) {
			t.Errorf("%s is another certificate than that of identity %d", c.Leaf.Subject, i)
		}
		usages := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		if _, err := c.Leaf.Verify(x509.VerifyOptions{Roots: s.Roots, KeyUsages: usages}); err != nil {
			t.Errorf("%s: %v", c.Leaf.Subject, err)
		}
	}
	data, err := os.ReadFile(filepath.Join(s.Folder, Server))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(data)
	server, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"localhost", "127.0.0.1"} {
		if _, err := server.Verify(x509.VerifyOptions{Roots: s.Roots, DNSName: name}); err != nil {
			t.Errorf("the server's: %v", err)
		}
	}
}

func TestTokens(t *testing.T) {
	s, err := Make(t.TempDir(), 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, issuer := range s.Issuers {
		data, err := os.ReadFile(filepath.Join(s.Folder, issuer.File))
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(data)
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		tokens, err := issuer.Tokens(2)
		if err != nil {
			t.Fatal(err)
		}
		if tokens[0] == tokens[1] {
			t.Error("two tokens are the same")
		}
		for _, token := range tokens {
			verify := func(*jwt.Token) (any, error) { return key, nil }
			_, err := jwt.Parse(token, verify, jwt.WithIssuer(issuer.URL), jwt.WithExpirationRequired())
			if err != nil {
				t.Errorf("%s: %v", issuer.Name, err)
			}
		}
	}
}
