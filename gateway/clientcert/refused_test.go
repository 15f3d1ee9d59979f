package clientcert_test

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"testing"
	"time"

	"sallyport/gateway/clientcert"
	"sallyport/internal/testpki"
	"sallyport/listenerprofiles/trust"
)

// TestRefusedHeadersAreRemembered: a header whose certificate is not good is read once, until it may be good. Held:
// security L 154.
func TestRefusedHeadersAreRemembered(t *testing.T) {
	root, other := testpki.NewCA(t, "Root"), testpki.NewCA(t, "Other")
	good, untrusted, late := root.Issue(between(-2, 2)), other.Issue(between(-2, 2)), root.Issue(between(1, 2))
	door := clientcert.NewDoor(clientcert.DoorConfig{Header: wso2, Rules: trust.Rules{Anchors: trusting(t, root)}})
	read := func(i *testpki.Identity, registered func([sha256.Size]byte) bool, now time.Time) *clientcert.Certificate {
		t.Helper()
		c, err := door.Read(lines{wso2: {nginx(i)}}, knows(registered), now)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}

	all := only(good, untrusted, late)
	first := read(untrusted, all, noon)
	if first.Check(noon) == nil {
		t.Fatal("another root's is good")
	}
	if read(untrusted, all, noon.Add(time.Hour)) != first {
		t.Error("an untrusted certificate is read again")
	}
	if nobodys := read(good, only(), noon); nobodys.Check(noon) == nil || read(good, only(), noon) != nobodys {
		t.Error("an unregistered certificate is good, or read again")
	}
	if read(good, all, noon).Check(noon) != nil {
		t.Error("a certificate that was registered since is not good")
	}
	if read(late, all, noon).Check(noon) == nil {
		t.Error("good before its time")
	}
	if begun := noon.Add(day); read(late, all, begun).Check(begun) != nil {
		t.Error("still refused in its time")
	}

	// Strangers have a share of their own: the client is remembered all the same.
	known := read(good, all, noon)
	for i := range 50_000 {
		if _, err := door.Read(lines{wso2: {fmt.Sprint("stranger ", i)}}, knows(all), noon); err != nil {
			t.Fatal(err)
		}
	}
	if read(good, all, noon) != known {
		t.Error("strangers displace a client")
	}
}

// TestHeaderBeyondTheLimits: what a header holds has the bounds of a handshake.
func TestHeaderBeyondTheLimits(t *testing.T) {
	root := testpki.NewCA(t, "Root")
	inter := root.IssueCA("Intermediate")
	leaf := inter.Issue(testpki.Leaf{Key: testpki.RSA8192()})
	size := len(leaf.Cert.Raw) + len(inter.Cert.Raw)
	sequence := func(c *x509.Certificate) string { return ":" + base64.StdEncoding.EncodeToString(c.Raw) + ":" }
	for _, c := range []struct {
		bounds trust.Bounds
		good   bool
	}{
		{trust.Bounds{}, true},
		{trust.Bounds{Bytes: size, Certificates: 2, KeyBits: 8192}, true},
		{trust.Bounds{Bytes: size - 1}, false},
		{trust.Bounds{Certificates: 1}, false},
		{trust.Bounds{KeyBits: 4096}, false},
	} {
		door := clientcert.NewDoor(clientcert.DoorConfig{
			Header: "Client-Cert", Format: clientcert.RFC9440, Rules: trust.Rules{Anchors: trusting(t, root)}, Shown: c.bounds,
		})
		r := lines{"Client-Cert": {sequence(leaf.Cert)}, "Client-Cert-Chain": {sequence(inter.Cert)}}
		got, err := door.Read(r, knows(only(leaf)), noon)
		if err != nil {
			t.Fatal(err)
		}
		if problem := got.Check(noon); (problem == nil) != c.good {
			t.Errorf("%+v: %v", c.bounds, problem)
		}
	}
}
