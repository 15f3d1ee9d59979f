package control

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/caddyserver/certmagic"

	"sallyport/certstore"
	"sallyport/internal/fileset"
	"sallyport/listenerprofiles"
	"sallyport/listenerprofiles/acme"
)

// issuers are the Managers of certificates, which outlive Assemblies: a CA is asked once, whatever else changes. They are
// used by one goroutine.
type issuers map[issuerKey]*acme.Manager

// An issuerKey is all that a Manager is made from.
type issuerKey struct {
	settings acme.Settings
	caFile   [sha256.Size]byte // digest of its content
	store    certstore.Source  // if they are kept there
}

// buildIssuer finds the Manager of the CA that Spec names, or makes it. It orders nothing before the Assembly is in force.
func (b *builder) buildIssuer() {
	settings := b.Spec.ACME.Value
	if settings.Directory == "" {
		return
	}
	var roots *x509.CertPool
	if settings.CAFile != "" {
		wrong := len(b.problems)
		roots = b.openRoots("acme", settings.CAFile, b.Spec.ACME.Keys.at("caFile", b.Spec.ACME.Place))
		if len(b.problems) > wrong {
			return
		}
	}
	if settings.KeyFile != "" {
		if _, err := fileset.ReadKey(settings.KeyFile); err != nil {
			b.problems.Add(b.Spec.ACME.Keys.at("keyFile", b.Spec.ACME.Place), fmt.Errorf("acme: %w", err))
			return
		}
	}
	key := issuerKey{settings: settings, caFile: b.read[settings.CAFile]}
	if settings.Shared {
		key.store = b.Spec.Store.Value
	}
	all := b.loop.issuers
	if all[key] == nil {
		l := b.loop
		all[key] = acme.New(acme.Options{
			Settings: settings, Roots: roots, Log: l.log, Faults: l.faults, Now: l.cfg.Now, Changed: l.markProfiles,
			Open: func(ctx context.Context) (certmagic.Storage, io.Closer, error) {
				return l.openStorage(ctx, key)
			},
		})
	}
	b.issuer = all[key]
}

// openStorage opens what certificates are kept in.
func (l *Loop) openStorage(ctx context.Context, key issuerKey) (certmagic.Storage, io.Closer, error) {
	if !key.settings.Shared {
		return acme.Files(key.settings.Folder), nil, nil
	}
	var seal fileset.Key
	if file := key.settings.KeyFile; file != "" {
		var err error
		if seal, err = fileset.ReadKey(file); err != nil {
			return nil, nil, fmt.Errorf("acme: %w", err)
		}
	}
	s, err := key.store.Open(ctx, certstore.Options{ReadOnly: l.cfg.readOnly})
	if err != nil {
		return nil, nil, fmt.Errorf("acme: %w", err)
	}
	return acme.Shared(s, seal, l.log, l.faults), s, nil
}

var errForeignStorage = errors.New("the store is WSO2's database, which keeps no keys: say storage: files, or name another store")

// markProfiles has the profiles of all listeners looked at. Any goroutine may call it.
func (l *Loop) markProfiles() {
	if a := l.inForce.Load(); a != nil {
		for _, listener := range a.Spec.Listeners {
			if listener.TLS != nil {
				l.mark(profilesOf(listener.Name))
			}
		}
	}
}

// retire closes all Managers but the one that is in force, those of configurations that were refused among them.
func (l *Loop) retire() error {
	var problems []error
	inForce := l.inForce.Load()
	for key, m := range l.issuers {
		if inForce == nil || m != inForce.issuer {
			problems = append(problems, m.Close())
			delete(l.issuers, key)
		}
	}
	return errors.Join(problems...)
}

// sourceOf returns where the profiles of an Assembly take their keys from that a CA issues; nil if no CA is named.
func (a *Assembly) sourceOf() func(listenerprofiles.Order) listenerprofiles.KeySource {
	switch {
	case a.issuer != nil:
		return a.issuer.Source
	case a.Spec.ACME.Value.Directory != "":
		return func(listenerprofiles.Order) listenerprofiles.KeySource { return noKeys{} }
	}
	return nil
}

// noKeys stands for a CA that is named and can't be used, of which its own place tells.
type noKeys struct{}

// Keys implements listenerprofiles.KeySource.
func (noKeys) Keys(time.Time) (listenerprofiles.Keys, error) { return listenerprofiles.Keys{}, nil }

// order has the CA asked for what the profiles in force want.
func (a *Assembly) order() {
	if a.issuer == nil {
		return
	}
	var wishes []acme.Wish
	for _, set := range a.sets {
		for _, p := range set.Profiles() {
			wishes = append(wishes, acme.WishesOf(p.Order)...)
		}
	}
	a.issuer.Want(wishes)
}
