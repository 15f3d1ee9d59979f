//go:build !race

package token

import (
	"fmt"
	"testing"
	"time"
)

func TestMillionTokens(t *testing.T) {
	const size = 1000
	c := newCache(size)
	until := time.Now().Add(time.Hour)
	most := 0
	for i := range 1_000_000 {
		c.add(fmt.Sprint(i), &entry{claims: &Claims{}, until: until})
		if i%1000 == 0 {
			most = max(most, c.entries.EstimatedSize())
		}
	}
	// Eviction lags behind a burst.
	if most > 10*size {
		t.Errorf("%d entries at one time", most)
	}
	c.entries.CleanUp()
	if n := c.entries.EstimatedSize(); n > size {
		t.Errorf("%d entries", n)
	}
}
