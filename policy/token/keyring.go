package token

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/internal/printable"
)

// A keyring holds the newest good keys of an issuer and refreshes them from their source.
type keyring struct {
	source   func(ctx context.Context) ([]byte, error)
	parse    func([]byte) (keys []*key, ignored []error, err error)
	anyID    bool          // the one key verifies whatever the kid
	remote   bool          // a URL rather than a file
	interval time.Duration // between two reads

	name  string // of the key manager
	cfg   Options
	log   *slog.Logger
	tasks *tasks

	begun time.Time
	set   atomic.Pointer[keySet] // nil until the first good answer
	url   *remote                // nil: a file

	mu       sync.Mutex
	flight   *flight      // the read under way, shared by all who wait for it
	reads    int          // how many have begun
	recent   [2]time.Time // when the last two of them did, the older one first
	failed   time.Time    // when the last one failed
	failures int          // how many did in a row
	lastWord string       // the last failure as logged
	absent   absentees
}

// A flight is one read of a source.
type flight struct {
	number int           // from 1
	began  time.Time     //
	done   chan struct{} // closed at its end
	err    error         // set before
}

func newKeyring(km KeyManager, cfg Options, tasks *tasks) (*keyring, error) {
	cfg.Last = nil // not retained
	r := &keyring{
		parse:    parseJWKS,
		interval: cfg.FilePoll,
		name:     km.Name,
		cfg:      cfg,
		begun:    cfg.Now(),
		log:      cfg.Log.With("keyManager", km.Name),
		tasks:    tasks,
	}
	if strings.Contains(km.JWKS, "://") {
		remote, err := newRemote(km.JWKS, km.CAFile, r.log)
		if err != nil {
			return nil, err
		}
		if remote.exposed() {
			r.log.Warn("keys come over plain http: whoever is on the way can forge tokens")
		}
		r.source, r.remote, r.interval, r.url = remote.read, true, cfg.RefreshInterval, remote
		return r, nil
	}
	if km.CAFile != "" {
		return nil, errors.New("a CA file is for a JWKS with an https URL")
	}
	name := km.JWKS
	if km.CertificateFile != "" {
		name, r.anyID = km.CertificateFile, true
		r.parse = func(b []byte) ([]*key, []error, error) {
			k, err := parsePEM(b)
			if err != nil {
				return nil, nil, err
			}
			return []*key{k}, nil, nil
		}
	}
	r.source = func(context.Context) ([]byte, error) { return readFile(name) }
	if err := r.load(context.Background()); err != nil {
		return nil, err
	}
	return r, nil
}

// takeOver starts with the newest good keys of last, whose key manager is the same. Keys from a file were just read.
func (r *keyring) takeOver(last *keyring) {
	if mine, its := r.cfg, last.cfg; r.remote && mine.RefreshInterval == its.RefreshInterval &&
		mine.CoolDown == its.CoolDown && mine.FetchTimeout == its.FetchTimeout && mine.MaxAge == its.MaxAge {
		r.set.Store(last.set.Load())
	}
}

// find returns the key for a token, and reads the source again if that may help and is allowed.
func (r *keyring) find(ctx context.Context, h header) (*key, error) {
	if methods[h.algorithm] == nil {
		return nil, noKey(h) // whatever keys there are
	}
	if set := r.current(r.cfg.Now()); set != nil {
		if k, unknown := set.find(h); k != nil {
			return k, nil
		} else if !unknown {
			return nil, noKey(h)
		}
	}
	return r.learn(ctx, h)
}

// learn returns the key for a token whose kid is not known. That there is none takes a read that began after the token
// came, or one for the same kid within the cool-down: before, the issuer may have made the key a moment ago.
func (r *keyring) learn(ctx context.Context, h header) (*key, error) {
	// A read ends by then, unless it is stuck in a file system.
	limit := time.NewTimer(r.cfg.FetchTimeout)
	defer limit.Stop()
	r.mu.Lock()
	defer r.mu.Unlock()
	for came := r.reads; ; {
		now := r.cfg.Now()
		set := r.current(now)
		if set != nil {
			if k, unknown := set.find(h); k != nil {
				return k, nil
			} else if !unknown || r.absent.has(h.keyID, now, r.cfg.CoolDown) {
				return nil, noKey(h)
			}
		}
		f := r.flight
		if f == nil {
			if pause := r.pauseBeforeRead(now, set == nil); pause > 0 {
				return nil, &unavailableError{pause, errReadLately}
			}
			if f = r.start(); f == nil {
				return nil, &unavailableError{0, errStopped}
			}
		}
		if err := r.await(ctx, f, limit.C); err != nil {
			return nil, &unavailableError{0, err}
		}
		switch {
		case f.number <= came:
			continue // it began before the token came
		case f.err != nil:
			return nil, &unavailableError{r.pauseBeforeRead(r.cfg.Now(), set == nil), errNotRead}
		}
		if set = r.current(r.cfg.Now()); set == nil {
			return nil, ErrUnavailable // the read took longer than MaxAge
		}
		k, unknown := set.find(h)
		if k != nil {
			return k, nil
		}
		if unknown {
			r.absent.add(h.keyID, f.began, r.cfg.CoolDown)
		}
		return nil, noKey(h)
	}
}

var (
	errReadLately = errors.New("they were read a moment ago and may not be again yet")
	errNotRead    = errors.New("they could not be read")
	errLate       = errors.New("reading them takes too long")
	errStopped    = errors.New("the verifier has stopped")
)

// await waits for the end of f. It is called with mu held, and lets go of it while it waits.
func (r *keyring) await(ctx context.Context, f *flight, limit <-chan time.Time) error {
	r.mu.Unlock()
	defer r.mu.Lock()
	select {
	case <-f.done:
		return nil
	case <-limit:
		return errLate
	case <-ctx.Done():
		return ctx.Err()
	}
}

// pauseBeforeRead is how long an unknown kid may not start a read yet. It is called with mu held. Without keys reads
// only wait after failures, a second and then longer each time. With keys an address is read twice in each cool-down at
// most, whoever asks: a stranger's bad kid leaves a read for a good one that follows. Files may always be read.
func (r *keyring) pauseBeforeRead(now time.Time, first bool) time.Duration {
	switch {
	case first:
		return remaining(now, r.failed, r.backoff())
	case r.remote:
		return remaining(now, r.recent[0], r.cfg.CoolDown)
	}
	return 0
}

// remaining is what is left of a pause since then; nothing when the clock was set back, which must not extend it.
func remaining(now, then time.Time, pause time.Duration) time.Duration {
	since := now.Sub(then)
	if since < 0 || since >= pause {
		return 0
	}
	return pause - since
}

// known returns the key for a token from those that were read last.
func (r *keyring) known(h header) (*key, error) {
	set := r.current(r.cfg.Now())
	if set == nil {
		return nil, ErrUnavailable
	}
	if k, _ := set.find(h); k != nil {
		return k, nil
	}
	return nil, noKey(h)
}

// unread reports whether the source has not been read yet, for a time in which old keys would still be used.
func (r *keyring) unread() bool {
	return r.set.Load() == nil && r.cfg.Now().Sub(r.begun) <= r.cfg.MaxAge
}

func noKey(h header) error {
	if h.hasKeyID {
		return invalid("no key of its issuer fits kid " + printable.Quote(h.keyID) + " and its alg")
	}
	return invalid("it names no key, and not exactly one of its issuer's fits its alg")
}

// current is the key set, unless there is none or it is too old.
func (r *keyring) current(now time.Time) *keySet {
	if set := r.set.Load(); set != nil && now.Sub(set.read) <= r.cfg.MaxAge {
		return set
	}
	return nil
}

// holds reports whether k still is one of the keys.
func (r *keyring) holds(k *key, now time.Time) bool {
	set := r.current(now)
	if set == nil {
		return false
	}
	_, has := set.members[k]
	return has
}

// backoff is called with mu held.
func (r *keyring) backoff() time.Duration {
	if r.failures == 0 {
		return 0
	}
	return min(time.Second<<min(r.failures-1, 10), r.cfg.CoolDown)
}

// refresh reads the source now and returns the result. A read under way may predate the change that the caller knows
// of, so another one follows it.
func (r *keyring) refresh(ctx context.Context) error {
	for fresh := false; ; fresh = true {
		r.mu.Lock()
		f := r.flight
		if f == nil {
			f, fresh = r.start(), true
		}
		r.mu.Unlock()
		if f == nil {
			return errStopped
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			return ctx.Err()
		}
		if fresh {
			return f.err
		}
	}
}

// start is called with mu held and no flight under way; nil means that the verifier has stopped. The read belongs to
// no caller, so that a caller that gives up does not cancel it for the others.
func (r *keyring) start() *flight {
	f := &flight{number: r.reads + 1, began: r.cfg.Now(), done: make(chan struct{})}
	started := r.tasks.start(func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, r.cfg.FetchTimeout)
		defer cancel()
		before := r.set.Load()
		err := r.load(ctx)

		r.mu.Lock()
		defer r.mu.Unlock()
		defer close(f.done)
		f.err, r.flight = err, nil
		r.miss(before, f.began)
		r.note(ctx, err)
	})
	if !started {
		return nil
	}
	r.flight, r.reads = f, f.number
	r.recent = [2]time.Time{r.recent[1], f.began}
	return f
}

// miss remembers the kids of before that a read that began then found gone. It is called with mu held.
func (r *keyring) miss(before *keySet, then time.Time) {
	after := r.set.Load()
	if before == nil || after == nil || before.digest == after.digest {
		return
	}
	for kid := range before.byID {
		if len(after.byID[kid]) == 0 {
			r.absent.add(kid, then, r.cfg.CoolDown)
		}
	}
}

// note counts a failure and logs it once. It is called with mu held.
func (r *keyring) note(ctx context.Context, err error) {
	if err == nil {
		if r.lastWord != "" {
			r.log.Info("keys can be read again")
			r.cfg.Looked(r.name, nil)
		}
		r.failures, r.lastWord = 0, ""
		return
	}
	r.failures++
	r.failed = r.cfg.Now()
	if word := err.Error(); word != r.lastWord && !errors.Is(ctx.Err(), context.Canceled) {
		kept := 0
		if set := r.set.Load(); set != nil {
			kept = len(set.members)
		}
		r.log.Warn("keys could not be read", "err", err, "kept", kept)
		r.lastWord = word
		r.cfg.Looked(r.name, err)
	}
}

// load reads the source once and swaps the set if the answer has a usable key. Otherwise the last good set stays.
func (r *keyring) load(ctx context.Context) (err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("reading keys panicked: %T", cause)
		}
	}()
	now := r.cfg.Now()
	content, err := r.source(ctx)
	if err != nil {
		return err
	}
	old := r.set.Load()
	digest := sha256.Sum256(content)
	if old != nil && old.digest == digest {
		same := *old
		same.read = now
		r.set.Store(&same)
		return nil
	}
	keys, ignored, err := r.parse(content)
	if err != nil {
		return err
	}
	if len(keys) == 0 {
		return noneUsable(ignored)
	}
	set := merge(keys, old)
	if r.anyID {
		for k := range set.members {
			set.anyID = k
		}
		set.shown = certificatesIn(content)
	}
	set.ignored, set.digest, set.read = ignored, digest, now
	r.set.Store(set)
	for _, reason := range first(ignored, 10) {
		r.log.Warn("a key is ignored", "err", reason)
	}
	r.log.Info("keys were read", "keys", len(keys), "ignored", len(ignored))
	return nil
}

func noneUsable(ignored []error) error {
	text := "none of its keys verifies tokens"
	if len(ignored) == 0 {
		text = "it has no key"
	}
	for _, reason := range first(ignored, 3) {
		text += "; " + reason.Error()
	}
	return errors.New(text)
}

func first(errs []error, n int) []error {
	return errs[:min(n, len(errs))]
}
