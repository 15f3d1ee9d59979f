// Package assembly makes the gateway's snapshots from a configuration.
package assembly

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"sallyport/certstore"
	"sallyport/cmd/sallyport/internal/config"
	"sallyport/gateway"
	"sallyport/listenerprofiles"
	"sallyport/listenerprofiles/keystore"
	"sallyport/policy"
	"sallyport/policy/ratelimit"
	"sallyport/policy/token"
)

// Options say what Load works with.
type Options struct {
	Log    *slog.Logger     // nil: nothing is logged
	Limits *ratelimit.Local // where buckets live on from one Assembly to the next; nil: new ones
	Last   *Assembly        // what serves now: whatever did not change is taken over from it
	// ReadOnly looks at the store without changing it. A store that does not exist yet is then an empty one.
	ReadOnly bool
}

// An Assembly is everything that a configuration asks for, opened and checked. It never changes.
type Assembly struct {
	Config   *config.Config
	Profiles []listenerprofiles.Config // of the TLS listeners, in the order of Config.Listeners
	Routes   *gateway.Table
	Tokens   *token.Verifier  // nil: no key manager is configured
	Store    *certstore.Store // nil: read only, and there is none yet

	sets        map[string]*listenerprofiles.Set // by listener, as they were loaded
	fileClients []certstore.Client
	tiers       *ratelimit.Tiers
	limits      *ratelimit.Local
	keys        map[ratelimit.Key]bool // of the APIs' and resources' limits
}

// Load opens and checks everything that cfg names. Its error is config.Errors where a place in a file can be named, as
// many as there are. Nothing is started, and nothing of Last is touched.
func Load(ctx context.Context, cfg *config.Config, opts Options) (*Assembly, error) {
	a := &Assembly{Config: cfg, limits: opts.Limits, sets: map[string]*listenerprofiles.Set{}, keys: map[ratelimit.Key]bool{}}
	if a.limits == nil {
		a.limits = ratelimit.NewLocal(nil)
	}
	var problems problems
	a.loadTiers(&problems)
	a.loadProfiles(opts, &problems)
	a.loadLoadBalancers(&problems)
	a.loadTokens(opts, &problems)
	a.loadFileClients(&problems)
	if len(problems.list) == 0 {
		a.loadRoutes(&problems)
	}
	a.openStore(ctx, opts, &problems)
	if err := problems.err(); err != nil {
		a.closeNew(opts.Last)
		return nil, err
	}
	return a, nil
}

// Listeners are the gateway's listeners, with these sets of profiles where they are newer than the Assembly's own.
func (a *Assembly) Listeners(newer map[string]*listenerprofiles.Set) []gateway.Listener {
	var list []gateway.Listener
	for _, l := range a.Config.Listeners {
		set := a.sets[l.Name]
		if newer[l.Name] != nil {
			set = newer[l.Name]
		}
		list = append(list, gateway.Listener{Name: l.Name, Address: l.Address, Profiles: set})
	}
	return list
}

// Set is the listener's set of profiles as it was loaded.
func (a *Assembly) Set(listener string) *listenerprofiles.Set { return a.sets[listener] }

// A ClientReport is what the store and the files say of registered certificates.
type ClientReport struct {
	Clients  *gateway.Clients
	Warnings []error // registrations that are not admitted, and why; the others are
}

// Clients reads the store anew and joins it with the certificates of the API files. It is an error if the store cannot
// be read, or if the two contradict each other.
func (a *Assembly) Clients(ctx context.Context) (ClientReport, error) {
	var report ClientReport
	all := slices.Clone(a.fileClients)
	if a.Store != nil {
		stored, problems, err := a.Store.List(ctx)
		if err != nil {
			return report, fmt.Errorf("store: %w", err)
		}
		for _, p := range problems {
			report.Warnings = append(report.Warnings, fmt.Errorf("store: %s", p))
		}
		all = append(all, stored...)
	}
	index, err := certstore.NewIndex(all)
	if err != nil {
		return report, err
	}
	clients, unknown := gateway.NewClients(index, a.tiers, a.limits)
	report.Clients, report.Warnings = clients, append(report.Warnings, unknown...)
	return report, nil
}

// FileClients are the certificates that the API files of cfg register. The error is config.Errors.
func FileClients(cfg *config.Config) ([]certstore.Client, error) {
	var problems problems
	a := &Assembly{Config: cfg}
	a.loadFileClients(&problems)
	return a.fileClients, problems.err()
}

// Tiers are the tiers that cfg knows, the built-in ones among them. The error is config.Errors.
func Tiers(cfg *config.Config) (*ratelimit.Tiers, error) {
	var problems problems
	a := &Assembly{Config: cfg}
	a.loadTiers(&problems)
	return a.tiers, problems.err()
}

// Trusted tells whether a trust store of a TLS listener vouches for the certificate by itself, without what else a
// client may send. It is for advice: a store that cannot be read vouches for nobody.
func Trusted(cfg *config.Config, certificate *x509.Certificate) bool {
	var problems problems
	a := &Assembly{Config: cfg, sets: map[string]*listenerprofiles.Set{}}
	a.loadProfiles(Options{}, &problems)
	for _, set := range a.sets {
		for _, p := range set.Profiles() {
			if p.Trust == nil {
				continue
			}
			if _, err := p.Trust.Verify([]*x509.Certificate{certificate}, time.Now()); err == nil {
				return true
			}
		}
	}
	return false
}

// Close closes what the Assembly opened.
func (a *Assembly) Close() error {
	if a.Store == nil {
		return nil
	}
	return a.Store.Close()
}

// closeNew closes what next did not take over from a.
func (a *Assembly) closeNew(last *Assembly) {
	if a.Store != nil && (last == nil || last.Store != a.Store) {
		_ = a.Store.Close() // nothing was written
	}
}

func (a *Assembly) loadTiers(problems *problems) {
	var own []ratelimit.Tier
	for _, t := range a.Config.Tiers {
		unit, err := ratelimit.ParseUnit(t.TimeUnit)
		tier := ratelimit.Tier{Name: t.Name, RequestCount: t.RequestCount, UnitTime: t.UnitTime, TimeUnit: unit, Burst: t.Burst}
		if err == nil {
			err = tier.Validate()
		}
		problems.add(t.Pos, err)
		own = append(own, tier)
	}
	if len(problems.list) > 0 {
		return
	}
	tiers, err := ratelimit.NewTiers(own)
	problems.add(config.Pos{File: a.Config.File}, err)
	a.tiers = tiers
}

func (a *Assembly) loadProfiles(opts Options, problems *problems) {
	for _, l := range a.Config.Listeners {
		if !l.TLS() {
			continue
		}
		cfg, err := profileConfig(l, a.Config, opts.Log)
		if err != nil {
			problems.add(l.Pos, err)
			continue
		}
		var last *listenerprofiles.Set
		if opts.Last != nil {
			last = opts.Last.sets[l.Name]
		}
		set, err := listenerprofiles.Load(cfg, last)
		if err != nil {
			problems.addProfiles(l, err)
			continue
		}
		a.Profiles = append(a.Profiles, cfg)
		a.sets[l.Name] = set
	}
}

func profileConfig(l config.Listener, c *config.Config, log *slog.Logger) (listenerprofiles.Config, error) {
	verify, err1 := listenerprofiles.ParseVerifyClient(l.SSLVerifyClient)
	protocols, err2 := listenerprofiles.ParseProtocols(l.HTTPSProtocols)
	ciphers, err3 := listenerprofiles.ParseCiphers(l.PreferredCiphers)
	cfg := listenerprofiles.Config{
		Listener: l.Name,
		Own: listenerprofiles.Settings{
			Name: "listener " + l.Name, VerifyClient: verify, Protocols: protocols, Ciphers: ciphers,
			KeyStore: storeRef(l.KeyStore), TrustStore: storeRef(l.TrustStore),
		},
		StoreReadInterval: c.MutualSSL.CertificateReloadPeriod,
		Log:               log,
	}
	if d := l.DynamicSSLProfiles; d != nil {
		cfg.FilePath, cfg.BaseDir, cfg.FileReadInterval = d.FilePath, d.BaseDir, d.FileReadInterval
	}
	return cfg, errors.Join(err1, err2, err3)
}

func storeRef(k *config.KeyStore) keystore.Ref {
	if k == nil {
		return keystore.Ref{}
	}
	return keystore.Ref{
		Location: k.Location, Type: k.Type, Alias: k.Alias,
		Password: k.Password.Reveal(), KeyPassword: k.KeyPassword.Reveal(),
	}
}

// loadLoadBalancers checks the trust stores that the certificate header's door will use.
func (a *Assembly) loadLoadBalancers(problems *problems) {
	for _, k := range []*config.KeyStore{a.Config.MutualSSL.LoadBalancers.TrustStore, a.Config.MutualSSL.TrustStore} {
		if k == nil {
			continue
		}
		data, err := os.ReadFile(k.Location)
		if err == nil {
			var store *keystore.Store
			if store, err = keystore.Open(data, storeRef(k)); err == nil {
				_, err = store.Trust()
			}
		}
		problems.add(k.Pos, err)
	}
}

func (a *Assembly) loadTokens(opts Options, problems *problems) {
	if len(a.Config.KeyManagers) == 0 {
		return
	}
	if opts.Last != nil && opts.Last.Tokens != nil && reflect.DeepEqual(withoutPlaces(opts.Last.Config.KeyManagers), withoutPlaces(a.Config.KeyManagers)) {
		a.Tokens = opts.Last.Tokens // its keys and its cache are still good
		return
	}
	cfg := token.Config{Log: opts.Log, FilePoll: a.Config.MutualSSL.CertificateReloadPeriod}
	for _, k := range a.Config.KeyManagers {
		one := token.KeyManager{
			Name: k.Name, Type: k.Type, Issuer: k.Issuer, JWKS: k.JWKS, CertificateFile: k.Certificate, CAFile: k.CAFile, TokenType: k.TokenType,
		}
		cfg.KeyManagers = append(cfg.KeyManagers, one)
		// One by one first, so that what is wrong has its place.
		_, err := token.New(token.Config{Log: slog.New(slog.DiscardHandler), KeyManagers: []token.KeyManager{one}})
		problems.add(k.Pos, err)
	}
	if len(problems.list) > 0 {
		return
	}
	var err error
	a.Tokens, err = token.New(cfg)
	problems.add(a.Config.KeyManagers[0].Pos, err)
}

func withoutPlaces(list []config.KeyManager) []config.KeyManager {
	list = slices.Clone(list)
	for i := range list {
		list[i].Pos = config.Pos{}
	}
	return list
}

func (a *Assembly) loadFileClients(problems *problems) {
	for _, api := range a.Config.APIs {
		for _, c := range api.ClientCertificates {
			client, err := fileClient(api, c)
			problems.add(c.Pos, err)
			a.fileClients = append(a.fileClients, client)
		}
	}
	if len(problems.list) == 0 {
		_, err := certstore.NewIndex(a.fileClients)
		problems.add(config.Pos{File: a.Config.File}, err)
	}
}

func fileClient(api config.API, c config.ClientCertificate) (certstore.Client, error) {
	certificate, err := certstore.ParseCertificate(c.Data)
	if err != nil {
		return certstore.Client{}, fmt.Errorf("certificate %s: %w", c.File, err)
	}
	keyType, err := certstore.ParseKeyType(c.KeyType)
	if err != nil {
		return certstore.Client{}, err
	}
	return certstore.Client{
		API: certstore.API{Name: api.Name, Version: api.Version}, Alias: c.Alias, KeyType: keyType, Tier: c.Tier,
		Scopes: c.Scopes, Certificate: certificate, Source: c.Pos.String(),
	}, nil
}

func (a *Assembly) loadRoutes(problems *problems) {
	settings := gateway.Settings{
		CertificateHeader:  a.Config.MutualSSL.ClientCertificateHeader,
		ForwardCertificate: a.Config.MutualSSL.ForwardClientCertificateHeader,
	}
	if a.Tokens != nil {
		settings.Tokens = a.Tokens
	}
	var routes []gateway.Route
	for _, api := range a.Config.APIs {
		route, err := a.route(api)
		problems.add(api.Pos, err)
		routes = append(routes, route)
	}
	if len(problems.list) > 0 {
		return
	}
	var err error
	a.Routes, err = gateway.NewTable(settings, routes)
	problems.add(config.Pos{File: a.Config.File}, err)
}

func (a *Assembly) route(api config.API) (gateway.Route, error) {
	security, err := Security(api.Security, api.Precedence)
	if err != nil {
		return gateway.Route{}, err
	}
	id := certstore.API{Name: api.Name, Version: api.Version}
	limit, err := a.bucket(ratelimit.Key{API: id.String(), Level: ratelimit.LevelAPI}, api.Policy)
	if err != nil {
		return gateway.Route{}, err
	}
	upstream, err := upstream(api.Upstream)
	if err != nil {
		return gateway.Route{}, err
	}
	r := gateway.Route{
		API: id, Context: api.Context, DefaultVersion: api.DefaultVersion, Hosts: api.Hosts, Listeners: api.Listeners,
		Security: security, Audiences: api.Audiences, ForwardAuthorization: api.ForwardAuthorization, Limit: limit, Upstream: upstream,
	}
	if security.Token != policy.Off {
		r.KeyManagers = api.KeyManagers
	}
	for _, res := range api.Resources {
		one := gateway.Resource{Path: res.Path, Methods: res.Methods, Scopes: res.Scopes, Security: security}
		if res.Security != nil {
			if one.Security, err = Security(res.Security, api.Precedence); err != nil {
				return r, err
			}
		}
		if res.Policy != "" {
			name := fmt.Sprint(res.Methods, " ", res.Path)
			if one.Limit, err = a.bucket(ratelimit.Key{API: id.String(), Level: ratelimit.LevelResource, Name: name}, res.Policy); err != nil {
				return r, err
			}
		}
		r.Resources = append(r.Resources, one)
	}
	return r, nil
}

func (a *Assembly) bucket(key ratelimit.Key, tier string) (ratelimit.Bucket, error) {
	t, ok := a.tiers.Find(tier)
	if !ok {
		return nil, fmt.Errorf("policy %q is no tier", tier)
	}
	a.keys[key] = true
	return a.limits.Bucket(key, t), nil
}

// Holds tells whether that limit of an API or a resource is in use.
func (a *Assembly) Holds(key ratelimit.Key) bool { return a.keys[key] }

// Security is the meaning of a list of security words. An unknown word, and a list that opens no way in, is an error.
func Security(words []string, precedence string) (policy.Security, error) {
	var s policy.Security
	for _, word := range words {
		switch word {
		case "none":
			s.Open = true
		case "mutualssl":
			s.Certificate = max(s.Certificate, policy.Optional)
		case "mutualssl_mandatory":
			s.Certificate = policy.Mandatory
		case "oauth2":
			s.Token = max(s.Token, policy.Optional)
		case "oauth_basic_auth_api_key_mandatory":
			s.Token = policy.Mandatory
		default:
			return policy.Security{}, fmt.Errorf("unknown security %q", word)
		}
	}
	switch precedence {
	case "certificate":
	case "token":
		s.Precedence = policy.TokenFirst
	default:
		return policy.Security{}, fmt.Errorf("unknown precedence %q", precedence)
	}
	if closed := s.Certificate == policy.Off && s.Token == policy.Off; closed != s.Open {
		return policy.Security{}, fmt.Errorf("security %q opens no way in, or is open and closed at once", words)
	}
	return s, nil
}

func upstream(u config.Upstream) (gateway.Upstream, error) {
	out := gateway.Upstream{URLs: u.URLs, SandboxURLs: u.SandboxURLs, PreserveHost: u.PreserveHost, Timeout: u.Timeout}
	if u.CAFile == "" {
		return out, nil
	}
	data, err := os.ReadFile(u.CAFile)
	if err != nil {
		return out, fmt.Errorf("upstream caFile: %w", err)
	}
	out.Roots, out.RootsDigest = x509.NewCertPool(), sha256.Sum256(data)
	if !out.Roots.AppendCertsFromPEM(data) {
		return out, fmt.Errorf("upstream caFile %s holds no PEM certificate", u.CAFile)
	}
	return out, nil
}

func (a *Assembly) openStore(ctx context.Context, opts Options, problems *problems) {
	if opts.Last != nil && opts.Last.Store != nil && opts.Last.Config.Store == a.Config.Store {
		a.Store = opts.Last.Store
		return
	}
	store, err := certstore.Open(ctx, a.Config.Store, certstore.Options{ReadOnly: opts.ReadOnly, OnError: storeErrors(opts.Log)})
	if opts.ReadOnly && errors.Is(err, os.ErrNotExist) {
		if creatable(a.Config.Store) {
			return
		}
		err = fmt.Errorf("its folder must exist: %w", err)
	}
	if err != nil {
		problems.add(a.Config.StorePos, fmt.Errorf("store: %w", err))
		return
	}
	a.Store = store
}

// creatable tells whether a store that does not exist yet could be made: its folder has to be there.
func creatable(url string) bool {
	path, _ := strings.CutPrefix(url, "sqlite:")
	info, err := os.Stat(filepath.Dir(path))
	return err == nil && info.IsDir()
}

func storeErrors(log *slog.Logger) func(error) {
	if log == nil {
		return nil
	}
	return func(err error) {
		if err != nil {
			log.Error("the store cannot be read; the registered certificates serve on as they were", "error", err)
			return
		}
		log.Info("the store can be read again")
	}
}
