//go:build !race

package certstore_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"sallyport/certstore"
)

// TestManyClients registers 2000 clients for one API. The deadline is ten times what that takes; reading every certificate
// of the API for each new one would take thirty times as long.
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
