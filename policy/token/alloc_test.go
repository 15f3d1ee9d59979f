//go:build !race

package token_test

import (
	"testing"

	"sallyport/policy/token"
)

func TestAllocationsOfCached(t *testing.T) {
	now := newClock()
	v := edVerifier(t, now)
	raw := edToken(t, kid("ed"), goodClaims(now.Now()))
	if _, err := v.Verify(t.Context(), raw); err != nil {
		t.Fatal(err)
	}
	other := "x" + raw
	if n := testing.AllocsPerRun(1000, func() {
		if _, ok := v.Cached(raw); !ok {
			t.Fatal("not cached")
		}
		if _, ok := v.Cached(other); ok {
			t.Fatal("cached")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestAllocationsOfBearer(t *testing.T) {
	line := "Bearer " + edToken(t, kid("ed"), goodClaims(newClock().Now()))
	if n := testing.AllocsPerRun(1000, func() {
		if raw, err := token.Bearer(line); raw == "" || err != nil {
			t.Fatal(raw, err)
		}
		if raw, err := token.Bearer("Bearer a b"); raw != "" || err == nil {
			t.Fatal(raw, err)
		}
		if token.WithoutBearer(line) != "" || token.WithoutBearer("Basic YQ==, Negotiate") == "" {
			t.Fatal("something is left, or nothing")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
