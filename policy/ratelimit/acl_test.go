package ratelimit

import (
	"os"
	"regexp"
	"testing"

	"sallyport/internal/testredis"
)

// TestRulesOfTheDocs: the ACL rules in docs/clusters.md suffice for a limiter, with each kind of bucket, also when Redis
// has lost its scripts.
func TestRulesOfTheDocs(t *testing.T) {
	page, err := os.ReadFile("../../docs/clusters.md")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^ACL SETUSER gateway on >PASSWORD (.+)$`).FindSubmatch(page)
	if m == nil {
		t.Fatal("docs/clusters.md has no rules")
	}
	server := testredis.Start(t, testredis.Options{User: "gateway", Password: "open-sesame", Rules: string(m[1])})
	of := Redis{Addresses: []string{server.Address}, Username: "gateway", Password: "open-sesame"}
	l, _ := run(t, Options{Redis: of, Timeout: patient})
	for range 2 {
		for _, unit := range []Unit{Minute, Day, Month} {
			tier := Tier{Name: unit.String(), RequestCount: 3, UnitTime: 1, TimeUnit: unit}
			b := l.Bucket(Key{Name: unit.String()}, tier)
			if v := Await(t.Context(), l.now, b); !v.Allowed || v.Uncounted {
				t.Errorf("by the %v: %+v; %v", unit, v, l.State().Failing)
			}
		}
		server.Do("SCRIPT", "FLUSH")
	}
	if s := l.State(); s.Failing != nil || s.Uncounted != 0 {
		t.Errorf("the limiter's state: %+v", s)
	}
}
