package decision

import (
	"net/netip"
	"testing"

	"sallyport/internal/eachfield"
)

// TestSameListener: listeners are the same if all their settings are, whoever has read them; a reload that changes any
// has to be noticed.
func TestSameListener(t *testing.T) {
	read := func() Listener {
		return Listener{Name: "tls", Address: "127.0.0.1:0", Proxies: &Proxies{netip.MustParsePrefix("10.0.0.0/8")}}
	}
	one, other := read(), read()
	if !one.Same(&other) || !one.Same(&one) || !new(Listener).Same(new(Listener)) {
		t.Error("it is not the same as itself, read twice")
	}
	for path, changed := range eachfield.Change(read()) {
		if one.Same(&changed) || changed.Same(&one) {
			t.Errorf("a change of %s is not noticed", path)
		}
	}
	other.Proxies = nil
	if one.Same(&other) || other.Same(&one) {
		t.Error("it is the same without proxies")
	}
}

// TestProxies: IPv4 is known as a socket for both families shows it, and nobody is one of no proxies.
func TestProxies(t *testing.T) {
	p := &Proxies{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::/32")}
	for a, want := range map[string]bool{"10.1.2.3": true, "::ffff:10.1.2.3": true, "2001:db8::1": true, "11.0.0.1": false, "::1": false} {
		if p.Include(netip.MustParseAddr(a)) != want {
			t.Errorf("%s: %v", a, !want)
		}
	}
	if p.Include(netip.Addr{}) || (*Proxies)(nil).Include(netip.MustParseAddr("10.1.2.3")) || new(Proxies).Include(netip.Addr{}) {
		t.Error("nobody is one")
	}
}
