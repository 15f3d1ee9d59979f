package listenerprofiles

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// A Watcher looks at the file each FileReadInterval and at all stores each StoreReadInterval, by content. What has changed and
// is good is swapped in whole; what is broken is told once, tried again at each look, and changes nothing.
//
// Nothing is swapped or told before it has been the same for Settle: files may be replaced one after the other, or be
// written slowly, and a PEM file that ends between two certificates is well-formed.
type Watcher struct {
	cfg    Config
	swap   func(*Set)
	failed func(error)

	last     atomic.Pointer[Set]
	ended    chan struct{} // closed when the context of Run ends
	endsOnce sync.Once

	turn     chan struct{} // held by the look under way; a channel, since looks wait, which synctest sees in channels only
	file     []byte        // the content that last was made of
	broken   [32]byte      // the content that failed was told of; zero while all is well
	restless bool          // the last look found files that did not rest
}

// settleAtMost is how long a look waits for files to rest, but for one Settle at least.
const settleAtMost = 2 * time.Second

var errRestless = errors.New("the files are still being changed; the next look tries again")

// NewWatcher returns a Watcher that begins with first, which must come from Load(cfg, …), and starts nothing.
//
// swap is called with each new set, and once more with the set already serving when what was broken has become what it
// was before. failed is called once for each broken content; nil means that it is logged. Both are called by one
// goroutine at a time, and must not call Reload.
func NewWatcher(cfg Config, first *Set, swap func(*Set), failed func(error)) *Watcher {
	w := &Watcher{cfg: cfg.withDefaults(), swap: swap, failed: failed, ended: make(chan struct{}), turn: make(chan struct{}, 1)}
	if failed == nil {
		w.failed = func(err error) {
			w.cfg.Log.Error("listener profiles not reloaded", "listener", w.cfg.Listener, "error", err)
		}
	}
	if first != nil {
		w.last.Store(first)
		w.file = first.file
	}
	return w
}

// Run watches until ctx ends, and then returns nil. It also rotates the keys of the profiles' session tickets: each is
// used for new tickets for 12 hours, and for none once it is 24 hours old. Run is called once.
func (w *Watcher) Run(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { w.endsOnce.Do(func() { close(w.ended) }) })()
	var rotation sync.WaitGroup
	defer rotation.Wait()
	rotation.Go(func() { w.rotateTicketKeys(ctx) }) // beside the looks, which may wait for files to rest
	stores := time.NewTicker(w.cfg.StoreReadInterval)
	defer stores.Stop()
	file := time.NewTicker(w.cfg.FileReadInterval)
	defer file.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-file.C:
			_ = w.look(true) // failed has been told
		case <-stores.C:
			_ = w.look(false)
		}
	}
}

// rotateTicketKeys sees to the keys of the profiles that serve, until ctx ends. What is swapped in while it waits has either
// been waited for already, or is newer and due later.
func (w *Watcher) rotateTicketKeys(ctx context.Context) {
	for {
		wait := time.Minute // at most, since the clock may be another than the timer's
		if set := w.last.Load(); set != nil {
			now := w.cfg.Now()
			for _, p := range set.profiles {
				wait = min(wait, p.tickets.rotate(p.TLS, now))
			}
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// Reload looks at everything now, and waits until it rests: for Settle when something has changed, for about two seconds
// at most, and no longer than Run's context lasts. Its error is that of the look, whether or not failed was told of the
// same before, or says that the files did not rest.
func (w *Watcher) Reload() error { return w.look(true) }

// look tries the stores, and the file too if that is asked for. While something is broken, or did not rest, the file is
// always read again: it may be what mends it.
func (w *Watcher) look(fresh bool) error {
	w.turn <- struct{}{}
	defer func() { <-w.turn }()
	fresh = fresh || w.last.Load() == nil || w.broken != [32]byte{} || w.restless
	v := w.see(fresh, nil)
	if w.isNews(v) {
		var err error
		if v, err = w.settle(fresh, v); err != nil {
			w.restless = true
			return err
		}
	}
	w.restless = false
	news := w.isNews(v)
	if v.err != nil {
		if news {
			w.broken = v.content
			w.failed(v.err)
		}
		return v.err
	}
	w.last.Store(v.set)
	w.file, w.broken = v.file, [32]byte{}
	if news {
		w.cfg.Log.Info("listener profiles loaded", "listener", w.cfg.Listener, "profiles", len(v.set.profiles)-1, "digest", fmt.Sprintf("%x", v.set.digest[:8]))
		w.swap(v.set)
	}
	return nil
}

// A view is what one look has read, and what came of it.
type view struct {
	set     *Set
	err     error
	file    []byte
	content [32]byte // tells one view from another
}

// see looks once. Profiles are taken over from what serves and from seen.
func (w *Watcher) see(fresh bool, seen *Set) view {
	l := newLoader(w.cfg, w.last.Load(), seen)
	if !fresh && w.cfg.FilePath != "" {
		l.files[w.cfg.FilePath] = content{data: w.file}
	}
	set, err := l.load()
	if err != nil && !fresh {
		return w.see(true, seen)
	}
	return view{set, err, l.files[w.cfg.FilePath].data, l.content(err)}
}

// isNews reports whether v is anything to swap or to tell.
func (w *Watcher) isNews(v view) bool {
	if v.err != nil {
		return v.content != w.broken
	}
	return v.set != w.last.Load() || w.broken != [32]byte{}
}

// settle looks again until two views in a row are the same, and returns the last. That a view of several files is one that
// was there at one time follows from it.
func (w *Watcher) settle(fresh bool, v view) (view, error) {
	timer := time.NewTimer(w.cfg.Settle)
	defer timer.Stop()
	for began := time.Now(); ; timer.Reset(w.cfg.Settle) {
		select {
		case <-w.ended:
			return v, errRestless
		case <-timer.C:
		}
		again := w.see(fresh, v.set)
		if again.content == v.content || !w.isNews(again) {
			return again, nil
		}
		v = again
		if time.Since(began)+w.cfg.Settle > settleAtMost {
			return v, errRestless
		}
	}
}

// content tells what one attempt has read and said from what another has.
func (l *loader) content(err error) (sum [32]byte) {
	if err != nil {
		writeField(l.all, []byte(err.Error()))
	}
	l.all.Sum(sum[:0])
	return sum
}
