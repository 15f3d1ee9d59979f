package control

import (
	"context"
	"maps"
	"slices"
	"time"
)

const (
	// settlePause is the time between two looks that have to agree. Files are replaced one after the other or written
	// slowly, and half of a PEM file may be well-formed.
	settlePause = 200 * time.Millisecond
	// settleAtMost is how long the loop waits for files that keep changing, rounded down to whole pauses, but one at
	// least.
	settleAtMost = 2 * time.Second
	// gatherPause is how long the loop collects file events before it looks: replacing several files makes many of
	// them.
	gatherPause = 50 * time.Millisecond
)

// turn looks at what is marked or due. News is looked at again until two looks in a row agree, and then judged as a
// whole. Two equal looks at several files also mean that all of them were there at one time.
func (l *Loop) turn(ctx context.Context) {
	fresh := l.take(time.Now())
	if _, ok := fresh[store]; ok {
		delete(fresh, store)
		l.lookAtStore(ctx, len(l.waiting) > 0)
	}
	p := l.pending
	switch {
	case p != nil:
		for name, full := range fresh {
			if name != configuration || !p.apart { // else the others would never settle while a port stays taken
				p.fresh[name] = p.fresh[name] || full
			}
		}
		fresh = p.fresh
	case len(fresh) > 0: // these changes may mend what is broken
		for name, s := range l.sources {
			if name != store && (s.restless || l.board.state(name).Broken != nil) {
				fresh[name] = true
			}
		}
	}
	if len(fresh) == 0 || p != nil && time.Now().Before(p.again) {
		return
	}
	err := l.consider(ctx, l.look(fresh, p))
	if l.pending == nil {
		if err := l.retire(); err != nil {
			l.log.Error("what certificates were kept in did not close", "error", err)
		}
		l.answer(err)
	}
	l.watch()
}

// take returns the sources to look at now; false leaves out a file that is not due.
func (l *Loop) take(now time.Time) (fresh map[string]bool) {
	l.mu.Lock()
	fresh = l.marks
	asked := len(l.asking) > 0
	l.waiting = append(l.waiting, l.asking...)
	l.marks, l.asking = map[string]bool{}, nil
	l.mu.Unlock()
	l.gather = time.Time{}
	due := now.Sub(l.looked) >= l.inForce.Load().Spec.Period
	if due {
		l.looked = now
	}
	for name, s := range l.sources {
		fileDue := s.filePeriod > 0 && now.Sub(s.fileLooked) >= s.filePeriod
		if fileDue {
			s.fileLooked = now
		}
		if asked || due || fileDue {
			fresh[name] = fresh[name] || asked || fileDue
		}
	}
	return fresh
}

// next returns when the next turn is due if nobody wakes the loop before.
func (l *Loop) next() time.Time {
	next := l.looked.Add(l.inForce.Load().Spec.Period)
	sooner := func(t time.Time) {
		if t.Before(next) {
			next = t
		}
	}
	if !l.gather.IsZero() {
		sooner(l.gather)
	}
	if l.pending != nil {
		sooner(l.pending.again)
	}
	for _, s := range l.sources {
		if s.filePeriod > 0 {
			sooner(s.fileLooked.Add(s.filePeriod))
		}
	}
	return next
}

// hint marks sources that file events are about, to be looked at after gatherPause.
func (l *Loop) hint(names ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, name := range names {
		l.marks[name] = true
		if l.gather.IsZero() {
			l.gather = time.Now().Add(gatherPause)
		}
	}
}

// hintAll is hint when events were lost.
func (l *Loop) hintAll() { l.hint(slices.Collect(maps.Keys(l.sources))...) }

// watch follows the events of all files that were looked at.
func (l *Loop) watch() {
	if l.cfg.noEvents {
		return
	}
	spec := l.inForce.Load().Spec
	files := map[string][]string{store: storeFiles(spec.Store.Value.URL)}
	for name, s := range l.sources {
		files[name] = append(files[name], s.files...)
	}
	anew, err := l.files.follow(files, spec.Globs)
	if anew {
		l.hintAll()
	}
	if err != nil && !l.blind {
		l.log.Warn("changes are seen at the periods only", "error", err)
	}
	l.blind = err != nil
}
