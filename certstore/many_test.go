//go:build !race

package certstore_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"sallyport/certstore"
)

// TestManyClients fills one API. The bound is ten times what it takes; reading all certificates of the API for each new
// one takes thirty times as long.
func TestManyClients(t *testing.T) {
	clients := make([]certstore.Client, 2000)
	for i := range clients {
		clients[i] = newClient(t, fmt.Sprint("alias", i))
	}
	s := open(t, "sqlite::memory:", certstore.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	for i, c := range clients {
		if err := s.Add(ctx, c); err != nil {
			t.Fatalf("after %d: %v", i, err)
		}
	}
}
