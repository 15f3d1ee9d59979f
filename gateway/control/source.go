package control

import (
	"context"
	"crypto/sha256"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"
)

// A source is one thing that the snapshot is made from: its name, the files it is made of, and how to look at it. The
// rest is the loop's record of it.
type source struct {
	name     string
	listener string   // whose profiles it is; "" for the other sources
	files    []string // that the last look read or looked for

	// look reads the source into t, where fresh includes a file that is not due, and takes over what before has already
	// built. It is nil for the store, which lookAtStore reads.
	look func(l *Loop, t *attempt, fresh bool, before *Assembly)

	judged   [32]byte  // content of the finding that was judged last, whether it is in force or was refused
	restless bool      // its files were still changing when the loop gave up on them
	due      time.Time // when it is looked at without a hint
	fileDue  time.Time // the same for the profiles' file; zero if there is none
}

// An attempt is one look at several sources, and the Assembly that follows from it.
type attempt struct {
	fresh   map[string]bool    // the sources to look at; false leaves out a file that is not due
	found   map[string]finding // by source
	next    *Assembly          // the one in force if nothing has changed
	rebuilt bool               // next has another Spec than the one in force
	apart   bool               // that Spec has just failed to come into force, so the series does without it
	began   time.Time          // when the first attempt of the series was made
	again   time.Time          // when the next one is due
}

// A finding is what a look found out about one source. Findings with equal content are the same.
type finding struct {
	content [32]byte
	err     error
	files   []string // nil: as before
}

// sameAs reports whether t found the same as other, wherever t looked.
func (t *attempt) sameAs(other *attempt) bool {
	for name, f := range t.found {
		if f.content != other.found[name].content {
			return false
		}
	}
	return true
}

// look makes an attempt. What the attempt before has built, which may be nil, is taken over.
func (l *Loop) look(fresh map[string]bool, before *attempt) *attempt {
	t := &attempt{fresh: fresh, found: map[string]finding{}, next: l.inForce.Load()}
	var seen *Assembly
	if before != nil {
		t.began, t.apart, seen = before.began, before.apart, before.next
	}
	for _, name := range l.ordered() {
		s := l.sources[name]
		full, wanted := fresh[name]
		if _, done := t.found[name]; wanted && !done && s.look != nil {
			s.look(l, t, full, seen)
		}
	}
	for name, f := range t.found {
		if s := l.sources[name]; s != nil && f.files != nil {
			s.files = f.files
		}
	}
	return t
}

// ordered returns the sources' names, the configuration first: a look at a changed one includes all profiles.
func (l *Loop) ordered() []string {
	return slices.SortedFunc(maps.Keys(l.sources), func(a, b string) int {
		if (a == configuration) != (b == configuration) {
			return map[bool]int{true: -1, false: 1}[a == configuration]
		}
		return strings.Compare(a, b)
	})
}

// lookAtConfiguration loads the Spec, and builds everything anew if it or a file that it names itself has changed.
func (l *Loop) lookAtConfiguration(t *attempt, _ bool, before *Assembly) {
	spec, err := l.cfg.Load()
	if err == nil && spec.Digest == t.next.Spec.Digest && !l.stale(t.next) {
		t.found[configuration] = finding{content: t.next.content()}
		return
	}
	var b *builder
	if err == nil {
		b = l.builder(spec, t.next, before)
		_, err = b.build()
	}
	if err != nil {
		f := finding{content: contentOf(err), err: err}
		if b != nil {
			f.files = b.findings()[configuration].files
		}
		t.found[configuration] = f
		return
	}
	t.found, t.next, t.rebuilt = b.findings(), b.Assembly, true
}

// stale reports whether a file that a's Spec names itself has changed.
func (l *Loop) stale(a *Assembly) bool {
	for path, sum := range a.read {
		if data, err := l.cfg.readFile(path); err != nil || sha256.Sum256(data) != sum {
			return true
		}
	}
	return false
}

func contentOf(err error) [32]byte { return sha256.Sum256([]byte(err.Error())) }

// findings returns those of the configuration and of all profiles.
func (b *builder) findings() map[string]finding {
	found := map[string]finding{}
	files := slices.Concat(b.Spec.Files, slices.Collect(maps.Keys(b.read)))
	for listener, r := range b.readings {
		found[profilesOf(listener)] = finding{r.Content, r.Err, r.Files}
		if len(b.problems) > 0 {
			files = append(files, r.Files...) // one of them may have the problem, as a key store with another password
		}
	}
	found[configuration] = finding{content: b.content(), files: files}
	return found
}

// lookAtProfiles returns the look at a listener's profiles under an unchanged configuration.
func lookAtProfiles(listener string) func(*Loop, *attempt, bool, *Assembly) {
	return func(l *Loop, t *attempt, fresh bool, before *Assembly) {
		spec := t.next.Spec.listener(listener)
		if spec == nil || spec.TLS == nil {
			return
		}
		b := l.builder(t.next.Spec, t.next, before)
		b.balancers = t.next.balancers
		r := b.readProfiles(spec, fresh)
		t.found[profilesOf(listener)] = finding{r.Content, r.Err, r.Files}
		if r.Err == nil && r.Set != t.next.sets[listener] {
			t.next = t.next.with(listener, r.Set)
		}
	}
}

// lookAtStore reads the registrations if they have changed, or in a Reload, and puts them into force at once: unlike a
// file, a database is never seen half written.
func (l *Loop) lookAtStore(ctx context.Context, asked bool) {
	last := l.inForce.Load()
	if last.store == nil {
		return
	}
	version, err := last.store.Version(ctx)
	if err == nil && version == last.registered.version && !asked {
		if l.unread {
			l.unread = false
			l.board.mended(store)
			l.log.Info("the store can be read again")
		}
		return
	}
	next := *last
	if err == nil {
		next.registered, err = readRegistrations(ctx, last.store)
	}
	var conflicts []error
	if err == nil {
		conflicts, err = next.admit()
	}
	if ctx.Err() != nil {
		return
	}
	if err == nil {
		err = l.put(&next)
	}
	l.unread = err != nil
	if err != nil {
		if before := l.board.broken(store); asked || before == nil || before.Error() != err.Error() {
			l.board.bad(store, err)
			l.log.Error("the store cannot be read; the registered certificates serve on as they were", "error", err)
		}
		return
	}
	l.tellClients()
	if err := errors.Join(conflicts...); err != nil {
		l.board.bad(store, err)
		l.log.Error("registered certificates contradict each other", "error", err)
		return
	}
	l.board.good(store)
}

// attend makes l.sources those of the Assembly in force.
func (l *Loop) attend() {
	now, spec := time.Now(), l.inForce.Load().Spec
	wanted := map[string]source{configuration: {look: (*Loop).lookAtConfiguration}}
	if spec.Store.Value != "" {
		wanted[store] = source{}
	}
	for _, listener := range spec.Listeners {
		if listener.TLS != nil {
			wanted[profilesOf(listener.Name)] = source{listener: listener.Name, look: lookAtProfiles(listener.Name)}
		}
	}
	sooner := func(at *time.Time, period time.Duration) {
		if due := now.Add(period); at.IsZero() || due.Before(*at) {
			*at = due
		}
	}
	maps.DeleteFunc(l.sources, func(name string, _ *source) bool { _, ok := wanted[name]; return !ok })
	for name, s := range wanted {
		if l.sources[name] == nil {
			s.name = name
			l.sources[name] = &s
		}
		one := l.sources[name]
		sooner(&one.due, spec.Period)
		if listener := spec.listener(s.listener); listener != nil && listener.TLS.FilePath != "" {
			sooner(&one.fileDue, listener.FileReadInterval)
		} else {
			one.fileDue = time.Time{}
		}
	}
	names := l.names()
	for _, k := range spec.KeyManagers {
		names = append(names, keysOf(k.Value.Name))
	}
	l.board.keep(names)
}
