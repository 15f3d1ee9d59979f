package listenerprofiles

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// A Watcher looks at the file each FileReadInterval and at all stores each StoreReadInterval, by content. What has changed and
// is good is swapped in whole; what is broken is told once, tried again at each look, and changes nothing.
type Watcher struct {
	cfg    Config
	swap   func(*Set)
	failed func(error)

	mu     sync.Mutex
	last   *Set
	file   []byte   // the content that last was made of
	broken [32]byte // the content that failed was told of; zero while all is well
}

// NewWatcher returns a Watcher that begins with first, which must come from Load(cfg, …), and starts nothing.
//
// swap is called with each new set, and once more with the set already serving when what was broken has become what it
// was before. failed is called once for each broken content; nil means that it is logged. Both are called by one
// goroutine at a time, and must not call Reload.
func NewWatcher(cfg Config, first *Set, swap func(*Set), failed func(error)) *Watcher {
	w := &Watcher{cfg: cfg.withDefaults(), last: first, swap: swap, failed: failed}
	if failed == nil {
		w.failed = func(err error) {
			w.cfg.Log.Error("listener profiles not reloaded", "listener", w.cfg.Listener, "error", err)
		}
	}
	if first != nil {
		w.file = first.file
	}
	return w
}

// Run watches until ctx ends, and then returns nil.
func (w *Watcher) Run(ctx context.Context) error {
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

// Reload looks at everything now. Its error is that of the look, whether or not failed was told of the same before.
func (w *Watcher) Reload() error { return w.look(true) }

// look tries the stores, and the file too if that is asked for. While something is broken the file is always read again:
// it may be what mends it.
func (w *Watcher) look(fresh bool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	fresh = fresh || w.last == nil || w.broken != [32]byte{}
	l := w.loader(fresh)
	set, err := l.load()
	if err != nil && !fresh {
		l = w.loader(true)
		set, err = l.load()
	}
	if err != nil {
		if content := l.broken(err); content != w.broken {
			w.broken = content
			w.failed(err)
		}
		return err
	}
	changed := set != w.last || w.broken != [32]byte{}
	w.last, w.file, w.broken = set, l.files[w.cfg.FilePath].data, [32]byte{}
	if changed {
		w.cfg.Log.Info("listener profiles loaded", "listener", w.cfg.Listener, "profiles", len(set.profiles)-1, "digest", fmt.Sprintf("%x", set.digest[:8]))
		w.swap(set)
	}
	return nil
}

// loader returns a new attempt; unless it is fresh, it finds the file as it was last read.
func (w *Watcher) loader(fresh bool) *loader {
	l := newLoader(w.cfg, w.last)
	if !fresh {
		l.files[w.cfg.FilePath] = content{data: w.file}
	}
	return l
}

// broken tells one broken content from another.
func (l *loader) broken(err error) (sum [32]byte) {
	writeField(l.all, []byte(err.Error()))
	l.all.Sum(sum[:0])
	return sum
}
