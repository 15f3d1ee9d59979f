package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync/atomic"
	"time"

	"sallyport/certstore"
	"sallyport/internal/regularfile"
)

// A sighting is when the store was last seen to have what is served of it, by the clock now.
type sighting struct {
	now func() time.Time
	at  atomic.Pointer[time.Time] // nil: never
}

func (s *sighting) note(at time.Time) { s.at.Store(&at) }

// StoreAge tells how long ago the store was last seen to have the registrations that are served; false if there is no
// store. A gateway that started from a snapshot counts from what that says.
func (l *Loop) StoreAge() (age time.Duration, ok bool) {
	at := l.sighting.at.Load()
	if at == nil || l.inForce.Load().store == nil {
		return 0, false
	}
	return max(0, l.sighting.now().Sub(*at)), true
}

const (
	// snapshotInterval is how soon a change is in the snapshot: so much a killed process loses of it.
	snapshotInterval = time.Second
	// snapshotLife is how old what the snapshot says of its time may be, though the registrations are the same, if they may
	// be of any age. It is a tenth of MaxAge if that is less.
	snapshotLife = time.Hour
)

// replaceStore takes the registrations from the snapshot if the store, which did not open because of cause, may be back
// later. The error says why it did not.
func (a *Assembly) replaceStore(cause error, options certstore.Options) error {
	file := a.Spec.Snapshot
	if file == "" || !errors.Is(cause, certstore.ErrUnavailable) {
		return cause
	}
	s, err := readSnapshot(file, a.Spec.Store.Value.URL)
	var later *certstore.Store
	if err == nil {
		later, err = a.Spec.Store.Value.Later(options)
	}
	if err != nil {
		return fmt.Errorf("%w; snapshot %s: %v", cause, file, err)
	}
	if a.store != nil { // it opened, and could not be read
		_ = a.store.Close()
	}
	if s.Read.After(a.sighting.now()) {
		s.Read = time.Time{} // a clock was wrong, and nobody knows how old it is
	}
	a.store = later
	a.registered = registrations{
		seen: s.Read, clients: s.Clients, denials: s.Denials,
		away: fmt.Errorf("%w; the registrations of the snapshot %s serve", cause, file),
	}
	a.registered.deny(nil)
	return nil
}

func readSnapshot(file, store string) (certstore.Snapshot, error) {
	f, err := regularfile.OpenPrivate(file)
	if err != nil {
		return certstore.Snapshot{}, err
	}
	defer f.Close()
	s, err := certstore.ParseSnapshot(f)
	if err == nil && s.Store != store {
		err = fmt.Errorf("it is of the store %q", s.Store)
	}
	return s, err
}

// tellSnapshot says that a snapshot serves, after a start without the store.
func (l *Loop) tellSnapshot() {
	r := l.inForce.Load().registered
	if r.away == nil {
		return
	}
	l.unread = true
	l.board.bad(store, r.away)
	l.log.Warn("the store can't be read; registrations of the snapshot serve until it can", "read", r.seen, "registrations", len(r.clients), "denials", len(r.denials), "error", r.away)
}

// saved is what the snapshot was written of last.
type saved struct {
	file    string
	store   *certstore.Store
	version uint64 // of the registrations
	seen    time.Time
	failed  bool // and the log says so
}

// keepSnapshot writes the snapshot anew soon after each change of what is in force, until ctx ends.
func (l *Loop) keepSnapshot(ctx context.Context) error {
	wait := snapshotInterval
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		began := time.Now()
		l.saveSnapshot()
		wait = max(snapshotInterval, keepPause*time.Since(began))
	}
}

// saveSnapshot writes the snapshot if it has not what is in force. A failure is logged once, and its end.
func (l *Loop) saveSnapshot() {
	seen := l.sighting.at.Load() // first: what is in force then may be newer, and is not older
	a := l.inForce.Load()
	if a.Spec.Snapshot == "" || a.store == nil || a.registered.away != nil || seen == nil {
		return
	}
	next := saved{file: a.Spec.Snapshot, store: a.store, version: a.registered.version, seen: *seen}
	life := snapshotLife
	if age := a.Spec.MaxAge; age > 0 {
		life = min(life, age/10)
	}
	last := &l.saved
	if !last.failed && next.file == last.file && next.store == last.store && next.version == last.version && seen.Sub(last.seen) < life {
		return
	}
	err := writeSnapshot(next.file, certstore.Snapshot{
		Store: a.Spec.Store.Value.URL, Read: *seen, Clients: a.registered.clients, Denials: a.registered.denials,
	})
	switch next.failed = err != nil; {
	case next.failed && !last.failed:
		l.log.Error("the snapshot can't be written: a start without the store would not know of what changes from now on", "snapshot", next.file, "error", err)
	case !next.failed && last.failed:
		l.log.Info("the snapshot is written again", "snapshot", next.file)
	}
	*last = next
}

// writeSnapshot replaces a snapshot, and no file that is something else.
func writeSnapshot(file string, s certstore.Snapshot) error {
	f, err := regularfile.OpenPrivate(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	default:
		head := make([]byte, len(certstore.SnapshotHead))
		_, err := io.ReadFull(f, head)
		f.Close()
		if err != nil || !bytes.Equal(head, []byte(certstore.SnapshotHead)) {
			return errors.New("a file that is no snapshot is there: name another file, or remove it")
		}
	}
	return regularfile.Replace(file, s.Write)
}
