package control

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"sallyport/certstore"
	"sallyport/gateway/decision"
	"sallyport/internal/printable"
)

// A Unit is the APIs that come into force together or not at all: those of an API file, or those of the main file. One
// that is not good is fenced off: what it was when it was in force last serves on, and the rest of a change comes into
// force without it.
type Unit struct {
	Place                        // the file as a whole
	File      string             // absolute; "" for the APIs in the main file, which is good or bad as a whole
	Digest    [32]byte           // of the File and of what it names, as of those that the APIs here were read from
	Problems  Problems           // why the File is not good; none: it is
	Claims    []decision.Claim   // where a File that is not good says that its APIs are, as far as it can be read
	APIs      []API              // those that serve, which for a File that is not good are those of its last good one
	Clients   []certstore.Client // that they register
	LeftOut   []API              // that are not served here, by their labels
	Elsewhere []certstore.Client // that those register

	contradicts bool // registrations of the store, which may change while the File does not
}

// Fenced reports whether the file is not good.
func (u Unit) Fenced() bool { return len(u.Problems) > 0 }

// defines reports whether there is anything to serve on.
func (u *Unit) defines() bool { return len(u.APIs)+len(u.LeftOut) > 0 }

// Fenced returns the units whose files are not good.
func (a *Assembly) Fenced() (units []*Unit) {
	for i := range a.Spec.Units {
		if u := &a.Spec.Units[i]; u.Fenced() {
			units = append(units, u)
		}
	}
	return units
}

// doubtful reports whether a file may be good by now though it has not changed.
func (a *Assembly) doubtful() bool {
	return slices.ContainsFunc(a.Fenced(), func(u *Unit) bool { return u.contradicts })
}

// unitOf returns what is in force of a file, or nil.
func (b *builder) unitOf(file string) *Unit {
	if len(b.known) == 0 || file == "" {
		return nil
	}
	units := b.known[0].Spec.Units
	for i := range units {
		if units[i].File == file && units[i].defines() {
			return &units[i]
		}
	}
	return nil
}

// A builtUnit is what buildUnits makes of a Unit.
type builtUnit struct {
	*Unit
	last     *Unit // what is in force of it; nil: nothing
	settled  bool  // it is what is in force, or nothing, or of the main file: others give way to it
	built    bool
	routes   []decision.Route
	problems Problems

	contradicted bool // by the store
	opened       []Certificate
	warnings     Problems
}

// buildUnits makes the Routes, and a Spec that says what they are made of. A file that is not good, or whose APIs are at
// odds with what serves, keeps nothing else from coming into force.
func (b *builder) buildUnits(settings decision.Settings) {
	spec := *b.Spec
	spec.Units = slices.Clone(spec.Units)
	units := make([]builtUnit, len(spec.Units))
	for i := range units {
		u := &units[i]
		u.Unit = &spec.Units[i]
		u.last = b.unitOf(u.File)
		u.settled = u.File == "" || u.last != nil && u.last.Digest == u.Digest
		if u.Fenced() {
			b.fence(u, u.Problems)
		}
	}
	for len(b.problems) == 0 {
		found := b.troubles(settings, units)
		if len(found) == 0 {
			break
		}
		for _, i := range slices.Sorted(maps.Keys(found)) {
			b.fence(&units[i], found[i])
		}
	}
	if len(b.problems) > 0 {
		return
	}
	var claims []decision.Claim
	var all Problems
	spec.APIs, spec.Clients, spec.LeftOut, spec.Elsewhere = nil, nil, nil, nil
	for i := range units {
		u := &units[i]
		spec.APIs, spec.Clients = append(spec.APIs, u.APIs...), append(spec.Clients, u.Clients...)
		spec.LeftOut, spec.Elsewhere = append(spec.LeftOut, u.LeftOut...), append(spec.Elsewhere, u.Elsewhere...)
		claims, all = append(claims, u.Claims...), append(all, u.Problems...)
		b.opened, b.storeWarnings = append(b.opened, u.opened...), append(b.storeWarnings, u.warnings...)
	}
	if len(all) > 0 && len(spec.APIs)+len(spec.LeftOut) == 0 { // nothing is left to serve
		b.problems = append(b.problems, all...)
		return
	}
	b.Routes.Fence(claims)
	b.Spec = &spec
}

// fence puts what is in force in the place of a unit that is not good, or nothing if that is nothing. It is a problem of
// the whole if the unit is not to blame, or if what is in force does not fit the rest any more.
func (b *builder) fence(u *builtUnit, why Problems) {
	switch {
	case u.File == "", u.Fenced() && u.built: // what serves has trouble with itself, or with the main file
		b.problems = append(b.problems, why...)
		return
	case u.Fenced() && u.last != nil && u.last.Digest == u.Digest, // it is as it was when it was good
		b.ofNewVersion(u.File):
		b.problems = append(b.problems, why...)
		return
	}
	claims := u.Claims
	for _, api := range u.APIs {
		claims = append(claims, decision.Claim{API: api.API, Context: api.Context, DefaultVersion: api.DefaultVersion})
	}
	*u.Unit = Unit{Place: u.Place, File: u.File, Digest: u.Digest, Problems: why, Claims: claims, contradicts: u.contradicted}
	if u.last != nil {
		kept, err := b.adapt(u.last)
		if err != nil {
			b.problems = append(b.problems, why...)
			b.problems.Add(u.Place, fmt.Errorf("this file is not good, and what it was does not fit the rest any more: %w", err))
			return
		}
		kept.Place, kept.Problems, kept.Claims, kept.contradicts = u.Place, why, nil, u.contradicted
		*u.Unit = kept
	}
	u.settled, u.built, u.routes, u.problems, u.opened, u.warnings = true, false, nil, nil, nil, nil
}

// ofNewVersion reports whether a file comes with a version of the cluster's files that is not in force yet: that comes into
// force as a whole or not at all.
func (b *builder) ofNewVersion(file string) bool {
	folder := b.loop.cfg.Cluster.Folder
	return folder != "" && len(b.known) > 0 && b.known[0].Spec.Release != b.Spec.Release &&
		strings.HasPrefix(file, folder+string(filepath.Separator))
}

// adapt returns a unit that is in force, for the rest of a Spec that may be another one. What the rest has no more its
// APIs lose; where nothing is left it is an error.
func (b *builder) adapt(last *Unit) (Unit, error) {
	u := *last
	u.APIs, u.Clients = nil, nil
	u.LeftOut, u.Elsewhere = slices.Clone(u.LeftOut), slices.Clone(u.Elsewhere)
	elsewhere := map[certstore.API]bool{}
	for _, api := range last.APIs {
		if !b.labelled(api.Labels) {
			u.LeftOut, elsewhere[api.API] = append(u.LeftOut, api), true
			continue
		}
		listeners := slices.DeleteFunc(slices.Clone(api.Listeners), func(name string) bool {
			return b.Spec.listener(name) == nil
		})
		if len(listeners) == 0 && len(api.Listeners) > 0 {
			return u, fmt.Errorf("API %s has no listener any more", api.API)
		}
		keyManagers := slices.DeleteFunc(slices.Clone(api.KeyManagers), func(name string) bool {
			return b.Spec.keyManager(name) == nil
		})
		if len(keyManagers) == 0 && len(api.KeyManagers) > 0 {
			return u, fmt.Errorf("API %s has no key manager any more", api.API)
		}
		api.Listeners, api.KeyManagers = listeners, keyManagers
		for _, tier := range append([]string{api.Tier}, api.ResourceTiers...) {
			if _, ok := b.Spec.Tiers.Find(tier); !ok && tier != "" {
				return u, fmt.Errorf("API %s has the tier %s, which is no more", api.API, printable.Quote(tier))
			}
		}
		u.APIs = append(u.APIs, api)
	}
	for _, c := range last.Clients {
		if _, ok := b.Spec.Tiers.Find(c.Tier); !ok {
			return u, fmt.Errorf("certificate %s of API %s has the tier %s, which is no more",
				printable.Quote(c.Alias), c.API, printable.Quote(c.Tier))
		}
		if elsewhere[c.API] {
			u.Elsewhere = append(u.Elsewhere, c)
		} else {
			u.Clients = append(u.Clients, c)
		}
	}
	return u, nil
}

// labelled reports whether this gateway serves APIs with these labels.
func (b *builder) labelled(labels []string) bool {
	return len(labels) == 0 || len(b.Spec.Labels) == 0 ||
		slices.ContainsFunc(labels, func(s string) bool { return slices.Contains(b.Spec.Labels, s) })
}

// troubles returns what is wrong with units, by index: with each by itself first, then between them. If nothing is, it
// makes the Routes.
func (b *builder) troubles(settings decision.Settings, units []builtUnit) map[int]Problems {
	found := map[int]Problems{}
	var routes []decision.Route
	for i := range units {
		u := &units[i]
		if !u.built {
			b.buildUnit(settings, u)
		}
		if len(u.problems) > 0 {
			found[i] = u.problems
		}
		routes = append(routes, u.routes...)
	}
	if len(found) > 0 {
		return found
	}
	var err error
	if b.Routes, err = decision.NewTable(settings, routes); err != nil || namesakes(units) {
		if found = contests(units); len(found) == 0 {
			b.problems.Add(b.Spec.Place, err)
		}
	}
	return found
}

// buildUnit makes the routes of a unit. One that is fenced has what it had where its upstream's files are not good now.
func (b *builder) buildUnit(settings decision.Settings, u *builtUnit) {
	problems, opened, warnings := b.problems, b.opened, b.storeWarnings
	b.problems, b.opened, b.storeWarnings = nil, nil, nil
	for i := range u.APIs {
		api := u.APIs[i]
		before := len(b.problems)
		route, err := b.route(api)
		if last := b.routeInForce(api); u.Fenced() && last != nil && len(b.problems) > before {
			b.problems = b.problems[:before]
			route.Upstream.Roots, route.Upstream.Certificates = last.Upstream.Roots, last.Upstream.Certificates
			route.Upstream.TLSDigest = last.Upstream.TLSDigest
		}
		if err == nil {
			_, err = decision.NewTable(settings, []decision.Route{route})
		}
		b.problems.Add(api.Place, err)
		u.routes = append(u.routes, route)
	}
	b.contradict(u)
	u.built, u.problems, u.opened, u.warnings = true, b.problems, b.opened, b.storeWarnings
	b.problems, b.opened, b.storeWarnings = problems, opened, warnings
}

// routeInForce returns what serves of an API, or nil.
func (b *builder) routeInForce(api API) *decision.Route {
	if len(b.known) == 0 || b.known[0].Routes == nil {
		return nil
	}
	return b.known[0].Routes.Of(api.API)
}

// contradict finds registrations of a unit that is new which contradict the store's, as far as that was read.
func (b *builder) contradict(u *builtUnit) {
	if len(b.known) == 0 || u.settled {
		return
	}
	if last := b.known[0]; last.Spec.Store.Value == b.Spec.Store.Value {
		_, _, conflicts := withoutConflicts(last.registered.clients, u.Clients)
		for _, err := range conflicts {
			b.problems.Add(u.Place, err)
		}
		u.contradicted = len(conflicts) > 0
	}
}

// namesakes reports whether several units have an API of one name.
func namesakes(units []builtUnit) bool {
	seen := map[certstore.API]bool{}
	for i := range units {
		for j := range units[i].APIs {
			name := units[i].APIs[j].API
			if seen[name] {
				return true
			}
			seen[name] = true
		}
	}
	return false
}

// contests finds the units that claim a name or a place of another. What serves stays: a unit that is new gives way to
// one that is settled, and two that are new both give way.
func contests(units []builtUnit) map[int]Problems {
	found := map[int]Problems{}
	for i := range units {
		for j := range units[:i] {
			u, v := &units[i], &units[j]
			for x := range u.APIs {
				for y := range v.APIs {
					why := contest(&u.routes[x], &v.routes[y])
					if why == "" {
						continue
					}
					both := u.settled && v.settled // by a change of the main file, which is to say who gives way
					if !u.settled || both && v.File != "" {
						found[i] = append(found[i], contested(&u.APIs[x], &v.APIs[y], why))
					}
					if !v.settled || both && v.File == "" {
						found[j] = append(found[j], contested(&v.APIs[y], &u.APIs[x], why))
					}
				}
			}
		}
	}
	return found
}

func contest(a, b *decision.Route) string {
	if a.API == b.API {
		return "have one name and version"
	}
	if place := a.Contests(b); place != "" {
		return "both answer at " + place
	}
	return ""
}

func contested(api, other *API, why string) Problem {
	return Problem{Place: api.Place, Message: fmt.Sprintf("API %s, and %s at %s, %s: give one another name, version or "+
		"context, or other hosts or listeners", api.API, other.API, other.Place, why)}
}

// apiFileOf is the source that a fenced file is told as.
func apiFileOf(name string) string { return "API file " + name }

// source is the name of the unit among the sources.
func (u *Unit) source() string { return apiFileOf(printable.Text(u.Place.File)) }

// A fencedError is why a file is not good.
type fencedError struct {
	Problems
	serves bool // what it was when it was good
}

// ServesNothing reports whether nothing serves in the place of what is broken.
func (e fencedError) ServesNothing() bool { return !e.serves }

// tellFences tells of files that are not good, those that were told already only if somebody has asked, and of those that
// are good again since last.
func (l *Loop) tellFences(last *Assembly, asked bool) {
	still := map[string]bool{}
	for _, u := range l.inForce.Load().Fenced() {
		still[u.File] = true
		why := fencedError{u.Problems, u.defines()}
		if before := l.board.state(u.source()).Broken; before != nil && before.Error() == why.Error() && !asked {
			continue
		}
		l.board.bad(u.source(), why)
		message := "an API file is not good, and its APIs are not served; all others are"
		if u.defines() {
			message = "an API file is not good, and its APIs serve on as they were; all others follow"
		}
		for _, p := range u.Problems {
			l.log.Error(message, "file", u.Place.File, "error", p.Error())
		}
	}
	if last == nil {
		return
	}
	for _, u := range last.Fenced() {
		if !still[u.File] {
			l.log.Info("an API file is good again, or gone", "file", u.Place.File)
		}
	}
}
