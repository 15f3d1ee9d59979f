package listenerprofiles

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sallyport/internal/regularfile"
	"sallyport/listenerprofiles/keystore"
	"sallyport/listenerprofiles/revocation"
	"sallyport/listenerprofiles/trust"
)

// Options say where a listener's profiles come from.
type Options struct {
	Listener   string                       // its name, for messages
	Own        Settings                     // the listener's own, for whatever no profile serves; paths and passwords ready to use
	FilePath   string                       // listenerprofiles.xml; "" means that there is none
	BaseDir    string                       // what relative paths in the file count from; "" means the file's folder
	AlsoAskFor *trust.Anchors               // named to clients beside the trust store when a certificate is asked for, and trusted for nothing; nil: none
	Shown      trust.Bounds                 // of the certificates that a client may show in its handshake
	Vouching   trust.Registered             // which registered certificates need no trust store
	Registered func([sha256.Size]byte) bool // whether a certificate is, now, registered for an API of the listener; nil: none is
	Issuers    func() *trust.Issuers        // the registered CAs that complete chains now; nil: none does
	Denied     func() *trust.Denials        // the deny list in force now, to which require holds handshakes; nil: none is
	Now        func() time.Time             // the clock for expiry; nil means time.Now
	ReadFile   func(string) ([]byte, error) // nil means regular files of at most keystore.MaxSize bytes
	Secrets    Secrets                      // what secretAlias stands for in the file

	// Checker returns who looks revocations up by a policy that is not zero: the same pointer for as long as it would do the
	// same. Nil makes each such policy an error.
	Checker func(revocation.Policy) (*revocation.Checker, error)

	// ACME returns the source of an order's keys: the same pointer for as long as it would give the same. Nil means that
	// no CA is configured, and a key store of type ACME is an error.
	ACME func(Order) KeySource

	// LookupHost returns the addresses of a host that bindAddress names; nil means the system's resolver.
	LookupHost func(host string) ([]netip.Addr, error)
}

// Secrets are passwords by alias. They are never printed, logged or marshalled.
type Secrets map[string]string

// String returns nothing of them.
func (s Secrets) String() string { return "(secrets)" }

// Format writes String for every verb, %#v included.
func (s Secrets) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(s.String())) }

// MarshalText writes String, in JSON and in logs as well.
func (s Secrets) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

func (c Options) withDefaults() Options {
	if c.Own.Name == "" {
		c.Own.Name = strings.TrimSpace("listener " + c.Listener)
	}
	if c.BaseDir == "" {
		c.BaseDir = filepath.Dir(c.FilePath)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.ReadFile == nil {
		c.ReadFile = func(path string) ([]byte, error) { return regularfile.Read(path, keystore.MaxSize) }
	}
	if c.LookupHost == nil {
		c.LookupHost = lookupHost
	}
	return c
}

// Load reads the file and every store that it and the listener name, each once, checks all of it, and builds the Set.
// Any problem refuses the whole; as many as can be found at once are in the error, which is Problems.
//
// A profile whose settings and stores are those of one in last, which may be nil, is that one: its session tickets stay
// good. When nothing at all has changed Load returns last.
func Load(cfg Options, last *Set) (*Set, error) {
	r := Read(cfg, last)
	return r.Set, r.Err
}

// A Reading is what one look at the files of a listener's profiles has found.
type Reading struct {
	Set   *Set     // nil if there is an Err
	Err   error    // as Load's
	Files []string // all that were looked for, also after an Err: absolute, sorted and each once

	// Content is the same for readings that mean the same: profiles made of equal settings and stores, or the same problem
	// in the same content. It covers passwords, so it is for comparing and not for logs.
	Content [32]byte
}

// Read is Load for whoever looks again and again. Profiles are taken over from any of the known sets, which may be nil.
func Read(cfg Options, known ...*Set) Reading {
	return newLoader(cfg.withDefaults(), known...).reading()
}

// ReadStores is Read without a look at the file, which is taken for what it was when the first known set was loaded,
// and so are the addresses of the hosts that it names; its stores are read. If something is wrong the file is read
// after all: it may be what mends it.
func ReadStores(cfg Options, known ...*Set) Reading {
	l := newLoader(cfg.withDefaults(), known...)
	if l.cfg.FilePath == "" || len(known) == 0 || known[0] == nil {
		return l.reading()
	}
	l.files[l.cfg.FilePath] = content{data: known[0].file}
	l.hosts = maps.Clone(known[0].hosts)
	if r := l.reading(); r.Err == nil {
		return r
	}
	return Read(cfg, known...)
}

// A loader is one attempt: it reads each file once.
type loader struct {
	cfg   Options
	known []*Set // whose profiles may be taken over
	files map[string]content
	hosts map[string][]netip.Addr // that were looked up
	all   hash.Hash               // of everything that was read, in order
}

type content struct {
	data []byte
	err  error
}

func newLoader(cfg Options, known ...*Set) *loader {
	known = slices.DeleteFunc(known, func(s *Set) bool { return s == nil })
	return &loader{
		cfg:   cfg,
		known: known,
		files: make(map[string]content),
		hosts: make(map[string][]netip.Addr),
		all:   sha256.New(),
	}
}

func (l *loader) read(path string) ([]byte, error) {
	c, ok := l.files[path]
	if !ok {
		c.data, c.err = l.cfg.ReadFile(path)
		l.files[path] = c
	}
	writeField(l.all, []byte(path))
	if c.err != nil {
		writeField(l.all, []byte(c.err.Error()))
	}
	writeField(l.all, c.data)
	return c.data, c.err
}

func (l *loader) reading() Reading {
	set, err := l.load()
	r := Reading{Set: set, Err: err, Files: l.paths()}
	if err != nil {
		writeField(l.all, []byte(err.Error()))
		l.all.Sum(r.Content[:0])
		return r
	}
	r.Content = contentOf(set, r.Files)
	for _, known := range l.known {
		if known.content == r.Content && slices.EqualFunc(known.profiles, set.profiles, sameSource) {
			r.Set = known
			return r
		}
	}
	set.content = r.Content
	return r
}

func (l *loader) load() (*Set, error) {
	var file []byte
	var all []written
	if l.cfg.FilePath != "" {
		var err error
		if file, err = l.read(l.cfg.FilePath); err != nil {
			err = fmt.Errorf("profiles %s: %w", l.cfg.FilePath, err)
			return nil, Problems{PartError{l.cfg.Own.Name, Part{Element: "FilePath"}, err}}
		}
		if all, err = parse(l.cfg.FilePath, file); err != nil {
			return nil, err
		}
	}
	all, problems := l.located(all)
	var profiles []*Profile
	var warnings []error
	for _, s := range all {
		l.inheritRevocation(&s)
		p, wrong := l.profileOfFile(s)
		for _, err := range wrong {
			problems = append(problems, l.place(s, err))
		}
		profiles = append(profiles, p)
		warnings = append(warnings, s.warnings...)
		for _, skip := range p.skipped() {
			warnings = append(warnings, l.place(s, skip))
		}
	}
	p, wrong := l.profile(l.cfg.Own)
	for _, err := range wrong {
		problems = append(problems, err)
	}
	for _, skip := range p.skipped() {
		warnings = append(warnings, skip)
	}
	if len(problems) > 0 {
		return nil, join(problems)
	}
	set, err := newSet(l.cfg.FilePath, append(profiles, p))
	if err != nil {
		return nil, err
	}
	set.file, set.hosts, set.warnings = file, l.hosts, warnings
	return set, nil
}

// inheritRevocation gives a profile the listener's Revocation, unless the file says what its own is.
func (l *loader) inheritRevocation(s *written) {
	own := l.cfg.Own.Revocation
	if s.VerifyClient == None {
		return
	}
	if _, said := s.places[Part{Element: verifier}]; !said {
		s.Revocation = own
	} else if why := laxerRevocation(own, s.Revocation); why != "" {
		warning := PartError{s.Name, Part{Element: verifier}, errors.New("this profile is laxer than revocation of its listener: " + why)}
		s.warnings = append(s.warnings, l.place(*s, warning))
	}
}

// profileOfFile resolves what only holds in the file: passwords that are elsewhere and relative paths.
func (l *loader) profileOfFile(s written) (*Profile, []PartError) {
	var problems []PartError
	for _, store := range []struct {
		element string
		ref     *keystore.Ref
	}{{"KeyStore", &s.KeyStore}, {"TrustStore", &s.TrustStore}} {
		if store.ref.Location != "" {
			store.ref.Location = l.path(store.ref.Location)
		}
		for _, password := range []struct {
			of   keystore.Part
			text *string
		}{{keystore.Password, &store.ref.Password}, {keystore.KeyPassword, &store.ref.KeyPassword}} {
			part := Part{store.element, password.of}
			value, err := l.secret(*password.text, s.aliases[part])
			if err != nil {
				problems = append(problems, PartError{s.Name, part, err})
			}
			*password.text = value
		}
	}
	if len(problems) > 0 {
		return nil, problems
	}
	return l.profile(s.Settings)
}

func (l *loader) path(location string) string {
	if filepath.IsAbs(location) {
		return filepath.Clean(location)
	}
	return filepath.Join(l.cfg.BaseDir, location)
}

// profile reads the stores of s and builds it, or takes it over from a known set.
func (l *loader) profile(s Settings) (*Profile, []PartError) {
	var problems []PartError
	from, err := l.source(s)
	if err != nil {
		problems = append(problems, *err)
	}
	var trusted []byte
	if s.TrustStore.Location != "" {
		if trusted, err = l.store(s.Name, "TrustStore", s.TrustStore); err != nil {
			problems = append(problems, *err)
		}
	}
	checker, err := l.checker(s)
	if err != nil {
		problems = append(problems, *err)
	}
	if len(problems) > 0 {
		return nil, problems
	}
	made := digest(s, from.content, trusted, l.cfg)
	same := func(p *Profile) bool {
		return p.made.key == made.key && p.source.same(from) && p.rules.Revocation == checker
	}
	if p := l.find(same); p != nil {
		return p, nil
	}
	p, problems := newProfile(s, from, trusted, checker, l.cfg)
	if len(problems) > 0 {
		return nil, problems
	}
	p.made = made
	if last := l.find(func(p *Profile) bool { return p.made.clients == made.clients }); last != nil {
		p.tickets.follow(&last.tickets)
	}
	p.rotate(l.cfg.Now())
	return p, nil
}

// checker returns who looks revocations up for s; nil if nobody does.
func (l *loader) checker(s Settings) (*revocation.Checker, *PartError) {
	if !s.Revocation.LooksUp() {
		return nil, nil
	}
	if l.cfg.Checker == nil {
		return nil, &PartError{s.Name, Part{Element: verifier}, errors.New("nobody looks revocations up here")}
	}
	checker, err := l.cfg.Checker(s.Revocation)
	if err != nil {
		return nil, &PartError{s.Name, Part{Element: verifier}, err}
	}
	return checker, nil
}

// find returns the first profile of the known sets that is the one, or nil.
func (l *loader) find(is func(*Profile) bool) *Profile {
	for _, known := range l.known {
		if i := slices.IndexFunc(known.profiles, is); i >= 0 {
			return known.profiles[i]
		}
	}
	return nil
}

// store reads the file of a store.
func (l *loader) store(profile, element string, ref keystore.Ref) ([]byte, *PartError) {
	data, err := l.read(ref.Location)
	if err != nil {
		return nil, &PartError{profile, Part{element, keystore.Location}, keystore.Unread(ref, err)}
	}
	return data, nil
}

// source finds where the keys of s come from, and what they are by now.
func (l *loader) source(s Settings) (source, *PartError) {
	fault := func(of keystore.Part, err error) *PartError { return &PartError{s.Name, Part{"KeyStore", of}, err} }
	switch {
	case len(s.Order.Names) == 0 && s.KeyStore.Location == "":
		return source{}, fault("", errors.New("there is no key store: name one"))
	case len(s.Order.Names) == 0:
		data, err := l.store(s.Name, "KeyStore", s.KeyStore)
		return source{KeySource: fileKeys{s.KeyStore, data}, content: data}, err
	case l.cfg.ACME == nil:
		return source{}, fault(keystore.Type, errors.New("type ACME, and it is not said which CA: add acme to sallyport.yaml"))
	}
	from := l.cfg.ACME(s.Order)
	keys, err := from.Keys(l.cfg.Now())
	if err != nil {
		return source{}, fault("", err)
	}
	content := keys.digest()
	writeField(l.all, content)
	return source{from, &keys, content}, nil
}

// place gives a problem of a profile its place in the file.
func (l *loader) place(s written, err PartError) *ParseError {
	at, element := s.place(err.Part)
	return &ParseError{File: l.cfg.FilePath, Line: at.line, Column: at.column, Element: element, Message: err.Error(), Err: err}
}

// skipped tells of the entries of a profile's stores that can't be used. They are errors of the profile in form only.
func (p *Profile) skipped() (list []PartError) {
	if p == nil {
		return nil
	}
	for _, err := range p.skippedKeys {
		list = append(list, PartError{p.Name, Part{"KeyStore", keystore.Location}, err})
	}
	for _, err := range p.Trust.Skipped() {
		list = append(list, PartError{p.Name, Part{"TrustStore", keystore.Location}, err})
	}
	return list
}

// paths returns where all that was read lies, absolute, sorted and each once.
func (l *loader) paths() []string {
	var paths []string
	for path := range l.files {
		if abs, err := filepath.Abs(path); err == nil {
			path = abs
		}
		paths = append(paths, path)
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}

func contentOf(s *Set, files []string) (sum [32]byte) {
	h := sha256.New()
	for _, p := range s.profiles {
		h.Write(p.made.key[:])
	}
	for _, path := range files {
		writeField(h, []byte(path))
	}
	h.Sum(sum[:0])
	return sum
}

// digests are of all that a profile is made of, but its place in the file.
type digests struct {
	key     [32]byte // of all, passwords included; never shown
	shown   [32]byte // of all but passwords
	clients [32]byte // of what clients are judged by: all but the server's keys and where they come from
}

// digest takes in s, the contents of its stores, and what cfg has to say of clients' certificates.
func digest(s Settings, keys, trusted []byte, cfg Options) (d digests) {
	h := sha256.New()
	for _, text := range []string{
		s.Name, s.BindAddress.String(), s.BindHost, s.ServerName, s.VerifyClient.String(),
		s.TrustStore.Location, s.TrustStore.Type, string(s.TrustStore.Alias),
	} {
		writeField(h, []byte(text))
	}
	for _, list := range [][]uint16{s.Protocols, s.Ciphers} {
		var b []byte
		if list != nil {
			b = append(b, 1)
		}
		for _, id := range list {
			b = binary.BigEndian.AppendUint16(b, id)
		}
		writeField(h, b)
	}
	writeRevocation(h, s.Revocation)
	writeField(h, trusted)
	if cfg.AlsoAskFor != nil {
		for _, cert := range cfg.AlsoAskFor.Certificates() {
			writeField(h, cert.Raw)
		}
	}
	fmt.Fprintf(h, "%d %d %d %s", cfg.Shown.Bytes, cfg.Shown.Certificates, cfg.Shown.KeyBits, cfg.Vouching)
	h.Sum(d.clients[:0])
	for _, text := range []string{s.KeyStore.Location, s.KeyStore.Type, string(s.KeyStore.Alias)} {
		writeField(h, []byte(text))
	}
	fmt.Fprintf(h, "%q %q", s.Order.Names, s.Order.KeyTypes)
	writeField(h, keys)
	h.Sum(d.shown[:0])
	for _, ref := range []keystore.Ref{s.KeyStore, s.TrustStore} {
		writeField(h, []byte(ref.Password))
		writeField(h, []byte(ref.KeyPassword))
	}
	h.Sum(d.key[:0])
	return d
}

// writeField writes the length first, so that two fields can't pass for one.
func writeField(h hash.Hash, data []byte) {
	var length [8]byte
	binary.BigEndian.PutUint64(length[:], uint64(len(data)))
	h.Write(length[:])
	h.Write(data)
}
