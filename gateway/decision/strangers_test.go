package decision

import (
	"crypto/x509"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// TestLookedUpBeforeVerified: a certificate that would be trusted is not verified while no API knows it, and nothing that
// was parsed of it is kept. Held: security L 154.
func TestLookedUpBeforeVerified(t *testing.T) {
	tab := newTable(t)
	stranger := New(Options{Now: func() time.Time { return tab.exchange.Started }}) // nobody is registered
	endpoint := new(Endpoint)
	endpoint.SetSettings(tab.listener)
	chain := []*x509.Certificate{tab.leaf}
	c := stranger.Learn(NewConnection(endpoint, netip.AddrPort{}, netip.MustParseAddr("127.0.0.1")), "api.test", chain)
	if chain[0] != nil || c.shown.parsed != nil {
		t.Error("what was parsed is kept")
	}
	if err := c.identity.Load().certificate.Check(tab.exchange.Started); err == nil || !strings.Contains(err.Error(), "registered for no API") {
		t.Errorf("it was verified: %v", err)
	}
	tab.exchange.connection = c // of a gateway that knows it
	if err := Decide(tab.exchange); err != nil {
		t.Errorf("once it is registered: %v", err)
	}
}
