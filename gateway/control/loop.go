package control

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/certstore"
	"sallyport/gateway"
	"sallyport/gateway/decision"
	"sallyport/internal/contain"
	"sallyport/listenerprofiles/revocation"
	"sallyport/listenerprofiles/trust"
	"sallyport/policy/ratelimit"
)

// Options are what a Loop works with.
type Options struct {
	Load     func() (*Spec, error)          // reads the configuration anew
	Set      func(gateway.Parts) error      // the gateway's: puts all parts into force, or none
	Recheck  func()                         // the gateway's: something has ended rights, and no Set tells; nil: nobody is told
	Told     func(source string, err error) // called when a change comes into force (nil error) or is refused; nil: never
	Log      *slog.Logger                   // nil: nothing is logged
	Panicked func(where string)             // called for each panic, with what panicked; nil: nobody counts
	Now      func() time.Time               // the clock that judges certificates and allowances; nil: time.Now

	Cluster Cluster // whose files are followed; their folder holds a version already

	// Shown bounds the certificates that clients show, in handshakes and in headers, as long as the process runs.
	Shown trust.Bounds

	settle        time.Duration                // how long files must have been the same; 0: settlePause
	readFile      func(string) ([]byte, error) // nil: regular files
	noEvents      bool                         // looks at periods, marks and Reload alone
	storeInterval time.Duration                // 0: storeInterval
	readOnly      bool                         // stores are not changed
	whole         bool                         // an API file that is not good is a problem of all
	unshared      bool                         // limits are counted in this process, whatever the Spec says
}

// A Loop keeps the gateway in step with what it is made from.
type Loop struct {
	cfg      Options
	log      *slog.Logger
	faults   *contain.Faults
	board    board
	limits   *ratelimit.Limiter
	issuers  issuers
	revoked  *revocation.Registry
	sighting sighting
	failed   atomic.Pointer[failed]
	calendar calendar
	inForce  atomic.Pointer[Assembly] // written by Open and by the goroutine of Run
	ended    chan struct{}            // closed when Run has ended
	heard    chan struct{}            // holds a token while the store has told of a change that nobody has looked at
	ending   chan struct{}            // holds a token while upkeep does not know yet that a certificate is about to end
	wake     chan struct{}            // holds a token while there are marks, or somebody asks

	mu     sync.Mutex
	marks  map[string]bool // sources to look at now
	asking []chan error    // who has called Reload

	// The rest belongs to the goroutine of Run.
	sources map[string]*source
	looked  time.Time    // when a period ended last
	gather  time.Time    // when sources that file events were about are looked at; zero if there are none
	pending *attempt     // has news and waits for another look; nil: everything rests
	waiting []chan error // calls of Reload that the look under way will answer
	files   fileEvents
	blind   bool // there are no file events, and the log says so
	unread  bool // the last reading of the store failed

	unkept    bool  // quotas could not be stored; belongs to the task that does
	forgetful bool  // what the store knows of quotas was not read yet; that task's, too
	saved     saved // what the snapshot has; belongs to the task that writes it

	tasks   sync.WaitGroup
	untoken context.CancelFunc // ends the task for the keys in force
	unissue context.CancelFunc // ends the task for the certificates of the CA in force
}

func newLoop(cfg Options) *Loop {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Told == nil {
		cfg.Told = func(string, error) {}
	}
	if cfg.settle == 0 {
		cfg.settle = settlePause
	}
	if cfg.storeInterval == 0 {
		cfg.storeInterval = storeInterval
	}
	if cfg.readFile == nil {
		cfg.readFile = readFile
	}
	l := &Loop{
		cfg:     cfg,
		log:     cfg.Log,
		faults:  &contain.Faults{Log: cfg.Log, Count: cfg.Panicked},
		board:   board{told: cfg.Told, states: map[string]State{}},
		limits:  ratelimit.NewLocal(cfg.Now),
		issuers: issuers{},
		ended:   make(chan struct{}),
		wake:    make(chan struct{}, 1),
		heard:   make(chan struct{}, 1),
		ending:  make(chan struct{}, 1),
		marks:   map[string]bool{},
		sources: map[string]*source{},
		looked:  time.Now(),
		untoken: func() {},
		unissue: func() {},

		sighting: sighting{now: cfg.Now},
	}
	l.revoked = revocation.New(revocation.Options{Log: cfg.Log, Now: cfg.Now, Changed: l.recheck, Panicked: cfg.Panicked})
	return l
}

// recheck has the gateway look at open streams: somebody has revoked a certificate, or is not known not to have.
func (l *Loop) recheck() {
	if l.cfg.Recheck != nil {
		l.cfg.Recheck()
	}
}

// Open loads everything for the first time and puts it into force. Unlike later, anything wrong is an error. Open
// starts no goroutine; Run closes what it opened, or Close if Run is never called.
func Open(ctx context.Context, cfg Options) (*Loop, error) {
	l := newLoop(cfg)
	if err := l.open(ctx); err != nil {
		return nil, errors.Join(err, l.retire())
	}
	return l, nil
}

func (l *Loop) open(ctx context.Context) error {
	spec, err := l.cfg.Load()
	if err != nil {
		return err
	}
	unshared := l.share(spec)
	b := l.builder(spec)
	if err = b.build(); err == nil { // else that says what is wrong with Redis, too, and where
		err = unshared
	}
	if err == nil {
		err = b.open(ctx, nil, l.storeOptions())
	}
	if err != nil {
		return err
	}
	if l.forgetful = b.registered.away != nil; !l.forgetful {
		if err := l.remember(ctx, b.store); err != nil {
			return errors.Join(Problems{{Place: spec.Store.Place, Message: err.Error()}}, b.Close())
		}
	}
	l.connect(ctx, spec)
	if err := l.put(b.Assembly); err != nil {
		return errors.Join(err, b.Close())
	}
	l.attend()
	for name, f := range b.found {
		l.sources[name].judged, l.sources[name].files = f.content, f.files
	}
	for _, w := range spec.Warnings {
		l.log.Warn("configuration", "place", w.Place.String(), "warning", w.Message)
	}
	l.tellFences(nil, false)
	l.warnOfStores(nil)
	l.tellSnapshot()
	l.tellClients(nil, true)
	return nil
}

// Close closes what Open has opened. It is for a Loop that does not Run.
func (l *Loop) Close() error {
	a := l.inForce.Load()
	var problem error
	if a.issuer != nil {
		problem = a.issuer.Close()
	}
	return errors.Join(problem, a.Close())
}

// InForce returns what serves now.
func (l *Loop) InForce() *Assembly { return l.inForce.Load() }

// State returns the state of each source, sorted by name.
func (l *Loop) State() []State { return l.board.list() }

// Run keeps the gateway in step until ctx ends, then waits for all its tasks and closes everything that was opened. It
// is called once. It also keeps the keys of tokens fresh, so ctx has to outlive the last call.
func (l *Loop) Run(ctx context.Context) error {
	l.follow(ctx, &Assembly{Spec: &Spec{}})
	l.begin(ctx, l.upkeep)
	l.begin(ctx, l.limits.Run)
	l.begin(ctx, l.keepQuotas)
	l.begin(ctx, l.askStore)
	l.begin(ctx, l.followCluster)
	l.begin(ctx, l.hearStore)
	l.begin(ctx, l.keepSnapshot)
	l.begin(ctx, l.revoked.Run)
	for ctx.Err() == nil {
		err := l.contain(func() error { l.carryOn(ctx); return nil })
		if err == nil {
			continue
		}
		l.pending = nil // what it was looking at is left for the next period
		l.answer(err)
		select {
		case <-ctx.Done():
		case <-time.After(taskPause):
		}
	}
	close(l.ended)
	l.tasks.Wait()
	l.keep(context.WithoutCancel(ctx), lastPatience)
	_ = l.contain(func() error { l.saveSnapshot(); return nil })
	l.files.close()
	return l.Close()
}

// carryOn is what Run does until ctx ends, unless something panics.
func (l *Loop) carryOn(ctx context.Context) {
	l.watch()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case event, ok := <-l.files.events:
			if !ok {
				l.files = fileEvents{} // the next turn makes another watcher
				continue
			}
			l.hint(l.files.concerned(event)...)
		case <-l.files.lost:
			l.hintAll()
		case <-l.wake:
			l.turn(ctx)
		case <-timer.C:
			l.turn(ctx)
		}
		timer.Reset(time.Until(l.next()))
	}
}

// Reload looks at everything now and returns when it has been judged: at once if nothing has changed, and after about
// two seconds at most. What is broken is logged and counted again. The error joins everything that is broken, and says
// if files were still changing.
func (l *Loop) Reload(ctx context.Context) error {
	done := make(chan error, 1)
	l.mu.Lock()
	l.asking = append(l.asking, done)
	l.mu.Unlock()
	l.rouse()
	var err error
	select {
	case err = <-done:
	case <-ctx.Done():
		return ctx.Err()
	case <-l.ended:
		return errors.New("the gateway is stopping")
	}
	if tokens := l.inForce.Load().tokens; tokens != nil {
		if problem := tokens.Refresh(ctx); problem != nil {
			l.log.Error("keys of key managers", "error", problem)
			err = errors.Join(err, problem)
		}
	}
	return err
}

// mark wakes the loop to look at a source. Any goroutine may call it.
func (l *Loop) mark(source string) {
	l.mu.Lock()
	l.marks[source] = true
	l.mu.Unlock()
	l.rouse()
}

func (l *Loop) rouse() {
	select {
	case l.wake <- struct{}{}:
	default: // it is awake already
	}
}

// put puts next into force, or none of it.
func (l *Loop) put(next *Assembly) error {
	parts := gateway.Parts{Listeners: next.Listeners(), Routes: next.Routes, Clients: next.Clients, Denied: next.Denied()}
	last := l.inForce.Load()
	if last != nil {
		if slices.EqualFunc(parts.Listeners, last.Listeners(), sameListener) {
			parts.Listeners = nil // so that a gateway that drains still takes the rest
		}
		if parts.Routes == last.Routes {
			parts.Routes = nil
		}
		if parts.Clients == last.Clients {
			parts.Clients = nil
		}
		if parts.Denied == last.Denied() {
			parts.Denied = nil
		}
	}
	if err := l.cfg.Set(parts); err != nil {
		return err
	}
	if last == nil || next.store != last.store || !next.registered.seen.Equal(last.registered.seen) {
		l.sighting.note(next.registered.seen)
	}
	l.inForce.Store(next)
	l.revoked.Keep(next.checkers())
	next.order()
	l.tellReach(last)
	if end := l.tellEndings(next); end > 0 && end < upkeepInterval {
		select {
		case l.ending <- struct{}{}:
		default: // upkeep looks in any case
		}
	}
	return nil
}

func sameListener(l, m decision.Listener) bool { return l.Same(&m) }

// warnOfStores logs the StoreWarnings of what is in force that are not those of last, which may be nil.
func (l *Loop) warnOfStores(last *Assembly) {
	known := map[string]bool{}
	if last != nil {
		for _, w := range last.StoreWarnings() {
			known[w.Message] = true
		}
	}
	for _, w := range l.inForce.Load().StoreWarnings() {
		if !known[w.Message] {
			l.log.Warn("not everything that is configured is served", "place", w.Place.String(), "warning", w.Message)
		}
	}
}

// tellClients tells what has changed among the registrations since last, if anything, or if somebody has asked, and
// reports whether something has.
func (l *Loop) tellClients(last *Assembly, asked bool) (changed bool) {
	a := l.inForce.Load()
	told := map[string]bool{}
	if last != nil {
		changed = l.tellChanges(last, a)
		for _, w := range last.Warnings {
			told[w.Error()] = !asked
		}
	}
	for _, w := range a.Warnings {
		if !told[w.Error()] {
			l.log.Warn("a registered certificate is not admitted", "problem", w)
		}
	}
	if changed || asked {
		l.log.Info("registered certificates", "count", len(a.Clients.All()))
	}
	return changed
}

// storeOptions make a change by this process wake the loop.
func (l *Loop) storeOptions() certstore.Options {
	return certstore.Options{Changed: func() { l.mark(store) }}
}

// keysTold is token.Options.Looked. The verifier itself logs, and keeps the keys that it read last.
func (l *Loop) keysTold(keyManager string, err error) {
	if err != nil {
		l.board.bad(keysOf(keyManager), err)
		return
	}
	l.board.mended(keysOf(keyManager))
}

// follow starts the task for the keys in force, and ends and closes what only last needed.
func (l *Loop) follow(ctx context.Context, last *Assembly) {
	a := l.inForce.Load()
	if a.tokens != last.tokens {
		l.untoken()
		for _, k := range last.Spec.KeyManagers {
			l.board.mended(keysOf(k.Value.Name)) // the new verifier reports for itself
		}
		if a.tokens != nil {
			l.untoken = l.begin(ctx, a.tokens.Run)
		}
	}
	if a.issuer != last.issuer {
		l.unissue()
		if a.issuer != nil {
			l.unissue = l.begin(ctx, a.issuer.Run)
		}
	}
	if a.store != last.store {
		if err := last.Close(); err != nil {
			l.log.Error("the old store did not close", "error", err)
		}
	}
}

// upkeepInterval is how often unused allowances are dropped, and at least how often ticket keys are looked at:
// Options.Now may run differently from timers.
const upkeepInterval = time.Minute

// upkeep rotates the keys of session tickets, drops the allowances of certificates and APIs that are gone, and tells
// each day which certificates end soon. It is a task of its own so that a slow file system cannot delay it. Sets that
// come into force while it waits are newer, and due later.
func (l *Loop) upkeep(ctx context.Context) error {
	swept := time.Now()
	for {
		a, wait := l.inForce.Load(), upkeepInterval
		for _, set := range a.sets {
			wait = min(wait, set.RotateTicketKeys(l.cfg.Now()))
		}
		if time.Since(swept) >= upkeepInterval {
			l.limits.Sweep(a.holds)
			swept = time.Now()
		}
		if next := l.tellEndings(a); next > 0 {
			wait = min(wait, max(next, time.Second)) // however many end at once
		}
		select {
		case <-ctx.Done():
			return nil
		case <-l.ending:
		case <-time.After(wait):
		}
	}
}

// begin starts a task, which ends with ctx or when the returned function is called. Run waits for it. A task that
// panics or fails is started again.
func (l *Loop) begin(ctx context.Context, run func(context.Context) error) context.CancelFunc {
	ctx, cancel := context.WithCancel(ctx)
	l.tasks.Go(func() {
		defer l.faults.Catch("a watch", nil)
		for {
			err := l.contain(func() error { return run(ctx) })
			if ctx.Err() != nil || err == nil {
				return
			}
			l.log.Error("a watch ended, and begins anew", "error", err)
			select {
			case <-ctx.Done():
				return
			case <-time.After(taskPause):
			}
		}
	})
	return cancel
}

// taskPause is how long a task that has ended waits before it begins anew.
const taskPause = time.Second

// contain makes a panic an error.
func (l *Loop) contain(run func() error) error { return l.faults.Do("the control side", run) }
