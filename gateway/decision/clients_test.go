package decision

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/certstore"
	"sallyport/internal/testpki"
	"sallyport/policy/ratelimit"
)

// TestNextClients: Next makes of any Clients what NewClients makes of nothing, and leaves those before as they were.
func TestNextClients(t *testing.T) {
	tiers, err := ratelimit.NewTiers(nil)
	if err != nil {
		t.Fatal(err)
	}
	ca := testpki.NewCA(t, "CA")
	var all []certstore.Client
	for i := range 4 {
		leaf := ca.Issue(testpki.Leaf{CommonName: fmt.Sprint("leaf", i)})
		if i%2 == 0 {
			leaf = testpki.SelfSigned(t, testpki.Leaf{CommonName: fmt.Sprint("own", i)})
		}
		for api := range 3 { // so that a certificate is registered for several
			all = append(all, certstore.Client{
				API: certstore.API{Name: fmt.Sprint("api", api), Version: "1"}, Alias: fmt.Sprint("alias", i), KeyType: certstore.Production,
				Certificate: leaf.Cert, Fingerprint: certstore.Fingerprint(leaf.Cert), Source: "test",
			})
		}
	}
	// state is all that a Clients knows, in an order of its own.
	state := func(c *Clients) string {
		var lines []string
		for fingerprint, one := range c.prints {
			several := []string{one.API.Name}
			for _, other := range c.more[fingerprint] {
				several = append(several, other.API.Name)
			}
			slices.Sort(several)
			lines = append(lines, fmt.Sprintf("%x %v", fingerprint[:4], several))
		}
		for client, bucket := range c.buckets {
			lines = append(lines, fmt.Sprintf("%p %p %v", client, bucket, c.Holds(clientKey(client))))
		}
		for _, client := range c.selfIssued {
			lines = append(lines, fmt.Sprintf("%p issued itself", client))
		}
		for _, client := range c.unknown {
			lines = append(lines, fmt.Sprintf("%p has no tier", client))
		}
		slices.Sort(lines)
		return fmt.Sprint(len(c.more), slices.Sorted(maps.Keys(keysOf(c))), strings.Join(lines, "\n"))
	}
	limits := ratelimit.NewLocal(time.Now)
	var index *certstore.Index
	var last *Clients
	for round := range 500 {
		list := slices.DeleteFunc(slices.Clone(all), func(certstore.Client) bool { return rand.IntN(10) == 0 })
		for i := range list {
			list[i].Tier = []string{"Gold", "Silver", "none"}[rand.IntN(12)/5]
		}
		if index, err = index.Next(list); err != nil {
			t.Fatal(err)
		}
		before := ""
		if last != nil {
			before = state(last)
		}
		got, unknown := last.Next(index, tiers, limits)
		want, wanted := NewClients(index, tiers, limits)
		if state(got) != state(want) {
			t.Fatalf("round %d: %s\nwant %s", round, state(got), state(want))
		}
		sorted := func(errs []error) (texts []string) {
			for _, err := range errs {
				texts = append(texts, err.Error())
			}
			slices.Sort(texts)
			return texts
		}
		if !slices.Equal(sorted(unknown), sorted(wanted)) {
			t.Fatalf("round %d: %v, want %v", round, unknown, wanted)
		}
		if last != nil && state(last) != before {
			t.Fatalf("round %d changes the Clients before", round)
		}
		last = got
	}
}

// keysOf are the fingerprints of c.more, as text.
func keysOf(c *Clients) map[string]bool {
	keys := map[string]bool{}
	for fingerprint := range c.more {
		keys[fmt.Sprintf("%x", fingerprint)] = true
	}
	return keys
}
