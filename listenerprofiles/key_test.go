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
		Name: "n", BindAddress: netip.IPv6Unspecified(), ServerName: "a.test", KeyStore: ref, TrustStore: ref,
		Protocols: []uint16{tls.VersionTLS12}, Ciphers: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256},
	}
	key, shown := profileKeys(s, make([][]byte, 2), Options{})
	keys := [][32]byte{key}
	for path, changed := range eachfield.Change(s) {
		got, show := profileKeys(changed, make([][]byte, 2), Options{})
		if path == "Line" != (got == keys[0]) || path != "Line" && slices.Contains(keys, got) {
			t.Errorf("a change of %s: the key is one that was there, or follows a place", path)
		} else if path != "Line" {
			keys = append(keys, got)
		}
		if secret := strings.HasSuffix(path, "Password"); secret != (show == shown) && path != "Line" {
			t.Errorf("a change of %s: the key that is shown must follow all but passwords", path)
		}
	}
}
