package assembly

import (
	"crypto/ed25519"
	"crypto/x509"
	"fmt"
	"math/big"
	"net/netip"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"

	"sallyport/cmd/sallyport/internal/config"
	"sallyport/internal/eachfield"
	"sallyport/listenerprofiles/keystore"
	"sallyport/policy/ratelimit"
)

// Every setting reaches the room that it is for: each field that is added to the configuration makes another route,
// upstream, store, profile or door, or an error; or it is named here.
func TestEveryFieldIsHandedOn(t *testing.T) {
	tiers, err := ratelimit.NewTiers(nil)
	if err != nil {
		t.Fatal(err)
	}
	assembled := func() *Assembly {
		return &Assembly{
			Config: &config.Config{}, tiers: tiers, limits: ratelimit.NewLocal(nil), keys: map[ratelimit.Key]bool{}, read: map[string][32]byte{},
		}
	}
	api := config.API{
		Name: "a", Version: "1", Context: "/a", Security: []string{"mutualssl", "oauth2"}, Precedence: "certificate", Policy: "Gold",
		Upstream:  config.Upstream{Protocol: "http1", URLs: []*url.URL{{Host: "a.test"}}},
		Resources: []config.Resource{{Path: "/", Policy: "Gold"}},
	}
	public, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	template := x509.Certificate{SerialNumber: big.NewInt(1)}
	certificate, err := x509.CreateCertificate(nil, &template, &template, public, key)
	if err != nil {
		t.Fatal(err)
	}
	store := config.KeyStore{Location: "s"}
	listener := config.Listener{
		KeyStore: &store, TrustStore: &store, ClientCertificateHeader: "off", DynamicSSLProfiles: &config.DynamicSSLProfiles{FilePath: "f"},
	}
	guard(t, api, func(api config.API) any {
		route, err := assembled().route(api)
		return []any{route, fmt.Sprint(err)}
	}, "ClientCertificates", "Resources[0].Security") // by the next; empty, and equal to the API's
	guard(t, config.ClientCertificate{KeyType: "PRODUCTION", Data: certificate}, func(c config.ClientCertificate) any {
		client, err := fileClient(api, c)
		return []any{client, fmt.Sprint(err)}
	}, "File") // its content is in Data
	guard(t, store, func(k config.KeyStore) any {
		ref := storeRef(&k)
		return [...]string{ref.Location, ref.Type, ref.Alias, ref.Password, ref.KeyPassword}
	})
	guard(t, listener, func(l config.Listener) any {
		cfg, err := profileConfig(l, &config.Config{}, new(keystore.Trust), nil)
		a := assembled()
		a.Config.Listeners = []config.Listener{l}
		return []any{cfg, fmt.Sprint(err), a.Listeners(nil)}
	})
	guard(t, config.MutualSSL{HeaderFormat: "auto", LoadBalancers: config.LoadBalancers{Addresses: []netip.Prefix{{}}}}, func(m config.MutualSSL) any {
		var problems problems
		a := assembled()
		a.Config.MutualSSL = m
		a.loadDoor(Options{}, &problems)
		a.loadRoutes(&problems)
		return []any{a.doorMade, a.Routes, problems}
	}, "EnableCertificateChainValidation", "CertificateReloadPeriod") // refused where it is read; of the watches
}

// guard reports the fields of base, places apart, whose change makes nothing else; beside are those that need not.
func guard[T any](t *testing.T, base T, made func(T) any, beside ...string) {
	t.Helper()
	before := made(base)
	for path, changed := range eachfield.Change(base) {
		if strings.HasPrefix(path, "Pos.") || strings.Contains(path, ".Pos.") || slices.Contains(beside, path) {
			continue
		}
		if reflect.DeepEqual(made(changed), before) {
			t.Errorf("%T: a change of %s changes nothing", base, path)
		}
	}
}
