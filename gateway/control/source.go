package control

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"sallyport/certstore"
)

// A source is the loop's record of one thing that the snapshot is made from.
type source struct {
	files    []string // that the last look read or looked for
	judged   [32]byte // content of the finding that was judged last, whether it is in force or was refused
	restless bool     // its files were still changing when the loop gave up on them

	listener   string        // whose profiles it is; "" for the other sources
	filePeriod time.Duration // between two looks at the profiles' file; 0 if there is none
	fileLooked time.Time     // when the last of these periods ended
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

// faulty is the finding that something is wrong.
func faulty(err error, files []string) finding {
	return finding{sha256.Sum256([]byte(err.Error())), err, files}
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

// source returns the record of a source, and makes it if there is none.
func (l *Loop) source(name string) *source {
	if l.sources[name] == nil {
		l.sources[name] = &source{fileLooked: time.Now()}
	}
	return l.sources[name]
}

// look makes an attempt. What the attempt before has built, which may be nil, is taken over.
func (l *Loop) look(fresh map[string]bool, before *attempt) *attempt {
	last := l.inForce.Load()
	t := &attempt{fresh: fresh, found: map[string]finding{}, next: last}
	known := []*Assembly{last}
	if before != nil {
		t.began, t.apart = before.began, before.apart
		known = append(known, before.next)
	}
	if _, ok := fresh[configuration]; ok {
		l.lookAtConfiguration(t, known)
	}
	if !t.rebuilt { // else its profiles have been looked at with it
		l.lookAtProfiles(t, known)
	}
	for name, f := range t.found {
		if f.files != nil {
			l.source(name).files = f.files
		}
	}
	return t
}

// lookAtConfiguration loads the Spec, and builds everything anew if it or a file that it names itself has changed.
func (l *Loop) lookAtConfiguration(t *attempt, known []*Assembly) {
	spec, err := l.cfg.Load()
	if err != nil {
		t.found[configuration] = faulty(err, nil)
		return
	}
	if spec.Digest == t.next.Spec.Digest && !l.stale(t.next) && !t.next.doubtful() {
		t.found[configuration] = finding{content: t.next.content()}
		return
	}
	b := l.builder(spec, known...)
	if b.build() != nil {
		t.found[configuration] = b.found[configuration]
		return
	}
	t.found, t.next, t.rebuilt = b.found, b.Assembly, true
}

// stale reports whether a file that a's Spec names itself has changed.
func (l *Loop) stale(a *Assembly) bool {
	for path, sum := range a.read {
		if data, _ := l.cfg.readFile(path); sha256.Sum256(data) != sum { // one that can't be read has no data, as in readNamed
			return true
		}
	}
	return false
}

// lookAtProfiles looks at profiles under an unchanged configuration.
func (l *Loop) lookAtProfiles(t *attempt, known []*Assembly) {
	last := t.next
	for i := range last.Spec.Listeners {
		listener := &last.Spec.Listeners[i]
		fresh, wanted := t.fresh[profilesOf(listener.Name)]
		if !wanted || listener.TLS == nil {
			continue
		}
		r := l.readProfiles(listener, last, fresh, known)
		t.found[profilesOf(listener.Name)] = finding{r.Content, r.Err, r.Files}
		if r.Err == nil && r.Set != last.sets[listener.Name] {
			t.next = t.next.with(listener.Name, r.Set)
		}
	}
}

// storePatience is how long one reading of the store may hold up the loop.
const storePatience = 30 * time.Second

// lookAtStore reads the registrations if they have changed, or in a Reload, and puts them into force at once: unlike a
// file, a database is never seen half written.
func (l *Loop) lookAtStore(ctx context.Context, asked bool) {
	last := l.inForce.Load()
	if last.store == nil {
		return
	}
	reading, cancel := context.WithTimeout(ctx, storePatience)
	defer cancel()
	now, version, err := l.cfg.Now(), uint64(0), l.failing(last.store)
	if err == nil || asked {
		version, err = last.store.Version(reading)
	}
	if err == nil && version == last.registered.version && !asked {
		l.sighting.note(now)
		if l.unread {
			l.unread = false
			l.board.mended(store)
			l.log.Info("the store can be read again")
		}
		return
	}
	next := *last
	var conflicts []error
	if err != nil {
		err = fmt.Errorf("store: %w", err)
	} else if next.registered, err = next.readRegistrations(reading, &last.registered); err == nil {
		conflicts, err = next.admit()
	}
	if ctx.Err() != nil {
		return
	}
	if err == nil {
		err = l.put(&next)
	}
	if away := last.registered.away; away != nil && errors.Is(err, certstore.ErrUnavailable) {
		err = away // which says what serves, and is still so
	}
	if l.unread = err != nil; l.unread {
		if before := l.board.state(store).Broken; asked || before == nil || before.Error() != err.Error() {
			l.board.bad(store, err)
			l.log.Error("the store cannot be read; the registered certificates serve on as they were", "error", err)
		}
		return
	}
	changed := l.tellClients(last, asked)
	if err := errors.Join(next.registered.unreadable...); err != nil {
		err = errors.Join(append(conflicts, err)...)
		if before := l.board.state(store).Broken; !asked && before != nil && before.Error() == err.Error() {
			return
		}
		l.board.bad(store, err)
		l.log.Error("the deny list can't be read as a whole; what was denied stays denied, and what is new to it is in force", "error", err)
		return
	}
	if err := errors.Join(conflicts...); err != nil {
		l.board.bad(store, err)
		l.log.Error("registered certificates contradict each other", "error", err)
		return
	}
	if changed || asked {
		l.board.good(store)
	} else { // the database has a new version, and the same registrations
		l.board.mended(store)
	}
}

// attend makes l.sources those of the Assembly in force.
func (l *Loop) attend() {
	spec := l.inForce.Load().Spec
	names := []string{configuration}
	if spec.Store.Value.URL != "" {
		names = append(names, store)
	}
	for _, listener := range spec.Listeners {
		if listener.TLS == nil {
			continue
		}
		name := profilesOf(listener.Name)
		names = append(names, name)
		s := l.source(name)
		if s.listener, s.filePeriod = listener.Name, 0; listener.TLS.FilePath != "" {
			s.filePeriod = listener.FileReadInterval
		}
	}
	maps.DeleteFunc(l.sources, func(name string, _ *source) bool { return !slices.Contains(names, name) })
	for _, name := range names {
		l.source(name)
	}
	for _, k := range spec.KeyManagers {
		names = append(names, keysOf(k.Value.Name))
	}
	for _, u := range l.inForce.Load().Fenced() {
		names = append(names, u.source())
	}
	if l.cfg.Cluster.Folder != "" {
		names = append(names, cluster)
	}
	l.board.keep(names)
}
