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
	if p != nil {
		for name, full := range fresh {
			if name != configuration || !p.apart { // else the others would never settle while a port stays taken
				p.fresh[name] = p.fresh[name] || full
			}
		}
		fresh = p.fresh
	}
	if len(fresh) == 0 || p != nil && time.Now().Before(p.again) {
		return
	}
	err := l.consider(ctx, l.look(fresh, p))
	if l.pending == nil {
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
	if !l.gather.IsZero() && !now.Before(l.gather) {
		maps.Copy(fresh, l.gathered)
		clear(l.gathered)
		l.gather = time.Time{}
	}
	spec := l.inForce.Load().Spec
	for name, s := range l.sources {
		due, fileDue := !now.Before(s.due), !s.fileDue.IsZero() && !now.Before(s.fileDue)
		if due {
			s.due = now.Add(spec.Period)
		}
		if fileDue {
			s.fileDue = now.Add(spec.listener(s.listener).FileReadInterval)
		}
		if asked || fileDue || due && (name != store || l.unread) {
			fresh[name] = fresh[name] || asked || fileDue
		}
	}
	if _, only := fresh[store]; l.pending == nil && (len(fresh) > 1 || len(fresh) == 1 && !only) {
		for name, s := range l.sources { // this change may mend them
			if name != store && (s.restless || l.board.broken(name) != nil) {
				fresh[name] = true
			}
		}
	}
	return fresh
}

// next returns when the next turn is due if nobody wakes the loop before.
func (l *Loop) next() time.Time {
	var next time.Time
	sooner := func(t time.Time) {
		if !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	sooner(l.gather)
	if l.pending != nil {
		sooner(l.pending.again)
	}
	for _, s := range l.sources {
		sooner(s.due)
		sooner(s.fileDue)
	}
	return next
}

// hint collects sources that file events are about.
func (l *Loop) hint(names []string) {
	for _, name := range names {
		l.gathered[name] = true
		if l.gather.IsZero() {
			l.gather = time.Now().Add(gatherPause)
		}
	}
}

func (l *Loop) names() []string { return slices.Collect(maps.Keys(l.sources)) }

// watch follows the events of all files that were looked at.
func (l *Loop) watch() {
	if l.cfg.noEvents {
		return
	}
	spec := l.inForce.Load().Spec
	files := map[string][]string{store: storeFiles(spec.Store.Value)}
	for name, s := range l.sources {
		files[name] = append(files[name], s.files...)
	}
	anew, err := l.files.follow(files, spec.Globs)
	if anew {
		l.hint(l.names()) // events before now are lost
	}
	if err != nil && !l.blind {
		l.log.Warn("changes are seen at the periods only", "error", err)
	}
	l.blind = err != nil
}
