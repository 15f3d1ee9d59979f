// Package assembly makes the gateway's snapshots from a configuration.
package assembly

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"hash"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"time"

	"sallyport/certstore"
	"sallyport/cmd/sallyport/internal/config"
	"sallyport/gateway/backend"
	"sallyport/gateway/clientcert"
	"sallyport/gateway/decision"
	"sallyport/internal/regularfile"
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
	// StoreLooked hears of each look at a watched store that failed, and nil when one succeeds again; nil: nobody does.
	StoreLooked func(error)
	// KeysLooked hears of each new reason why a key manager's keys could not be read, and nil when they can be again; nil:
	// nobody does.
	KeysLooked func(keyManager string, err error)
	// ReadOnly looks at the store without changing it. A store that does not exist yet is then an empty one.
	ReadOnly bool
}

// An Assembly is everything that a configuration asks for, opened and checked. It never changes.
type Assembly struct {
	Config   *config.Config
	Profiles []listenerprofiles.Config // of the TLS listeners, in the order of Config.Listeners
	Routes   *decision.Table
	Tokens   *token.Verifier  // nil: no key manager is configured
	Store    *certstore.Store // nil: read only, and there is none yet

	sets        map[string]*listenerprofiles.Set // by listener, as they were loaded
	door        *clientcert.Door
	balancers   *keystore.Trust              // who vouches for load balancers
	doorMade    [sha256.Size]byte            // of what: settings and the contents of its stores
	read        map[string][sha256.Size]byte // the files that Load read itself, and what was in them
	fileClients []certstore.Client
	tiers       *ratelimit.Tiers
	limits      *ratelimit.Local
	keys        map[ratelimit.Key]bool // of the APIs' and resources' limits
}

// Load opens and checks everything that cfg names. Its error is config.Errors where a place in a file can be named, as
// many as there are. Nothing is started, and nothing of Last is touched.
func Load(ctx context.Context, cfg *config.Config, opts Options) (*Assembly, error) {
	a := &Assembly{Config: cfg, limits: opts.Limits, sets: map[string]*listenerprofiles.Set{}, keys: map[ratelimit.Key]bool{}, read: map[string][sha256.Size]byte{}}
	if a.limits == nil {
		a.limits = ratelimit.NewLocal(nil)
	}
	var problems problems
	a.loadTiers(&problems)
	a.loadDoor(opts, &problems)
	a.loadProfiles(opts, &problems)
	a.loadTokens(opts, &problems)
	a.loadFileClients(&problems)
	if len(problems.list) == 0 {
		a.loadRoutes(&problems)
	}
	if len(problems.list) == 0 || opts.ReadOnly { // a configuration that is not good makes no store
		a.openStore(ctx, opts, &problems)
	}
	if err := problems.err(); err != nil {
		a.closeNew(opts.Last)
		return nil, err
	}
	return a, nil
}

// Listeners are the gateway's listeners, with these sets of profiles where they are newer than the Assembly's own.
func (a *Assembly) Listeners(newer map[string]*listenerprofiles.Set) []decision.Listener {
	var list []decision.Listener
	for _, l := range a.Config.Listeners {
		set := a.sets[l.Name]
		if newer[l.Name] != nil {
			set = newer[l.Name]
		}
		one := decision.Listener{Name: l.Name, Address: l.Address, Profiles: set}
		switch l.ClientCertificateHeader {
		case "address":
			one.Door = a.door
		case "certificate":
			one.Door, one.DoorByCertificate = a.door, true
		}
		list = append(list, one)
	}
	return list
}

// Set is the listener's set of profiles as it was loaded.
func (a *Assembly) Set(listener string) *listenerprofiles.Set { return a.sets[listener] }

// A ClientReport is what the store and the files say of registered certificates.
type ClientReport struct {
	Clients   *decision.Clients
	Warnings  []error // registrations that are not admitted, and why; the others are
	Conflicts []error // registrations that stand in two places, and are not admitted
}

// Clients reads the store anew and joins it with the certificates of the API files. It is an error if the store cannot
// be read. Registrations of the two that contradict each other are not admitted, neither of them: so that what was
// removed elsewhere is gone all the same.
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
		stored, all = a.withoutConflicts(stored, all, &report)
		all = append(all, stored...)
	}
	index, err := certstore.NewIndex(all)
	if err != nil {
		return report, err
	}
	clients, unknown := decision.NewClients(index, a.tiers, a.limits)
	report.Clients, report.Warnings = clients, append(report.Warnings, unknown...)
	return report, nil
}

// withoutConflicts leaves out the registrations that stand in the store and in a file: for one API, an alias and key
// type, and a certificate, live in one place only.
func (a *Assembly) withoutConflicts(stored, files []certstore.Client, report *ClientReport) (s, f []certstore.Client) {
	conflict := func(x, y certstore.Client) bool {
		return x.API == y.API && (x.Alias == y.Alias && x.KeyType == y.KeyType || x.Certificate.Equal(y.Certificate))
	}
	byAPI := map[certstore.API][]certstore.Client{}
	for _, c := range files {
		byAPI[c.API] = append(byAPI[c.API], c)
	}
	var out []certstore.Client
	s = slices.DeleteFunc(slices.Clone(stored), func(c certstore.Client) bool {
		found := false
		for _, other := range byAPI[c.API] {
			if conflict(c, other) {
				found, out = true, append(out, other)
				report.Conflicts = append(report.Conflicts, fmt.Errorf("client certificate %s of %s is registered in the store and, as %s, at %s: neither is admitted until one of them is removed",
					c.Alias, c.API, other.Alias, other.Source))
			}
		}
		return found
	})
	f = slices.DeleteFunc(slices.Clone(files), func(c certstore.Client) bool {
		return slices.ContainsFunc(out, func(o certstore.Client) bool { return conflict(c, o) })
	})
	return s, f
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
		cfg, err := profileConfig(l, a.Config, a.balancers, opts.Log)
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

// profileConfig is what a listener's profiles are made from. Balancers are the load balancers' own authorities: a client
// library sends a certificate only if its issuer is asked for.
func profileConfig(l config.Listener, c *config.Config, balancers *keystore.Trust, log *slog.Logger) (listenerprofiles.Config, error) {
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
	if l.ClientCertificateHeader != "off" {
		cfg.AlsoAskFor = balancers
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

// loadDoor opens the door for certificates that come in a header. It is the same one again while nothing about it has
// changed, since connections and the door itself remember what they have worked out.
func (a *Assembly) loadDoor(opts Options, problems *problems) {
	m := a.Config.MutualSSL
	format, err := clientcert.ParseFormat(m.HeaderFormat)
	problems.add(m.Pos, err)
	made := sha256.New()
	fmt.Fprintln(made, m.ClientCertificateHeader, format, m.LoadBalancers.Addresses)
	trust := a.openTrust(m.TrustStore, made, problems)
	a.balancers = a.openTrust(m.LoadBalancers.TrustStore, made, problems)
	cfg := clientcert.DoorConfig{
		Header: m.ClientCertificateHeader, Format: format, Balancers: m.LoadBalancers.Addresses,
		Trust: trust, BalancerTrust: a.balancers,
	}
	made.Sum(a.doorMade[:0])
	if opts.Last != nil && opts.Last.doorMade == a.doorMade {
		a.door = opts.Last.door
		return
	}
	a.door = clientcert.NewDoor(cfg)
}

// openTrust opens a trust store; nil, which trusts nobody, if none is named. What it holds goes into made.
func (a *Assembly) openTrust(k *config.KeyStore, made hash.Hash, problems *problems) *keystore.Trust {
	if k == nil {
		fmt.Fprintln(made, "none")
		return nil
	}
	data, err := a.readFile(k.Location)
	fmt.Fprintf(made, "%s %d ", k.Type, len(data))
	made.Write(data)
	if err != nil {
		problems.add(k.Pos, fmt.Errorf("keystore %s: %w", k.Location, err))
		return nil
	}
	store, err := keystore.Open(data, storeRef(k))
	if err != nil {
		problems.add(k.Pos, err)
		return nil
	}
	trust, err := store.Trust()
	problems.add(k.Pos, err)
	return trust
}

func (a *Assembly) loadTokens(opts Options, problems *problems) {
	if len(a.Config.KeyManagers) == 0 {
		return
	}
	if opts.Last != nil && opts.Last.Tokens != nil && reflect.DeepEqual(withoutPlaces(opts.Last.Config.KeyManagers), withoutPlaces(a.Config.KeyManagers)) {
		a.Tokens = opts.Last.Tokens // its keys and its cache are still good
		return
	}
	cfg := token.Config{Log: opts.Log, FilePoll: a.Config.MutualSSL.CertificateReloadPeriod, Looked: opts.KeysLooked}
	if opts.Last != nil {
		cfg.Last = opts.Last.Tokens // the keys that come from elsewhere need not be had anew
	}
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
	settings := decision.Settings{
		CertificateHeader:  a.Config.MutualSSL.ClientCertificateHeader,
		ForwardCertificate: a.Config.MutualSSL.ForwardClientCertificateHeader,
	}
	if a.Tokens != nil {
		settings.Tokens = a.Tokens
	}
	var routes []decision.Route
	for _, api := range a.Config.APIs {
		route, err := a.route(api)
		problems.add(api.Pos, err)
		routes = append(routes, route)
	}
	if len(problems.list) > 0 {
		return
	}
	var err error
	a.Routes, err = decision.NewTable(settings, routes)
	problems.add(config.Pos{File: a.Config.File}, err)
}

func (a *Assembly) route(api config.API) (decision.Route, error) {
	security, err := policy.ParseSecurity(api.Security, api.Precedence)
	if err != nil {
		return decision.Route{}, err
	}
	id := certstore.API{Name: api.Name, Version: api.Version}
	limit, err := a.bucket(ratelimit.Key{API: id.String(), Level: ratelimit.LevelAPI}, api.Policy)
	if err != nil {
		return decision.Route{}, err
	}
	upstream, err := a.upstream(api.Upstream)
	if err != nil {
		return decision.Route{}, err
	}
	r := decision.Route{
		MaxBody: api.MaxBodySize,
		API:     id, Context: api.Context, DefaultVersion: api.DefaultVersion, Hosts: api.Hosts, Listeners: api.Listeners,
		Security: security, Audiences: api.Audiences, ForwardAuthorization: api.ForwardAuthorization, Limit: limit, Upstream: upstream,
	}
	if security.Token != policy.Off {
		r.KeyManagers = api.KeyManagers
	}
	for _, res := range api.Resources {
		one := decision.Resource{Path: res.Path, Methods: res.Methods, Scopes: res.Scopes, Security: security}
		if res.Security != nil {
			if one.Security, err = policy.ParseSecurity(res.Security, api.Precedence); err != nil {
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

// readFile reads a file, and remembers what was in it.
func (a *Assembly) readFile(path string) ([]byte, error) {
	data, err := regularfile.Read(path, keystore.MaxSize)
	a.read[path] = sha256.Sum256(data)
	return data, err
}

// Stale tells whether a file that Load read itself holds something else now. Files that Config, Profiles and Tokens name
// are not among them: those look after theirs.
func (a *Assembly) Stale() bool {
	for path, sum := range a.read {
		if data, err := regularfile.Read(path, keystore.MaxSize); err != nil || sha256.Sum256(data) != sum {
			return true
		}
	}
	return false
}

// Same tells whether b was made of the same as a, if one of them was Last when the other was made.
func (a *Assembly) Same(b *Assembly) bool {
	return a.Config.Digest() == b.Config.Digest() && maps.Equal(a.read, b.read) && maps.Equal(a.sets, b.sets)
}

// Files are the files that Stale looks at.
func (a *Assembly) Files() []string { return slices.Sorted(maps.Keys(a.read)) }

// Holds tells whether that limit of an API or a resource is in use.
func (a *Assembly) Holds(key ratelimit.Key) bool { return a.keys[key] }

func (a *Assembly) upstream(u config.Upstream) (backend.Upstream, error) {
	out := backend.Upstream{
		URLs: u.URLs, SandboxURLs: u.SandboxURLs, PreserveHost: u.PreserveHost, Timeout: u.Timeout, MaxCalls: u.MaxCalls,
	}
	switch u.Protocol {
	case "http1":
	case "h2":
		out.Protocol = backend.HTTP2
	case "h2c":
		out.Protocol = backend.H2C
	default:
		return out, fmt.Errorf("unknown upstream protocol %q", u.Protocol)
	}
	if u.CAFile == "" && u.KeyStore == nil {
		return out, nil
	}
	made := sha256.New()
	if u.CAFile != "" {
		data, err := a.readFile(u.CAFile)
		if err != nil {
			return out, fmt.Errorf("upstream caFile %s: %w", u.CAFile, err)
		}
		fmt.Fprintln(made, len(data))
		made.Write(data)
		out.Roots = x509.NewCertPool()
		if !out.Roots.AppendCertsFromPEM(data) {
			return out, fmt.Errorf("upstream caFile %s holds no PEM certificate", u.CAFile)
		}
	}
	if u.KeyStore != nil {
		data, err := a.readFile(u.KeyStore.Location)
		if err != nil {
			return out, fmt.Errorf("upstream keyStore %s: %w", u.KeyStore.Location, err)
		}
		ref := storeRef(u.KeyStore)
		fmt.Fprintln(made, ref.Type, ref.Alias)
		made.Write(data)
		store, err := keystore.Open(data, ref)
		if err != nil {
			return out, fmt.Errorf("upstream keyStore: %w", err)
		}
		if out.Certificates, err = store.KeyPairs(ref.Alias, time.Now()); err != nil {
			return out, fmt.Errorf("upstream keyStore: %w", err)
		}
	}
	made.Sum(out.TLSDigest[:0])
	return out, nil
}

func (a *Assembly) openStore(ctx context.Context, opts Options, problems *problems) {
	if opts.Last != nil && opts.Last.Store != nil && opts.Last.Config.Store == a.Config.Store {
		a.Store = opts.Last.Store
		return
	}
	store, err := certstore.Open(ctx, a.Config.Store, certstore.Options{ReadOnly: opts.ReadOnly, OnError: opts.StoreLooked})
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
func creatable(store string) bool {
	url, err := certstore.ParseURL(store)
	if err != nil {
		return false
	}
	info, err := os.Stat(filepath.Dir(url.File()))
	return err == nil && info.IsDir()
}
