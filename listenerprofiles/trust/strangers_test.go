package trust_test

import (
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/internal/testpki"
	"sallyport/listenerprofiles/trust"
)

// TestSelfMadeAuthoritiesAreNotVerified: of fifteen authorities of RSA-8192 that a stranger made itself no signature is
// verified, of which each takes a hundred times what looking at the rest does. Held: security L 154.
func TestSelfMadeAuthoritiesAreNotVerified(t *testing.T) {
	root := testpki.NewCA(t, "root")
	key := testpki.RSA8192()
	list := []*testpki.Identity{testpki.SelfSigned(t, testpki.Leaf{CommonName: "own", Key: key, Change: isCA})}
	for i := range 14 {
		list = append(list, list[i].Issue(testpki.Leaf{CommonName: fmt.Sprint("own ", i), Key: key, Change: isCA}))
	}
	leaf := list[14].Issue(testpki.Leaf{CommonName: "stranger"})
	chain := append(leaf.Chain(), list[0].Cert)
	if len(chain) != 16 {
		t.Fatalf("a chain of %d", len(chain))
	}
	fastest := func(do func()) time.Duration {
		best := time.Hour
		for range 10 {
			began := time.Now()
			do()
			best = min(best, time.Since(began))
		}
		return best
	}
	one := fastest(func() {
		if err := chain[1].CheckSignatureFrom(chain[2]); err != nil {
			t.Fatal(err)
		}
	})
	all := fastest(func() {
		anchors, err := trust.New([]*x509.Certificate{root.Cert}) // which has seen nothing yet
		if err != nil {
			t.Fatal(err)
		}
		if _, err := verifyBy(anchors, chain, now); err == nil {
			t.Fatal("a stranger is trusted")
		}
	})
	if all > 3*one {
		t.Errorf("%v for the chain, %v for one of its signatures", all, one)
	}
}

func isCA(c *x509.Certificate) { c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign }

// TestPathsAreFoundInAnyOrder: intermediates that a store vouches for lead to it in whatever order they are shown, beside
// whatever else, and though an entry of the same name and another key comes first.
func TestPathsAreFoundInAnyOrder(t *testing.T) {
	root, namesake := testpki.NewCA(t, "root"), testpki.NewCA(t, "root")
	first := root.IssueCA("first")
	second := first.IssueCA("second")
	third := second.IssueCA("third")
	own := testpki.NewCA(t, "second") // a stranger's, under a name of the path
	leaf := third.Issue(testpki.Leaf{})
	others := []*x509.Certificate{first.Cert, second.Cert, third.Cert, own.Cert, root.Cert}
	for turn := range len(others) {
		chain := []*x509.Certificate{leaf.Cert}
		for i := range others {
			chain = append(chain, others[(i+turn)%len(others)])
		}
		for range 2 {
			anchors, err := trust.New([]*x509.Certificate{namesake.Cert, root.Cert})
			if err != nil {
				t.Fatal(err)
			}
			if v, err := verifyBy(anchors, chain, now); err != nil || !v.Contains(now) {
				t.Errorf("turn %d: %v, %v", turn, v, err)
			}
			slices.Reverse(chain[1:])
		}
	}
}

// TestRefusalsAreRemembered: as long as nothing of chain and store begins or ends to be valid, and not longer.
func TestRefusalsAreRemembered(t *testing.T) {
	begins, ends := now.Add(24*time.Hour), now.Add(48*time.Hour)
	root := testpki.NewCA(t, "root")
	inter := root.IssueCA("inter", func(c *x509.Certificate) { c.NotBefore, c.NotAfter = begins, ends })
	chain := inter.Issue(testpki.Leaf{}).Chain()
	anchors, err := trust.New([]*x509.Certificate{root.Cert})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		at   time.Time
		good bool
	}{{now, false}, {now.Add(time.Hour), false}, {begins.Add(-1), false}, {begins, true}, {now, false}, {ends, true}, {ends.Add(1), false}, {begins, true}} {
		for range 2 {
			if _, err := verifyBy(anchors, chain, c.at); (err == nil) != c.good {
				t.Errorf("at %s: %v", c.at, err)
			}
			if v := anchors.Unchanged(chain, nil, c.at); !v.Contains(c.at) || c.at.Before(begins) && v.Until.After(begins) {
				t.Errorf("at %s: unchanged from %s until %s", c.at, v.From, v.Until)
			}
		}
	}
	_, first := verifyBy(anchors, chain, now)
	if _, again := verifyBy(anchors, chain, now.Add(time.Hour)); first == nil || again != first {
		t.Errorf("verified twice: %v, %v", first, again)
	}
}

// TestBounds: each bound holds by itself, and its error names the key.
func TestBounds(t *testing.T) {
	small, large := testpki.NewCA(t, "small"), testpki.SelfSigned(t, testpki.Leaf{CommonName: "large", Key: testpki.RSA8192()})
	chain := []*x509.Certificate{small.Cert, large.Cert}
	size := len(small.Cert.Raw) + len(large.Cert.Raw)
	for _, c := range []struct {
		bounds trust.Bounds
		says   string
	}{
		{trust.Bounds{}, ""},
		{trust.Bounds{Bytes: size, Certificates: 2, KeyBits: 8192}, ""},
		{trust.Bounds{Bytes: size - 1}, "limits.certificateBytes"},
		{trust.Bounds{Certificates: 1}, "limits.certificates,"},
		{trust.Bounds{KeyBits: 8191}, "limits.certificateKeyBits"},
	} {
		err := c.bounds.Hold(chain)
		if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%+v: %v", c.bounds, err)
		}
		byDER := c.bounds.HoldDER([][]byte{small.Cert.Raw, large.Cert.Raw})
		if (byDER == nil) != (err == nil || c.bounds.KeyBits == 8191) {
			t.Errorf("%+v, as DER: %v", c.bounds, byDER)
		}
	}
	if err := (trust.Bounds{}).Hold(nil); err != nil {
		t.Error(err)
	}
}
