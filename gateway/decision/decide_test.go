package decision

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sallyport/certstore"
	"sallyport/gateway/backend"
	"sallyport/gateway/clientcert"
	"sallyport/gateway/http1"
	"sallyport/internal/testpki"
	"sallyport/listenerprofiles"
	"sallyport/listenerprofiles/keystore"
	"sallyport/listenerprofiles/trust"
	"sallyport/policy"
	"sallyport/policy/ratelimit"
)

// A table is a Decider without sockets, and an Exchange of an mTLS call that it allows.
type table struct {
	decider  *Decider
	limits   *ratelimit.Limiter
	listener *Listener
	exchange *Exchange
	leaf     *x509.Certificate
}

// newTable has one API at /orders, for certificates, with limits on the API, the resource and the client.
func newTable(t testing.TB) *table {
	t.Helper()
	dir := t.TempDir()
	now := time.Date(2031, 2, 3, 4, 5, 6, 0, time.UTC)
	acme := testpki.SelfSigned(t, testpki.Leaf{CommonName: "acme", Change: func(c *x509.Certificate) { c.Subject.OrganizationalUnit = []string{"Orders"} }})
	leaf := acme.Cert
	for name, text := range map[string][]byte{"key.pem": acme.PEM(), "trust.pem": acme.CertPEM()} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	set, err := listenerprofiles.Load(listenerprofiles.Options{Listener: "tls", Own: listenerprofiles.Settings{
		Name:       "listener tls",
		KeyStore:   keystore.Ref{Location: filepath.Join(dir, "key.pem"), Type: "PEM"},
		TrustStore: keystore.Ref{Location: filepath.Join(dir, "trust.pem"), Type: "PEM"},
	}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	limits := ratelimit.NewLocal(func() time.Time { return now })
	many := ratelimit.Tier{Name: "Many", RequestCount: ratelimit.MaxCount, UnitTime: 1, TimeUnit: ratelimit.Second}
	tiers, err := ratelimit.NewTiers([]ratelimit.Tier{many})
	if err != nil {
		t.Fatal(err)
	}
	api := certstore.API{Name: "orders", Version: "1.0.0"}
	security := policy.Security{Certificate: policy.Optional, Token: policy.Optional}
	routes, err := NewTable(Settings{}, []Route{{
		API: api, Context: "/orders", DefaultVersion: true, Security: security,
		Limit: limits.Bucket(ratelimit.Key{API: "orders:1.0.0", Level: ratelimit.LevelAPI}, many),
		Resources: []Resource{{
			Path: "/items/{id}", Methods: []string{"GET"}, Security: security, Scopes: []string{"orders:read"},
			Limit: limits.Bucket(ratelimit.Key{API: "orders:1.0.0", Level: ratelimit.LevelResource, Name: "/items/{id}"}, many),
		}},
		Upstream: backend.Upstream{URLs: []*url.URL{{Scheme: "http", Host: "backend.test"}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	index, err := certstore.NewIndex([]certstore.Client{{
		API: api, Alias: "acme", KeyType: certstore.Production, Tier: "Many", Scopes: []string{"orders:read"}, Certificate: leaf, Source: "test",
	}})
	if err != nil {
		t.Fatal(err)
	}
	clients, unknown := NewClients(index, tiers, limits)
	if unknown != nil {
		t.Fatal(unknown)
	}
	routes.Attach(new(backend.Registry))
	d := New(Options{Now: func() time.Time { return now }})
	d.Set(Snapshot{Routes: routes, Clients: clients})
	l := &Listener{Name: "tls", Address: "127.0.0.1:8243", Profiles: set}
	endpoint := &Endpoint{Address: l.Address}
	endpoint.SetSettings(l)
	c := d.Learn(NewConnection(endpoint, netip.AddrPort{}, netip.MustParseAddr("127.0.0.1")), "api.test", []*x509.Certificate{leaf})
	return &table{decider: d, limits: limits, listener: l, leaf: leaf, exchange: &Exchange{
		Request:  &http1.Request{Method: "GET", Target: "/orders/1.0.0/items/7?expand=all", Host: "api.test"},
		Listener: l, Snapshot: d.Snapshot(), Started: now, ID: NewID(), decider: d,
		connection: c,
	}}
}

// again makes the Exchange as it was before Decide.
func (t *table) again(fresh *Exchange) *Exchange {
	*t.exchange = *fresh
	return t.exchange
}

// decide decides the Exchange as it was before, and gives back what it took.
func (t *table) decide(fresh *Exchange) error {
	x := t.again(fresh)
	err := Decide(x)
	x.place.Leave()
	return err
}

// TestDecideStopsWhereItRefuses: the stage that refuses is the last, and nobody is let in by it.
func TestDecideStopsWhereItRefuses(t *testing.T) {
	tab := newTable(t)
	fresh := *tab.exchange
	for _, c := range []struct {
		name   string
		change func(*Exchange)
		stage  stage
		reason Reason
	}{
		{"no certificate", func(x *Exchange) { x.connection = &Connection{Local: x.connection.Local, serverName: "api.test"} }, stageAuthorize, MissingCredentials},
		{"bad path", func(x *Exchange) { x.Request = &http1.Request{Method: "GET", Target: "/orders/../x", Host: "api.test"} }, stageMatch, BadRequest},
		{"another method", func(x *Exchange) {
			x.Request = &http1.Request{Method: "get", Target: "/orders/items/7", Host: "api.test"}
		}, stageMatch, NoSuchResource},
		{"no routes", func(x *Exchange) { x.Snapshot = &Snapshot{Routes: &Table{}, Clients: &Clients{}} }, stageMatch, NoSuchAPI},
		{"no clients", func(x *Exchange) { x.Snapshot = &Snapshot{Routes: x.Snapshot.Routes, Clients: &Clients{}} }, stageAuthorize, InvalidCredentials},
		{"zero security", func(x *Exchange) {
			routes, err := NewTable(Settings{}, []Route{{
				API: certstore.API{Name: "o", Version: "1"}, Context: "/orders", DefaultVersion: true, Listeners: []string{"tls"},
				Upstream: x.Snapshot.Routes.routes[0].Upstream,
			}})
			if err != nil {
				t.Fatal(err)
			}
			x.Snapshot = &Snapshot{Routes: routes, Clients: x.Snapshot.Clients}
		}, stageAuthorize, InvalidCredentials},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := tab.again(&fresh)
			c.change(x)
			err := Decide(x)
			var r *Refusal
			if !errors.As(err, &r) || r.Reason != c.reason || x.stage != c.stage || x.Access.Allowed || x.Client != nil || x.Claims != nil {
				t.Errorf("got %v at stage %d, access %+v", err, x.stage, x.Access)
			}
		})
	}
}

// TestNoneShown: where a certificate would have counted, the log tells of a handshake that asked for one in vain, and
// nowhere else.
func TestNoneShown(t *testing.T) {
	tab := newTable(t)
	fresh := *tab.exchange
	bare := func(x *Exchange) { x.connection = &Connection{Local: x.connection.Local, serverName: "api.test"} }
	security := func(s policy.Security) func(*Exchange) {
		return func(x *Exchange) {
			bare(x)
			routes, err := NewTable(Settings{}, []Route{{
				API: certstore.API{Name: "o", Version: "1"}, Context: "/orders", DefaultVersion: true, Security: s,
				Upstream: x.Snapshot.Routes.routes[0].Upstream,
			}})
			if err != nil {
				t.Fatal(err)
			}
			x.Snapshot = &Snapshot{Routes: routes, Clients: x.Snapshot.Clients}
		}
	}
	for _, c := range []struct {
		name   string
		change func(*Exchange)
		told   bool
	}{
		{"none came", bare, true},
		{"the API takes none", security(policy.Security{Token: policy.Optional}), false},
		{"one came, and a token is missing", func(x *Exchange) {
			shown := x.connection
			security(policy.Security{Certificate: policy.Mandatory, Token: policy.Mandatory})(x)
			x.connection = shown
			x.Snapshot.Routes.routes[0].API = certstore.API{Name: "orders", Version: "1.0.0"}
		}, false},
		{"none was asked for", func(x *Exchange) {
			bare(x)
			x.Listener.Profiles.Find(x.connection.Local, "api.test").VerifyClient = listenerprofiles.None // from here on
		}, false},
	} {
		x := tab.again(&fresh)
		c.change(x)
		var r *Refusal
		if err := Decide(x); !errors.As(err, &r) || r.Reason != MissingCredentials ||
			errors.Is(x.CertificateProblem(), errNoneShown) != c.told {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// TestHeldToWhatIdentified: whom a call was identified as holds to its end, whatever another call of its connection finds
// meanwhile by a newer snapshot.
func TestHeldToWhatIdentified(t *testing.T) {
	tab := newTable(t)
	x, leaf := tab.exchange, []*x509.Certificate{tab.leaf}
	strict := &listenerprofiles.Profile{Settings: listenerprofiles.Settings{VerifyClient: listenerprofiles.Require}}
	x.identity = &identity{profile: strict, certificate: clientcert.FromChain(leaf, &trust.Rules{Registered: trust.SelfSigned}, tab.decider.Snapshot().Clients, true, x.at())}
	x.connection.identity.Store(&identity{profile: strict, certificate: clientcert.FromChain(leaf, &trust.Rules{Registered: trust.None}, &Clients{}, true, x.at())})
	x.Route = &Route{API: certstore.API{Name: "open", Version: "1.0.0"}}
	var r *Refusal
	if err := holdRegistration(x); !errors.As(err, &r) || r.Reason != InvalidCredentials {
		t.Errorf("another API: %v", err)
	}
}

// TestUsesTellRefusals: a call that nobody answered to its end is none that the gateway answered.
func TestUsesTellRefusals(t *testing.T) {
	tab := newTable(t)
	for _, c := range []struct {
		err      error
		refusals uint64
	}{{nil, 0}, {errBrokenOff, 0}, {errRightEnded, 0}, {refuse(ClientGone, nil), 0}, {refuse(BackendLate, nil), 1}, {refuse(APIThrottled, nil), 1}} {
		before := tab.decider.Uses()[0]
		x := *tab.exchange
		x.Err, x.Certificate, x.Route = c.err, clientcert.Unregistered(sha256.Sum256(tab.leaf.Raw), &Clients{}), tab.decider.Snapshot().Routes.Routes()[0]
		tab.decider.Finish(&x)
		now := tab.decider.Uses()[0]
		if now.Calls != before.Calls+1 || now.Refusals != before.Refusals+c.refusals {
			t.Errorf("%v: %d calls and %d refusals more", c.err, now.Calls-before.Calls, now.Refusals-before.Refusals)
		}
	}
}
