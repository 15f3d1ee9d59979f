package listenerprofiles

import (
	"crypto/tls"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"sallyport/internal/eachfield"
	"sallyport/listenerprofiles/keystore"
)

// A profile is taken over from the last set while its key is the same: a field of Settings that the key misses could
// change in the file and never come into force.
func TestProfileKeyFollowsEveryField(t *testing.T) {
	ref := keystore.Ref{Location: "a.jks", Type: "JKS", Password: "p", KeyPassword: "k", Alias: "a"}
	s := Settings{
		Name: "n", BindAddress: netip.IPv6Unspecified(), ServerName: "a.test", KeyStore: ref, TrustStore: ref, Order: Order{Names: []string{"a.test"}, KeyTypes: []string{"rsa"}},
		Protocols: []uint16{tls.VersionTLS12}, Ciphers: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256},
	}
	before := digest(s, nil, nil, Options{})
	keys := [][32]byte{before.key}
	for path, changed := range eachfield.Change(s) {
		got := digest(changed, nil, nil, Options{})
		if path == "Line" != (got.key == keys[0]) || path != "Line" && slices.Contains(keys, got.key) {
			t.Errorf("a change of %s: the key is one that was there, or follows a place", path)
		} else if path != "Line" {
			keys = append(keys, got.key)
		}
		if secret := strings.HasSuffix(path, "Password"); secret != (got.shown == before.shown) && path != "Line" {
			t.Errorf("a change of %s: the key that is shown must follow all but passwords", path)
		}
		server := strings.HasPrefix(path, "KeyStore.") || strings.HasPrefix(path, "Order.")
		if (server || strings.HasSuffix(path, "Password") || path == "Line") != (got.clients == before.clients) {
			t.Errorf("a change of %s: what clients are judged by is all but the server's keys and passwords", path)
		}
	}
}
