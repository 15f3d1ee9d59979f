package certstoretest

import (
	"crypto/x509"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"sallyport/certstore"
	"sallyport/internal/testpki"
	"sallyport/policy/certrule"
)

// Orders is the API that NewClient registers for.
var Orders = certstore.API{Name: "orders", Version: "1.0.0"}

// OddAliases are valid aliases that a careless store confuses with each other, with SQL or with another type.
var OddAliases = []string{
	"acme", "Acme", "ACME", "acmé", "acme\u0301", "a", "...", "it's", `say "hi"`, "$1", "$$", "?", "%", "_", "a%b", ":p", "--", ";",
	"'; DROP TABLE AM_API; --", "🚪", "👩‍👩‍👧", "NULL", "0", "-1", "1e3", "true", "two words",
	strings.Repeat("a", 45), strings.Repeat("🚪", 45),
}

// endingAt makes a certificate that is valid until a moment.
func endingAt(t testing.TB, end time.Time) *x509.Certificate {
	t.Helper()
	return testpki.SelfSigned(t, testpki.Leaf{CommonName: "client", NotAfter: end}).Cert
}

func newCertificate(t testing.TB) *x509.Certificate {
	t.Helper()
	return testpki.SelfSigned(t, testpki.Leaf{CommonName: "client"}).Cert
}

// NewCA returns a complete registration for Orders of a CA, of which leaves with a host name in the domain count.
func NewCA(t testing.TB, alias, domain string) certstore.Client {
	t.Helper()
	c := NewClient(t, alias)
	c.Certificate, c.Match = testpki.NewCA(t, "CA").Cert, NewMatch(t, certrule.Match{DNS: []string{"*." + domain}})
	return c
}

// NewMatch compiles a Match, which must be good.
func NewMatch(t testing.TB, m certrule.Match) *certrule.Matcher {
	t.Helper()
	compiled, err := m.Compile()
	if err != nil {
		t.Fatal(err)
	}
	return compiled
}

// NewClient returns a complete registration for Orders, with a certificate of its own.
func NewClient(t testing.TB, alias string) certstore.Client {
	t.Helper()
	return certstore.Client{
		API:         Orders,
		Alias:       alias,
		KeyType:     certstore.Production,
		Tier:        "Gold",
		Certificate: newCertificate(t),
		Source:      "store",
	}
}

// Open opens a Store until the test ends.
func Open(t testing.TB, url string, opts certstore.Options) *certstore.Store {
	t.Helper()
	s, err := certstore.Open(t.Context(), url, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

// Add registers clients, which must succeed.
func Add(t testing.TB, s *certstore.Store, clients ...certstore.Client) {
	t.Helper()
	for _, c := range clients {
		if err := s.Add(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
}

// List returns the clients of the store, in which there must be no problems.
func List(t testing.TB, s *certstore.Store) []certstore.Client {
	t.Helper()
	clients, problems, err := s.List(t.Context())
	if err != nil || len(problems) > 0 {
		t.Fatalf("list: %v, %v", problems, err)
	}
	return clients
}

// ExpectList expects the store to list exactly the clients wanted, in that order, as they were given to Add.
func ExpectList(t testing.TB, s *certstore.Store, want ...certstore.Client) {
	t.Helper()
	ExpectSame(t, List(t, s), want)
}

// ExpectSame compares clients that a store returned with clients as they were given to Add.
func ExpectSame(t testing.TB, got, want []certstore.Client) {
	t.Helper()
	want = slices.Clone(want)
	for i := range want {
		want[i].Fingerprint = certstore.Fingerprint(want[i].Certificate)
		want[i].Source = "store"
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty(), cmp.Comparer(func(a, b *x509.Certificate) bool { return a.Equal(b) })); diff != "" {
		t.Errorf("the store differs (-want +got):\n%s", diff)
	}
}

// Version returns the store's version.
func Version(t testing.TB, s *certstore.Store) uint64 {
	t.Helper()
	v, err := s.Version(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return v
}
