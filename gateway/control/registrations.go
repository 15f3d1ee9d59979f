package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"sallyport/certstore"
	"sallyport/gateway/decision"
	"sallyport/listenerprofiles/trust"
)

// registrations are what one reading of the store has found.
type registrations struct {
	version  uint64    // of the store before the reading, so that a change after it is not missed
	seen     time.Time // when it was asked for the version
	clients  []certstore.Client
	problems []certstore.Problem
	others   map[int]int // registrations of tenants that are not served, by the tenant's id

	denials    []certstore.Denial
	denied     *trust.Denials // denials, as they are asked; nil: there are none
	unreadable []error        // rows of the deny list that are not in denials, unless an earlier reading has found them

	away error // why they come from the snapshot and not from the store; nil: they do not
}

// readRegistrations reads the store. What it denies and can't be read is an error, unless last is an earlier reading of
// the same store: then that is denied, too, which was denied by last, so that nothing ends being denied by becoming
// unreadable.
func (a *Assembly) readRegistrations(ctx context.Context, last *registrations) (r registrations, err error) {
	store := a.store
	r.seen = a.sighting.now()
	if r.version, err = store.Version(ctx); err == nil {
		r.clients, r.problems, err = store.List(ctx)
	}
	if err == nil {
		r.others, err = store.OtherTenants(ctx)
	}
	if err == nil {
		r.denials, r.unreadable, err = store.Denials(ctx)
	}
	if err == nil && last == nil {
		err = errors.Join(r.unreadable...)
	}
	if err != nil {
		return r, fmt.Errorf("store: %w", err)
	}
	if len(r.unreadable) > 0 {
		r.denials = certstore.DenialsWith(r.denials, last.denials)
	}
	r.deny(last)
	return r, nil
}

// deny makes denied of denials, or takes it over from last, which may be nil.
func (r *registrations) deny(last *registrations) {
	if last != nil && slices.EqualFunc(r.denials, last.denials, sameDenial) {
		r.denied = last.denied
		return
	}
	r.denied = Denials(r.denials)
}

// Denials are entries of a store's deny list, as certificates are asked for in it: whose they are is told in one room. The
// caller changes the list no more.
func Denials(list []certstore.Denial) *trust.Denials {
	denials := make([]trust.Denial, len(list))
	for i := range list {
		d := &list[i]
		denials[i] = trust.Denial{
			Fingerprint: d.Fingerprint, Issuer: d.Issuer, Serial: d.Serial, Key: d.Key, Comment: d.Comment, Since: d.Since, By: d.By,
		}
	}
	return trust.NewDenials(denials)
}

func sameDenial(x, y certstore.Denial) bool {
	return x.Fingerprint == y.Fingerprint && x.Key == y.Key && bytes.Equal(x.Issuer, y.Issuer) && bytes.Equal(x.Serial, y.Serial) &&
		x.Comment == y.Comment && x.Since.Equal(y.Since)
}

// noDenials is the deny list where there is none.
var noDenials = trust.NewDenials(nil)

// Denied is the deny list; it is never nil.
func (a *Assembly) Denied() *trust.Denials {
	if a == nil || a.registered.denied == nil {
		return noDenials
	}
	return a.registered.denied
}

// DenyList is the deny list as the store has it. The caller does not change it.
func (a *Assembly) DenyList() []certstore.Denial { return a.registered.denials }

// IssuerNames returns the names, as DER, that can be issuers of certificates that are admitted: those that registered
// certificates have, as issuer or as subject, and those of the entries of trust stores.
func (a *Assembly) IssuerNames() [][]byte {
	names := map[string]bool{}
	for _, c := range a.Clients.All() {
		names[string(c.Certificate.RawIssuer)], names[string(c.Certificate.RawSubject)] = true, true
	}
	stores := []*trust.Anchors{a.door.Rules().Anchors, a.door.BalancerTrust()}
	for _, set := range a.sets {
		for _, p := range set.Profiles() {
			stores = append(stores, p.Trust)
		}
	}
	for _, anchors := range stores {
		if anchors == nil {
			continue
		}
		for _, cert := range anchors.Certificates() {
			names[string(cert.RawIssuer)], names[string(cert.RawSubject)] = true, true
		}
	}
	list := make([][]byte, 0, len(names))
	for _, name := range slices.Sorted(maps.Keys(names)) {
		list = append(list, []byte(name))
	}
	return list
}

// open opens the store, or takes it over from last, and joins its registrations with those of the API files.
func (a *Assembly) open(ctx context.Context, last *Assembly, options certstore.Options) error {
	if err := a.takeStore(ctx, last, options); err != nil {
		return err
	}
	conflicts, err := a.admit()
	if err = errors.Join(append(conflicts, err)...); err != nil && (last == nil || a.store != last.store) {
		err = errors.Join(err, a.Close())
	}
	return err
}

// takeStore opens the store and reads it, or takes it over from last.
func (a *Assembly) takeStore(ctx context.Context, last *Assembly, options certstore.Options) error {
	var problems Problems
	if last != nil {
		a.index, a.Clients = last.index, last.Clients
	}
	if last != nil && last.store != nil && last.Spec.Store.Value == a.Spec.Store.Value {
		a.store, a.registered = last.store, last.registered
	} else if err := a.openStore(ctx, options); err != nil {
		if last == nil && !options.ReadOnly {
			err = a.replaceStore(err, options)
		}
		if problems.Add(a.Spec.Store.Place, err); err != nil {
			return errors.Join(problems, a.Close())
		}
	}
	if a.Spec.ACME.Value.Shared && a.StoreForeign() {
		problems.Add(a.Spec.ACME.Keys.at("storage", a.Spec.ACME.Place), errForeignStorage)
		if last == nil || a.store != last.store {
			return errors.Join(problems, a.Close())
		}
		return problems
	}
	return nil
}

// openStore opens the store and reads it. The caller closes it, after an error too.
func (a *Assembly) openStore(ctx context.Context, options certstore.Options) (err error) {
	if a.Spec.Store.Value.URL == "" {
		return nil
	}
	a.store, err = a.Spec.Store.Value.Open(ctx, options)
	if err == nil {
		a.registered, err = a.readRegistrations(ctx, nil)
		return err
	}
	if options.ReadOnly && errors.Is(err, fs.ErrNotExist) {
		if creatable(a.Spec.Store.Value.URL) {
			return nil
		}
		err = fmt.Errorf("its folder must exist: %w", err)
	}
	return fmt.Errorf("store: %w", err)
}

// creatable reports whether a store that does not exist yet could be made: its folder has to be there. On a server its
// tables are made.
func creatable(store string) bool {
	url, err := certstore.ParseURL(store)
	if err != nil {
		return false
	}
	if url.OnServer() {
		return true
	}
	info, err := os.Stat(filepath.Dir(url.File()))
	return err == nil && info.IsDir()
}

// storeFiles returns the files whose events tell of changes in the store.
func storeFiles(store string) []string {
	url, err := certstore.ParseURL(store)
	if err != nil || url.File() == "" {
		return nil
	}
	return []string{url.File(), url.File() + "-wal"}
}

const (
	// storeInterval is how often a store is asked for changes. Nothing else tells of all of those on a server. One there
	// that WSO2 owns marks none: to ask is to read it all, which the loop does at its period.
	storeInterval = 500 * time.Millisecond
	// hearingLife ends a connection that listens: the server may have another address, or be gone without a word.
	hearingLife = 3 * time.Minute
	// hearingPause is how long the next one waits, so that a server that is away is not asked all the time.
	hearingPause = 5 * time.Second
)

// failed is how the last question of askStore ended.
type failed struct {
	of  *certstore.Store
	err error
}

// failing is why askStore can't read a store; nil if it can, or has not asked it yet. So that the loop need not wait for
// one that doesn't answer.
func (l *Loop) failing(s *certstore.Store) error {
	if f := l.failed.Load(); f != nil && f.of == s {
		return f.err
	}
	return nil
}

// askStore has the loop look at a store once it has changed, can't be read any more, or can be again, and notes when it
// was as it is served. It is a task of its own, so that a server that doesn't answer holds up nothing else.
func (l *Loop) askStore(ctx context.Context) error {
	var of *certstore.Store
	var seen uint64
	var away bool
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.heard:
		case <-time.After(l.cfg.storeInterval):
		}
		a, now := l.inForce.Load(), l.cfg.Now()
		s := a.store
		if s == nil || s.OnServer() && s.Foreign() {
			continue
		}
		version, err := s.Version(ctx)
		l.failed.Store(&failed{s, err})
		if s != of || (err != nil) != away || err == nil && version != seen {
			l.mark(store)
		}
		if err == nil && version == a.registered.version {
			l.sighting.note(now)
		}
		of, away = s, err != nil
		if err == nil {
			seen = version
		}
	}
}

// maxAge is the Spec's; of a store that is looked at once a period only, two of these at least.
func (a *Assembly) maxAge() time.Duration {
	if s := a.store; a.Spec.MaxAge > 0 && s != nil && s.OnServer() && s.Foreign() {
		return max(a.Spec.MaxAge, 2*a.Spec.Period)
	}
	return a.Spec.MaxAge
}

// hearStore has askStore ask at once when a store on a server tells of a change, until ctx ends. What it misses is found
// at the interval.
func (l *Loop) hearStore(ctx context.Context) error {
	for {
		if s := l.inForce.Load().store; s != nil {
			hearing, cancel := context.WithTimeout(ctx, hearingLife)
			_ = s.Listen(hearing, l.hear) // askStore tells of a store that can't be asked
			cancel()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(hearingPause):
		}
	}
}

func (l *Loop) hear() {
	select {
	case l.heard <- struct{}{}:
	default: // it asks in any case
	}
}

// admit makes Clients of the registrations in the store and in files. Those of the two that contradict each other are
// conflicts and are not admitted, neither of them: so that what was removed elsewhere is gone all the same. What
// a.index and a.Clients have already is not done again.
func (a *Assembly) admit() (conflicts []error, err error) {
	stored, files, conflicts := withoutConflicts(a.servedHere(a.registered.clients), a.Spec.Clients)
	if a.index, err = a.index.Next(slices.Concat(files, stored)); err != nil {
		return conflicts, err
	}
	var unknown []error
	a.Clients, unknown = a.Clients.Next(a.index, a.Spec.Tiers, a.limits)
	a.Clients.ChainValidation = a.Spec.ChainValidation
	a.Clients.Stored = decision.Freshness{MaxAge: a.maxAge(), Seen: &a.sighting.at}
	a.bystanders = a.findBystanders()
	a.Warnings = nil
	for _, p := range a.registered.problems {
		a.Warnings = append(a.Warnings, fmt.Errorf("store: %s", p))
	}
	for _, tenant := range slices.Sorted(maps.Keys(a.registered.others)) {
		a.Warnings = append(a.Warnings, fmt.Errorf("store: tenant %d has registrations, which are not served: %d",
			tenant, a.registered.others[tenant]))
	}
	a.Warnings = append(a.Warnings, unknown...)
	return conflicts, nil
}

// servedHere leaves out the registrations for APIs that other gateways serve.
func (a *Assembly) servedHere(stored []certstore.Client) []certstore.Client {
	if len(a.Spec.LeftOut) == 0 {
		return stored
	}
	out := map[certstore.API]bool{}
	for i := range a.Spec.LeftOut {
		out[a.Spec.LeftOut[i].API] = true
	}
	for i := range a.Spec.APIs {
		delete(out, a.Spec.APIs[i].API) // another one of its name is here
	}
	return slices.DeleteFunc(slices.Clone(stored), func(c certstore.Client) bool { return out[c.API] })
}

// withoutConflicts leaves out the registrations that stand in the store and in a file: for one API, an alias and key
// type, and a certificate, live in one place only.
func withoutConflicts(stored, files []certstore.Client) (s, f []certstore.Client, conflicts []error) {
	conflict := func(x, y certstore.Client) bool {
		return x.Alias == y.Alias && x.KeyType == y.KeyType || x.Certificate.Equal(y.Certificate)
	}
	if len(files) == 0 {
		return stored, nil, nil
	}
	byAPI := map[certstore.API][]int{} // in files
	for i, c := range files {
		byAPI[c.API] = append(byAPI[c.API], i)
	}
	out := map[int]bool{}
	s = slices.DeleteFunc(slices.Clone(stored), func(c certstore.Client) bool {
		found := false
		for _, i := range byAPI[c.API] {
			if other := files[i]; conflict(c, other) {
				found, out[i] = true, true
				conflicts = append(conflicts, fmt.Errorf("client certificate %s of %s is registered in the store and, as %s, at %s: "+
					"neither is admitted until one of them is removed", c.Alias, c.API, other.Alias, other.Source))
			}
		}
		return found
	})
	for i, c := range files {
		if !out[i] {
			f = append(f, c)
		}
	}
	return s, f, conflicts
}
