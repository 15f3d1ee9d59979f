package gateway_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/lestrrat-go/jwx/v3/jwk"

	"sallyport/certstore"
	"sallyport/gateway"
	"sallyport/gateway/backend"
	"sallyport/gateway/decision"
	"sallyport/internal/testpki"
	"sallyport/listenerprofiles"
	"sallyport/listenerprofiles/keystore"
	"sallyport/listenerprofiles/revocation"
	"sallyport/listenerprofiles/trust"
	"sallyport/policy"
	"sallyport/policy/ratelimit"
	"sallyport/policy/token"
)

// A clock stands still until Advance.
type clock struct{ nano atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.nano.Store(time.Date(2031, 2, 3, 4, 5, 6, 0, time.UTC).UnixNano())
	return c
}

func (c *clock) Now() time.Time          { return time.Unix(0, c.nano.Load()) }
func (c *clock) Advance(d time.Duration) { c.nano.Add(int64(d)) }

// run has the clock go as time does until the test ends.
func (c *clock) run(t testing.TB) {
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for last := time.Now(); ; {
			select {
			case <-end:
				return
			case now := <-time.After(10 * time.Millisecond):
				c.Advance(now.Sub(last))
				last = now
			}
		}
	}()
	t.Cleanup(func() { close(end); <-ended })
}

// A fixture is a gateway between real sockets: its profiles are read from files, and its tokens are verified with real keys.
// The test sets its clock.
type fixture struct {
	*world
	dir      string
	clock    *clock
	backend  *testBackend
	gateway  *gateway.Gateway
	address  string // of the TLS listener
	plain    string // of the plain one
	tiers    *ratelimit.Tiers
	limits   *ratelimit.Limiter
	settings decision.Settings
	routes   []decision.Route
	claims   []decision.Claim
	clients  []certstore.Client
	log      *logBook
	stop     func() error // ends Run and returns its error

	listeners []decision.Listener
	vouching  trust.Registered
	chains    bool // registered CAs admit what they have issued
	registry  *revocation.Registry
	policy    revocation.Policy // of the listener, and of profiles; zero: nothing is looked up
	table     atomic.Pointer[decision.Table]
	first     atomic.Pointer[decision.Listener] // of the listeners in force
	inForce   atomic.Pointer[decision.Clients]
	deny      atomic.Pointer[trust.Denials]
	mu        sync.Mutex
	calls     []seen
}

// A setup is what a test may change before the fixture starts.
type setup struct {
	config   gateway.Options
	settings decision.Settings
	routes   []decision.Route
	claims   []decision.Claim
	clients  []certstore.Client
}

// allProfiles are those of the TLS listener. Other server names get the listener's own settings, which demand certificates.
var allProfiles = []string{"open.test none", "opt.test optional", "mtls.test require", "*.wild.test optional", "hard.wild.test require"}

var (
	payAPI  = certstore.API{Name: "pay", Version: "1.0"}
	bothAPI = certstore.API{Name: "both", Version: "1.0"}
	tokAPI  = certstore.API{Name: "tok", Version: "1.0"}
	pubAPI  = certstore.API{Name: "pub", Version: "1.0"}
	boxAPI  = certstore.API{Name: "box", Version: "1.0"}
)

var (
	byCertificate = policy.Security{Certificate: policy.Optional}
	byEither      = policy.Security{Certificate: policy.Optional, Token: policy.Optional}
	byToken       = policy.Security{Token: policy.Optional}
	open          = policy.Security{Open: true}
)

func newFixture(t testing.TB, change ...func(*fixture, *setup)) *fixture {
	t.Helper()
	f := &fixture{world: theWorld(), dir: t.TempDir(), clock: newClock(), backend: newBackend(t), log: &logBook{}}
	f.limits = ratelimit.NewLocal(f.clock.Now)
	var err error
	f.tiers, err = ratelimit.NewTiers([]ratelimit.Tier{
		{Name: "Ten", RequestCount: 10, UnitTime: 1, TimeUnit: ratelimit.Minute},
		{Name: "Hundred", RequestCount: 100, UnitTime: 1, TimeUnit: ratelimit.Minute},
		{Name: "Zero", RequestCount: 0, UnitTime: 1, TimeUnit: ratelimit.Minute},
		{Name: "Three", RequestCount: 3, UnitTime: 1, TimeUnit: ratelimit.Minute},
	})
	if err != nil {
		t.Fatal(err)
	}
	f.write(t, "gateway.jks", keyJKS(f.server))
	f.write(t, "gateway.pem", keyPEM(f.server))
	f.write(t, "trust.jks", trustJKS(f.caA))
	f.write(t, "trust.pem", certPEM(f.caA))

	s := &setup{
		config: gateway.Options{
			Now: f.clock.Now, Observe: f.observe, DrainTimeout: 10 * time.Second,
			Log: slog.New(slog.NewJSONHandler(f.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		},
		settings: decision.Settings{Tokens: f.verifier(t), CertificateHeader: "X-WSO2-CLIENT-CERTIFICATE"},
	}
	s.config.Drive()
	up := f.upstream(t, f.backend.URL)
	s.routes = []decision.Route{
		{
			API: payAPI, Context: "/pay", DefaultVersion: true, Security: byCertificate, Upstream: up,
			Resources: []decision.Resource{
				{Path: "/open", Methods: []string{"GET", "HEAD"}, Security: open},
				{Path: "/scoped", Security: byCertificate, Scopes: []string{"pay:read"}},
				{Path: "/*", Security: byCertificate},
			},
		},
		{
			API: bothAPI, Context: "/both", Security: byEither, Upstream: up,
			Resources: []decision.Resource{
				{Path: "/scoped", Security: byEither, Scopes: []string{"both:read", "both:admin"}},
				{Path: "/*", Security: byEither},
			},
		},
		{API: tokAPI, Context: "/tok", Security: byToken, Upstream: up},
		{API: pubAPI, Context: "/pub", Security: open, Upstream: up},
		{API: boxAPI, Context: "/box", Security: byCertificate, Upstream: backend.Upstream{
			URLs: up.URLs, SandboxURLs: f.upstream(t, f.backend.URL+"/sandbox").URLs,
		}},
	}
	s.clients = []certstore.Client{
		client(payAPI, "a1", f.a1, "Ten"), client(bothAPI, "a1", f.a1, "Ten", "both:read"),
		client(bothAPI, "a3", f.a3, "Hundred"),
		client(payAPI, "a4", f.a4, "Unlimited", "*"), client(bothAPI, "a4", f.a4, "Unlimited"), client(boxAPI, "a4", f.a4, "Unlimited"),
		sandbox(client(payAPI, "s1", f.s1, "Unlimited")), sandbox(client(boxAPI, "s1", f.s1, "Unlimited")),
	}
	for _, c := range change {
		c(f, s)
	}
	// The default is short for a handshake of many clients at once beside busy neighbours, and the race detector.
	s.config.Limits.HeaderTimeout = cmp.Or(s.config.Limits.HeaderTimeout, time.Minute)
	f.settings, f.routes, f.claims, f.clients = s.settings, s.routes, s.claims, s.clients
	f.gateway = gateway.New(s.config)
	f.setRoutes(t)
	f.listeners = []decision.Listener{
		{Name: "tls", Address: "127.0.0.1:0", Profiles: f.profiles(t, nil, allProfiles...)},
		{Name: "plain", Address: "127.0.0.2:0"},
	}
	f.setListeners(t)
	f.address, f.plain = f.gateway.Addresses()["tls"].String(), f.gateway.Addresses()["plain"].String()

	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.gateway.Run(ctx) }()
	f.stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	t.Cleanup(func() { _ = f.stop() })
	return f
}

func client(api certstore.API, alias string, p *party, tier string, scopes ...string) certstore.Client {
	return certstore.Client{
		API: api, Alias: alias, KeyType: certstore.Production, Tier: tier, Scopes: scopes, Certificate: p.cert, Source: "test",
	}
}

func sandbox(c certstore.Client) certstore.Client {
	c.KeyType = certstore.Sandbox
	return c
}

// register adds registrations to the fixture's own.
func register(list ...certstore.Client) func(*fixture, *setup) {
	return func(_ *fixture, s *setup) { s.clients = append(s.clients, list...) }
}

func (f *fixture) write(t testing.TB, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(f.dir, name), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func (f *fixture) upstream(t testing.TB, urls ...string) backend.Upstream {
	t.Helper()
	var up backend.Upstream
	for _, s := range urls {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		up.URLs = append(up.URLs, u)
	}
	return up
}

// profiles loads a listenerprofiles.xml of "servername verify" lines, and of "servername verify ACME" those whose CA has
// issued nothing yet; trusted is trust.pem's new content, if any.
func (f *fixture) profiles(t testing.TB, trusted []byte, list ...string) *listenerprofiles.Set {
	t.Helper()
	set, err := f.loadProfiles(t, trusted, list...)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func (f *fixture) loadProfiles(t testing.TB, trusted []byte, list ...string) (*listenerprofiles.Set, error) {
	t.Helper()
	if trusted != nil {
		f.write(t, "trust.pem", trusted)
	}
	var b strings.Builder
	b.WriteString(`<parameter name="SSLProfiles">`)
	for _, p := range list {
		words := strings.Fields(p)
		name, verify := words[0], words[1]
		keys := "<Location>gateway.jks</Location><Type>JKS</Type><Password>" + storePassword + "</Password>"
		if len(words) > 2 {
			keys = "<Type>ACME</Type>"
		}
		fmt.Fprintf(&b, `<profile><bindAddress>0.0.0.0</bindAddress><ServerName>%s</ServerName>
			<KeyStore>%s</KeyStore>
			<TrustStore><Location>trust.pem</Location><Type>PEM</Type></TrustStore>
			<SSLVerifyClient>%s</SSLVerifyClient></profile>`+"\n", name, keys, verify)
	}
	b.WriteString(`</parameter>`)
	f.write(t, "listenerprofiles.xml", []byte(b.String()))
	var last *listenerprofiles.Set
	if len(f.listeners) > 0 {
		last = f.listeners[0].Profiles
	}
	return listenerprofiles.Load(listenerprofiles.Options{
		Listener: "tls",
		Own: listenerprofiles.Settings{
			Name: "listener tls", VerifyClient: listenerprofiles.Require,
			KeyStore:   keystore.Ref{Location: filepath.Join(f.dir, "gateway.pem"), Type: "PEM"},
			TrustStore: keystore.Ref{Location: filepath.Join(f.dir, "trust.jks"), Type: "JKS", Password: storePassword},
			Revocation: f.policy,
		},
		Checker:  f.checker,
		FilePath: filepath.Join(f.dir, "listenerprofiles.xml"),
		ACME:     func(listenerprofiles.Order) listenerprofiles.KeySource { return noKeysYet{} },
		Now:      f.clock.Now,
		Vouching: f.vouching, Denied: f.deny.Load,
		Registered: func(fingerprint [sha256.Size]byte) bool {
			return f.inForce.Load().RegisteredAt(f.table.Load(), f.first.Load(), fingerprint)
		},
		Issuers: func() *trust.Issuers { return f.inForce.Load().Issuers() },
	}, last)
}

func (f *fixture) checker(p revocation.Policy) (*revocation.Checker, error) {
	return f.registry.Checker(p)
}

// noKeysYet is a CA that hasn't issued anything.
type noKeysYet struct{}

func (noKeysYet) Keys(time.Time) (listenerprofiles.Keys, error) {
	return listenerprofiles.Keys{From: "a CA"}, nil
}

func (f *fixture) setProfiles(t testing.TB, set *listenerprofiles.Set) {
	t.Helper()
	f.listeners = slices.Clone(f.listeners)
	f.listeners[0].Profiles = set
	f.setListeners(t)
}

func (f *fixture) setListeners(t testing.TB) {
	t.Helper()
	f.set(t, gateway.Parts{Listeners: f.listeners})
}

func (f *fixture) setRoutes(t testing.TB) {
	t.Helper()
	table, err := decision.NewTable(f.settings, f.routes)
	if err != nil {
		t.Fatal(err)
	}
	table.Fence(f.claims)
	f.table.Store(table)
	f.set(t, gateway.Parts{Routes: table, Clients: f.newClients(t)})
}

// setClients puts the fixture's registrations into force.
func (f *fixture) setClients(t testing.TB) {
	t.Helper()
	f.set(t, gateway.Parts{Clients: f.newClients(t)})
}

func (f *fixture) set(t testing.TB, parts gateway.Parts) {
	t.Helper()
	if len(parts.Listeners) > 0 {
		first := parts.Listeners[0]
		f.first.Store(&first)
	}
	if err := f.gateway.Set(parts); err != nil {
		t.Fatal(err)
	}
}

func (f *fixture) newClients(t testing.TB) *decision.Clients {
	t.Helper()
	index, err := certstore.NewIndex(f.clients)
	if err != nil {
		t.Fatal(err)
	}
	clients, _ := f.inForce.Load().Next(index, f.tiers, f.limits)
	clients.ChainValidation = f.chains
	f.inForce.Store(clients)
	return clients
}

// remove takes all registrations of that alias away, as a change of the store does.
func (f *fixture) remove(t testing.TB, alias string) {
	t.Helper()
	f.clients = slices.DeleteFunc(slices.Clone(f.clients), func(c certstore.Client) bool { return c.Alias == alias })
	f.setClients(t)
}

// Tokens.

const issuerURL = "https://issuer.test/oauth2/token"

var (
	tokenKey = sync.OnceValue(func() *ecdsa.PrivateKey { return testpki.NewKey(testpki.Panic) })
	otherKey = sync.OnceValue(func() *ecdsa.PrivateKey { return testpki.NewKey(testpki.Panic) })
)

func (f *fixture) verifier(t testing.TB) *token.Verifier {
	t.Helper()
	key, err := jwk.Import(tokenKey().Public())
	if err != nil {
		t.Fatal(err)
	}
	if err := key.Set("kid", "k1"); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(map[string]any{"keys": []any{key}})
	if err != nil {
		t.Fatal(err)
	}
	f.write(t, "jwks.json", text)
	v, err := token.New(token.Options{
		KeyManagers: []token.KeyManager{{Name: "resident", Type: "default", Issuer: issuerURL, JWKS: filepath.Join(f.dir, "jwks.json")}},
		Now:         f.clock.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// token is a good token of the subject, but for what is changed; a nil value leaves the claim out.
func (f *fixture) token(t testing.TB, subject string, change map[string]any) string {
	t.Helper()
	return f.sign(t, tokenKey(), subject, change)
}

func (f *fixture) expiredToken(t testing.TB) string {
	return f.token(t, "alice", map[string]any{"exp": f.clock.Now().Add(-time.Hour).Unix()})
}

func (f *fixture) forgedToken(t testing.TB) string {
	return f.sign(t, otherKey(), "alice", nil)
}

func (f *fixture) sign(t testing.TB, key *ecdsa.PrivateKey, subject string, change map[string]any) string {
	t.Helper()
	return f.signAs(t, key, "k1", subject, change)
}

// signAs signs with a key that goes by that kid.
func (f *fixture) signAs(t testing.TB, key *ecdsa.PrivateKey, kid, subject string, change map[string]any) string {
	t.Helper()
	claims := jwt.MapClaims{"iss": issuerURL, "sub": subject, "exp": f.clock.Now().Add(time.Hour).Unix()}
	maps.Copy(claims, change)
	maps.DeleteFunc(claims, func(_ string, v any) bool { return v == nil })
	tok := jwt.NewWithClaims(jwt.SigningMethodES256, claims)
	tok.Header["kid"] = kid
	raw, err := tok.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// Observations.

// seen is what was observed of a finished call.
type seen struct {
	ID, API, Resource, Path, Alias, Subject, By, Upstream string
	Status                                                int
	Reason                                                string
	Limit                                                 decision.Limit
	In, Out                                               int64
	Evidence                                              policy.Evidence
	Err                                                   error
}

func (f *fixture) observe(x *decision.Exchange) {
	s := seen{
		ID: x.ID, Path: x.Path, Status: x.Status, By: x.Access.By.String(), Upstream: x.Upstream,
		Limit: x.Limit, In: x.BytesIn, Out: x.BytesOut, Evidence: x.Evidence(), Err: x.Err,
	}
	if x.Route != nil {
		s.API = x.Route.API.String()
	}
	if x.Resource != nil {
		s.Resource = x.Resource.Path
	}
	if x.Client != nil {
		s.Alias = x.Client.Alias
	}
	if x.Claims != nil {
		s.Subject = x.Claims.Subject
	}
	if r, ok := x.Err.(*decision.Refusal); ok {
		s.Reason = r.Reason.String()
	} else if x.Err != nil {
		s.Reason = "broken_off"
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.calls = append(f.calls, s); len(f.calls) > 1024 {
		f.calls = slices.Clone(f.calls[512:])
	}
}

// seen waits for the call of that id to be finished and observed.
func (f *fixture) seen(t testing.TB, id string) seen {
	t.Helper()
	var found seen
	eventually(t, "call "+id+" is observed", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		i := slices.IndexFunc(f.calls, func(s seen) bool { return s.ID == id })
		if i >= 0 {
			found = f.calls[i]
		}
		return i >= 0
	})
	return found
}

// lastSeen waits for an observation for which ok returns true.
func (f *fixture) lastSeen(t testing.TB, what string, ok func(seen) bool) seen {
	t.Helper()
	var found seen
	eventually(t, what, func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		i := slices.IndexFunc(f.calls, ok)
		if i >= 0 {
			found = f.calls[i]
		}
		return i >= 0
	})
	return found
}

// patience is how long a test waits for what has to come: for ever, but that a test that hangs has to say where.
const patience = 2 * time.Minute

// eventually polls until condition holds.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-deadline:
			t.Fatalf("waited in vain: %s", what)
		case <-tick.C:
		}
	}
}

// A logBook keeps the gateway's log.
type logBook struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logBook) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logBook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// header returns an option of do that adds a header line.
func header(name, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Add(name, value) }
}

func bearer(raw string) func(*http.Request) { return header("Authorization", "Bearer "+raw) }

func host(name string) func(*http.Request) { return func(r *http.Request) { r.Host = name } }

func mustAddr(s string) netip.Addr { return netip.MustParseAddr(s) }
