package control

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"sallyport/certstore"
	"sallyport/gateway/backend"
	"sallyport/gateway/clientcert"
	"sallyport/gateway/decision"
	"sallyport/internal/regularfile"
	"sallyport/listenerprofiles"
	"sallyport/listenerprofiles/acme"
	"sallyport/listenerprofiles/keystore"
	"sallyport/listenerprofiles/revocation"
	"sallyport/listenerprofiles/trust"
	"sallyport/policy/ratelimit"
	"sallyport/policy/token"
)

// An Assembly is everything that a Spec asks for, opened and checked. It never changes. The next one takes over what
// has stayed the same.
type Assembly struct {
	Spec     *Spec
	Routes   *decision.Table
	Clients  *decision.Clients
	Warnings []error // registrations that are not admitted

	door       *clientcert.Door
	sets       map[string]*listenerprofiles.Set // by listener
	tokens     *token.Verifier                  // nil: no key manager is configured
	issuer     *acme.Manager                    // nil: no CA is; outlives Assemblies
	store      *certstore.Store                 // nil: there is none
	registered registrations                    // in the store
	bystanders func() bystanders                // registrations that are not admitted; nil: there are none
	index      *certstore.Index                 // of Clients
	sighting   *sighting                        // of them; outlives Assemblies
	limits     *ratelimit.Limiter               // outlives Assemblies
	keys       map[ratelimit.Key]bool           // of the APIs' and resources' limits
	opened     []Certificate                    // of stores that Spec names itself
	read       map[string][sha256.Size]byte     // digests of the files that Spec names itself, by path

	owns *Loop // whose parts the Assembly closes; nil: the Loop that has it does

	skipped       map[string]int // entries that can't be used, by the location of a store that Spec names itself
	storeWarnings Problems       // what they are
}

// Build opens and checks everything that spec names, as Open does, but for reading only: the store is not changed, and
// one that does not exist yet is an empty one. The error is Problems, as many as there are, wherever a place in a file
// can be named. The caller closes the Assembly.
func Build(ctx context.Context, spec *Spec) (*Assembly, error) {
	return build(ctx, spec, Options{whole: true})
}

// BuildSound is Build without the API files that are not good, as a gateway starts: the Units of the Assembly's Spec have
// their problems.
func BuildSound(ctx context.Context, spec *Spec) (*Assembly, error) {
	return build(ctx, spec, Options{})
}

func build(ctx context.Context, spec *Spec, cfg Options) (*Assembly, error) {
	b := readingBuilder(spec, cfg)
	if err := b.buildForReading(ctx); err != nil {
		return nil, err
	}
	if err := b.open(ctx, nil, certstore.Options{ReadOnly: true}); err != nil {
		return nil, err
	}
	b.sighting.note(b.registered.seen)
	return b.Assembly, nil
}

// Survey is BuildSound for a look at what there is, and not for serving: a key whose certificate has ended is no problem, nor
// is a registration that is admitted from neither of two places.
func Survey(ctx context.Context, spec *Spec) (*Assembly, error) {
	b := readingBuilder(spec, Options{Now: func() time.Time { return time.Unix(0, 0) }}) // before the end of any
	if err := b.buildForReading(ctx); err != nil {
		return nil, err
	}
	if err := b.takeStore(ctx, nil, certstore.Options{ReadOnly: true}); err != nil {
		return nil, err
	}
	if _, err := b.admit(); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b.Assembly, nil
}

// readingBuilder makes an Assembly that changes nothing, and closes all of it.
func readingBuilder(spec *Spec, cfg Options) *builder {
	cfg.readOnly = true
	l := newLoop(cfg)
	b := l.builder(spec)
	b.owns = l
	return b
}

// buildForReading is build; if it fails, the error says what is wrong with the store as well.
func (b *builder) buildForReading(ctx context.Context) error {
	if b.build() == nil {
		return nil
	}
	b.problems.Add(b.Spec.Store.Place, b.openStore(ctx, certstore.Options{ReadOnly: true}))
	return errors.Join(b.problems, b.Close())
}

// Close closes what the Assembly opened.
func (a *Assembly) Close() error {
	var problems []error
	if a.store != nil {
		problems = append(problems, a.store.Close())
	}
	if a.owns != nil {
		problems = append(problems, a.owns.retire())
	}
	return errors.Join(problems...)
}

// StoreForeign reports whether another program owns the store, which is only read then.
func (a *Assembly) StoreForeign() bool { return a.store != nil && a.store.Foreign() }

// Listeners returns the gateway's listeners.
func (a *Assembly) Listeners() []decision.Listener {
	list := make([]decision.Listener, len(a.Spec.Listeners))
	for i := range a.Spec.Listeners {
		list[i] = *a.listener(&a.Spec.Listeners[i])
	}
	return list
}

// IgnoredKeys returns which keys and CAs of key managers' files are not used, and why. Addresses are asked by a
// running gateway only, whose log tells.
func (a *Assembly) IgnoredKeys() (ignored Problems) {
	if a.tokens == nil {
		return nil
	}
	for _, k := range a.Spec.KeyManagers {
		for _, err := range a.tokens.Ignored(k.Value.Name) {
			ignored.Add(k.Place, fmt.Errorf("key manager %q: a key is ignored: %w", k.Value.Name, err))
		}
		for _, err := range a.tokens.SkippedRoots(k.Value.Name) {
			ignored.Add(k.Keys.at("caFile", k.Place), fmt.Errorf("key manager %q: caFile %s: %w", k.Value.Name, k.Value.CAFile, err))
		}
	}
	return ignored
}

func (a *Assembly) listener(of *Listener) *decision.Listener {
	l := of.Listener
	l.Profiles = a.sets[l.Name]
	if of.Believes {
		l.Door = a.door
	}
	if of.TLS == nil && a.issuer != nil && a.issuer.Settings().HTTP {
		l.Validations = a.issuer.Book()
	}
	return &l
}

// content is a digest of what the configuration is made of. It leaves out profiles and the store, which are sources of
// their own. It covers secrets, so it is not for logs.
func (a *Assembly) content() (sum [sha256.Size]byte) {
	h := sha256.New()
	h.Write(a.Spec.Digest[:])
	for _, path := range slices.Sorted(maps.Keys(a.read)) {
		fmt.Fprintf(h, "%d %s %x", len(path), path, a.read[path])
	}
	h.Sum(sum[:0])
	return sum
}

// StoreWarnings tells what is not served of the stores and of the profiles' files, and yet is no error: entries that
// can't be used, older protocols. Of a store that is named several times each entry is told once.
func (a *Assembly) StoreWarnings() (list Problems) {
	told := map[string]bool{}
	tell := func(p Problem) {
		key := p.Error()
		for _, file := range []string{"keystore ", "caFile "} {
			if _, what, ok := strings.Cut(p.Message, file); ok {
				key = what
			}
		}
		if !told[key] {
			told[key] = true
			list = append(list, p)
		}
	}
	for i := range a.Spec.Listeners {
		l := &a.Spec.Listeners[i]
		if set := a.sets[l.Name]; set != nil {
			var warnings Problems
			for _, err := range set.Warnings() {
				warnings.addProfile(l, err)
			}
			for _, p := range warnings {
				tell(p)
			}
		}
	}
	for _, p := range a.storeWarnings {
		tell(p)
	}
	const most = 100
	if more := len(list) - most; more > 0 {
		list = append(list[:most], Problem{Place: a.Spec.Place, Message: fmt.Sprintf("and %d more warnings of stores", more)})
	}
	return list
}

// SkippedEntries counts the entries that can't be used of each store and CA file that is in use, by location.
func (a *Assembly) SkippedEntries() map[string]int {
	counts := maps.Clone(a.skipped)
	for _, set := range a.sets {
		for location, n := range set.SkippedEntries() {
			counts[location] = max(counts[location], n)
		}
	}
	for _, k := range a.Spec.KeyManagers {
		if file := k.Value.CAFile; file != "" && a.tokens != nil {
			counts[file] = max(counts[file], len(a.tokens.SkippedRoots(k.Value.Name)))
		}
	}
	return counts
}

// holds reports whether a limit is in use.
func (a *Assembly) holds(key ratelimit.Key) bool { return a.keys[key] || a.Clients.Holds(key) }

// registeredAt reports whether a certificate is registered for an API of a listener.
func (a *Assembly) registeredAt(listener string, fingerprint [sha256.Size]byte) bool {
	l := a.Spec.listener(listener)
	return l != nil && a.Clients.RegisteredAt(a.Routes, a.listener(l), fingerprint)
}

// with returns a copy with another set of profiles.
func (a *Assembly) with(listener string, set *listenerprofiles.Set) *Assembly {
	next := *a
	next.sets = maps.Clone(a.sets)
	next.sets[listener] = set
	return &next
}

// A builder makes an Assembly of a Spec from files alone; open adds the store.
type builder struct {
	*Assembly
	loop     *Loop
	known    []*Assembly        // to take over from; the one in force is the first
	found    map[string]finding // by source
	problems Problems
}

func (l *Loop) builder(spec *Spec, known ...*Assembly) *builder {
	return &builder{
		Assembly: &Assembly{
			Spec:     spec,
			limits:   l.limits,
			sighting: &l.sighting,
			sets:     map[string]*listenerprofiles.Set{},
			keys:     map[ratelimit.Key]bool{},
			read:     map[string][sha256.Size]byte{},

			skipped: map[string]int{},
		},
		loop:     l,
		known:    known,
		found:    map[string]finding{},
		problems: slices.Clone(spec.Problems),
	}
}

func (b *builder) build() error {
	b.buildDoor()
	b.buildIssuer()
	b.buildProfiles()
	b.buildTokens()
	b.checkRedis()
	b.noteStoreRoots()
	if len(b.problems) == 0 {
		b.buildRoutes()
	}
	files := slices.Concat(b.Spec.Files, slices.Collect(maps.Keys(b.read)))
	if len(b.problems) == 0 {
		b.found[configuration] = finding{content: b.content(), files: files}
		return nil
	}
	for _, profiles := range b.found {
		files = append(files, profiles.files...) // one may have the problem, as a key store with another password
	}
	b.found[configuration] = faulty(b.problems, files)
	return b.problems
}

// buildDoor makes the door for certificates that come in a header. A door whose settings and stores are unchanged is
// taken over, since it and its connections cache the certificates that they have verified.
func (b *builder) buildDoor() {
	s := b.Spec
	door := s.Header
	door.Shown = b.loop.cfg.Shown
	door.Rules.Anchors, door.BalancerTrust = b.openTrust(KindTrustStore, s.HeaderTrust), b.openTrust(KindBalancer, s.Balancers)
	if p := s.HeaderRevocation; !reflect.DeepEqual(p.Value, revocation.Policy{}) {
		var err error // asked for each time: the registry may have forgotten who an attempt has had
		if door.Rules.Revocation, err = b.loop.revoked.Checker(p.Value); err != nil {
			b.problems.Add(p.Place, fmt.Errorf("revocation: %w", err))
			return
		}
	}
	for _, k := range b.known {
		same := func(x, y Placed[keystore.Ref]) bool {
			return x.Value == y.Value && k.read[x.Value.Location] == b.read[x.Value.Location]
		}
		if reflect.DeepEqual(k.Spec.Header, s.Header) && k.door != nil && k.door.Rules().Revocation == door.Rules.Revocation &&
			same(k.Spec.HeaderTrust, s.HeaderTrust) && same(k.Spec.Balancers, s.Balancers) {
			b.door = k.door
			return
		}
	}
	b.door = clientcert.NewDoor(door)
}

// checkers are those who look revocations up for what is in a.
func (a *Assembly) checkers() (list []*revocation.Checker) {
	if a.door != nil {
		list = append(list, a.door.Rules().Revocation)
	}
	for _, set := range a.sets {
		for _, p := range set.Profiles() {
			list = append(list, p.Rules().Revocation)
		}
	}
	return slices.DeleteFunc(list, func(c *revocation.Checker) bool { return c == nil })
}

// openTrust opens a trust store, whose entries are of that kind. Without a Location it returns nil, which trusts nobody.
func (b *builder) openTrust(kind string, ref Placed[keystore.Ref]) *trust.Anchors {
	if ref.Value.Location == "" {
		return nil
	}
	data, err := b.readNamed(ref.Value.Location)
	var anchors *trust.Anchors
	if err != nil {
		err = keystore.Unread(ref.Value, err)
	} else {
		anchors, err = trust.Open(data, ref.Value)
	}
	if err != nil {
		b.problems.Add(ref.Keys.at(strings.TrimPrefix(faultKey(err), "."), ref.Place), err)
		return nil
	}
	b.opened = append(b.opened, entriesOf(kind, ref.Value.Location, anchors.Certificates())...)
	b.skip(ref.Keys.at("location", ref.Place), ref.Value.Location, anchors.Skipped())
	return anchors
}

// skip records what is skipped of a store.
func (b *builder) skip(at Place, location string, skipped []error) {
	b.skipped[location] = max(b.skipped[location], len(skipped))
	for _, err := range skipped {
		b.storeWarnings.Add(at, err)
	}
}

func readFile(path string) ([]byte, error) { return regularfile.Read(path, keystore.MaxSize) }

// readNamed reads a file that Spec names itself, and records its digest.
func (b *builder) readNamed(path string) ([]byte, error) {
	data, err := b.loop.cfg.readFile(path)
	b.read[path] = sha256.Sum256(data)
	return data, err
}

// buildProfiles reads the profiles of each TLS listener. Broken ones are a problem of the Spec only if it is new to
// them. Otherwise the set in force stays, and the rest of the Spec can come into force.
func (b *builder) buildProfiles() {
	for i := range b.Spec.Listeners {
		l := &b.Spec.Listeners[i]
		if l.TLS == nil {
			continue
		}
		r := b.loop.readProfiles(l, b.Assembly, true, b.known)
		b.found[profilesOf(l.Name)] = finding{r.Content, r.Err, r.Files}
		if b.sets[l.Name] = r.Set; r.Err == nil {
			continue
		}
		if len(b.known) > 0 {
			if before := b.known[0].Spec.listener(l.Name); before != nil && reflect.DeepEqual(before.TLS, l.TLS) {
				b.sets[l.Name] = b.known[0].sets[l.Name]
				continue
			}
		}
		b.problems.addProfiles(l, r.Err)
	}
}

// readProfiles reads the profiles of a listener of an Assembly, or just their stores unless fresh is set.
func (l *Loop) readProfiles(
	listener *Listener, of *Assembly, fresh bool, known []*Assembly,
) listenerprofiles.Reading {
	cfg := *listener.TLS
	if source := of.sourceOf(); source != nil {
		cfg.ACME = source
	}
	cfg.Now, cfg.ReadFile, cfg.Shown = l.cfg.Now, l.cfg.readFile, l.cfg.Shown
	if listener.Believes {
		cfg.AlsoAskFor = of.door.BalancerTrust()
	}
	cfg.Registered = func(fingerprint [sha256.Size]byte) bool {
		a := l.inForce.Load() // whatever is by then
		return a != nil && a.registeredAt(listener.Name, fingerprint)
	}
	cfg.Checker = l.revoked.Checker
	cfg.Issuers = func() *trust.Issuers {
		if a := l.inForce.Load(); a != nil {
			return a.Clients.Issuers()
		}
		return nil
	}
	cfg.Denied = func() *trust.Denials { return l.inForce.Load().Denied() }
	var sets []*listenerprofiles.Set
	for _, k := range known {
		sets = append(sets, k.sets[listener.Name])
	}
	read := listenerprofiles.ReadStores
	if fresh {
		read = listenerprofiles.Read
	}
	r := read(cfg, sets...)
	if r.Err == nil && len(sets) > 0 {
		if err := r.Set.Succeeds(sets[0]); err != nil {
			r.Content = sha256.Sum256(append(r.Content[:], err.Error()...))
			r.Set, r.Err = nil, err
		}
	}
	return r
}

func (b *builder) buildTokens() {
	s := b.Spec
	if len(s.KeyManagers) == 0 {
		return
	}
	cfg := token.Options{Log: b.loop.log, FilePoll: s.Period, Looked: b.loop.keysTold, Panicked: b.loop.cfg.Panicked}
	for _, k := range s.KeyManagers {
		cfg.KeyManagers = append(cfg.KeyManagers, k.Value)
	}
	for _, k := range b.known {
		same := slices.EqualFunc(k.Spec.KeyManagers, s.KeyManagers, func(x, y Placed[token.KeyManager]) bool {
			return x.Value == y.Value
		})
		if same && k.tokens != nil && k.Spec.Period == s.Period {
			b.tokens = k.tokens // with its keys and its cache
			return
		}
	}
	if len(b.known) > 0 {
		cfg.Last = b.known[0].tokens // saves fetching the keys of unchanged key managers again
	}
	wrong := len(b.problems)
	for _, k := range s.KeyManagers { // one by one, so that each problem has its place
		_, err := token.New(token.Options{KeyManagers: []token.KeyManager{k.Value}})
		b.problems.addKeys(k, err)
	}
	if len(b.problems) == wrong {
		var err error
		b.tokens, err = token.New(cfg)
		b.problems.Add(s.KeyManagers[0].Place, err)
	}
}

func (b *builder) buildRoutes() {
	settings := b.Spec.Routing
	if b.tokens != nil {
		settings.Tokens = b.tokens
	}
	if len(b.Spec.Units) > 0 && !b.loop.cfg.whole {
		b.buildUnits(settings)
		return
	}
	for _, u := range b.Spec.Units {
		b.problems = append(b.problems, u.Problems...)
	}
	var routes []decision.Route
	for _, api := range b.Spec.APIs {
		route, err := b.route(api)
		b.problems.Add(api.Place, err)
		routes = append(routes, route)
	}
	if len(b.problems) > 0 {
		return
	}
	for i, api := range b.Spec.APIs { // one by one, so that each problem has its place
		_, err := decision.NewTable(settings, routes[i:i+1])
		b.problems.Add(api.Place, err)
	}
	if len(b.problems) > 0 {
		return
	}
	var err error
	b.Routes, err = decision.NewTable(settings, routes)
	b.problems.Add(b.Spec.Place, err)
}

func (b *builder) route(api API) (r decision.Route, err error) {
	r = api.Route
	id := r.API.String()
	if r.Limit, err = b.bucket(ratelimit.Key{API: id, Level: ratelimit.LevelAPI}, api.Tier); err != nil {
		return r, err
	}
	r.Resources = slices.Clone(r.Resources)
	for i := range r.Resources {
		res := &r.Resources[i]
		if tier := api.ResourceTiers[i]; tier != "" {
			key := ratelimit.Key{API: id, Level: ratelimit.LevelResource, Name: fmt.Sprint(res.Methods, " ", res.Path)}
			if res.Limit, err = b.bucket(key, tier); err != nil {
				return r, err
			}
		}
	}
	b.openUpstream(api, &r.Upstream)
	return r, nil
}

func (b *builder) bucket(key ratelimit.Key, tier string) (ratelimit.Bucket, error) {
	t, ok := b.Spec.Tiers.Find(tier)
	if !ok {
		return nil, fmt.Errorf("policy %q is no tier", tier)
	}
	b.keys[key] = true
	return b.limits.Bucket(key, t), nil
}

// openUpstream opens what an API's upstream needs for TLS.
func (b *builder) openUpstream(api API, u *backend.Upstream) {
	if api.CAFile == "" && api.KeyStore.Location == "" {
		return
	}
	problem := func(key string, err error) { b.problems.Add(api.Keys.at("upstream."+key, api.Place), err) }
	if api.CAFile != "" {
		u.Roots = b.openRoots("upstream", api.CAFile, api.Keys.at("upstream.caFile", api.Place))
	}
	ref := api.KeyStore
	if ref.Location != "" {
		var skipped []error
		data, err := b.readNamed(ref.Location)
		if err != nil {
			err = keystore.Unread(ref, err)
		} else {
			u.Certificates, skipped, err = keystore.LoadKeys(data, ref, b.loop.cfg.Now())
		}
		if err != nil {
			problem("keyStore"+faultKey(err), fmt.Errorf("upstream %w", err))
		}
		for _, pair := range u.Certificates {
			for _, c := range chainOf(pair) {
				b.opened = append(b.opened, certificateOf(KindUpstream, api.Route.API.String(), ref.Location, c))
			}
		}
		b.skip(api.Keys.at("upstream.keyStore.location", api.Place), ref.Location, skipped)
	}
	made := fmt.Appendf(nil, "%x %x %q %q", b.read[api.CAFile], b.read[ref.Location], ref.Type, string(ref.Alias))
	u.TLSDigest = sha256.Sum256(made)
}

// checkRedis reads the CAs for TLS to Redis, so that what is wrong with them is known before a start.
func (b *builder) checkRedis() {
	limits := b.Spec.RateLimit
	if file := limits.Value.Redis.CAFile; file != "" {
		b.openRoots("redis", file, limits.Keys.at("caFile", limits.Place))
	}
}

// noteStoreRoots notes the CAs for TLS to the store, which opens their file itself and tells what is wrong with it.
func (b *builder) noteStoreRoots() {
	file := b.Spec.Store.Value.CAFile
	if file == "" {
		return
	}
	if data, err := b.readNamed(file); err == nil {
		b.opened = append(b.opened, entriesOf(KindTrustStore, file, certificatesOf(data))...)
	}
}

// openRoots reads a file with the certificates of CAs, which is named at a place, for TLS to what.
func (b *builder) openRoots(what, file string, at Place) (pool *x509.CertPool) {
	var skipped []error
	data, err := b.readNamed(file)
	if err == nil {
		pool, skipped, err = roots(data)
	}
	if err != nil {
		const cure = "name a file with the certificates of the CAs in PEM"
		b.problems.Add(at, fmt.Errorf("%s caFile %s: %w: %s", what, file, err, cure))
	}
	for i, err := range skipped {
		skipped[i] = fmt.Errorf("%s caFile %s: %w", what, file, err)
	}
	b.opened = append(b.opened, entriesOf(KindTrustStore, file, certificatesOf(data))...)
	b.skip(at, file, skipped)
	return pool
}

// roots reads certificates of CAs in PEM. Those that can't be used are skipped.
func roots(data []byte) (pool *x509.CertPool, skipped []error, err error) {
	pool, found := x509.NewCertPool(), 0
	for n := 1; ; n++ {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			skipped = append(skipped, fmt.Errorf("PEM block %d is skipped: %w", n, err))
			continue
		}
		pool.AddCert(cert)
		found++
	}
	switch {
	case found > 0:
		return pool, skipped, nil
	case len(skipped) > 0:
		return nil, nil, fmt.Errorf("it holds no certificate that can be used: %w", skipped[0])
	}
	return nil, nil, errors.New("it holds no certificate")
}

// addKeys adds the error that New has for a key manager, at the key of the file that it reads: what is wrong is in
// there.
func (ps *Problems) addKeys(k Placed[token.KeyManager], err error) {
	key, file, cure := "jwks", k.Value.JWKS, "name a file with a JSON Web Key Set"
	switch {
	case k.Value.CertificateFile != "":
		key, file, cure = "certificate", k.Value.CertificateFile, "name a file with one certificate or public key in PEM"
	case k.Value.CAFile != "":
		key, file, cure = "caFile", k.Value.CAFile, "name a file with the certificates of the CAs in PEM"
	case strings.Contains(file, "://"):
		file = ""
	}
	if err != nil && file != "" {
		err = fmt.Errorf("%w: %s", err, cure)
		if !strings.Contains(err.Error(), file) {
			err = fmt.Errorf("%s: %w", file, err)
		}
	}
	ps.Add(k.Keys.at(key, k.Place), err)
}
