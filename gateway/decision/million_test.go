//go:build !race

package decision

import (
	"crypto/x509"
	"encoding/binary"
	"errors"
	"runtime"
	"testing"

	"sallyport/gateway/clientcert"
)

// TestMillionStrangers: a million certificates that nobody registered, each with a good leaf, leave nothing behind: no
// bucket, no memory. Held: security I 119.
func TestMillionStrangers(t *testing.T) {
	tab := newTable(t)
	fresh := *tab.exchange
	if err := tab.decide(&fresh); err != nil {
		t.Fatalf("the registered one is refused: %v", err)
	}
	profile := tab.listener.Profiles.Find(fresh.connection.Local, fresh.connection.serverName)
	buckets, heap := tab.limits.Len(), liveHeap()
	for i := range uint64(1_000_000) {
		stranger := *clientcert.FromChain([]*x509.Certificate{tab.leaf}, profile.Rules(), &Clients{}, true, fresh.Started)
		binary.BigEndian.PutUint64(stranger.Fingerprint[:], i)
		x := tab.again(&fresh)
		x.connection = &Connection{Local: fresh.connection.Local, serverName: fresh.connection.serverName}
		x.connection.identity.Store(&identity{listener: tab.listener, profile: profile, certificate: &stranger})
		var r *Refusal
		if err := Decide(x); !errors.As(err, &r) || r.Reason != InvalidCredentials {
			t.Fatalf("stranger %d: %v", i, err)
		}
	}
	if n := tab.limits.Len(); n != buckets {
		t.Errorf("%d buckets, %d before", n, buckets)
	}
	if grown := liveHeap() - heap; grown > 32<<20 {
		t.Errorf("the heap grew by %d MiB", grown>>20)
	}
	runtime.KeepAlive(tab)
}

func liveHeap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
