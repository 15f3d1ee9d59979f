package acme

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/certmagic"

	"sallyport/internal/contain"
	"sallyport/listenerprofiles/challenge"
)

// Options are what a Manager works with.
type Options struct {
	Settings
	Roots   *x509.CertPool   // that the directory's certificate chains to; nil: the system's
	Log     *slog.Logger     // nil: nothing is logged
	Faults  *contain.Faults  // is told of panics; nil: the default log is
	Now     func() time.Time // nil: time.Now
	Changed func()           // called when a certificate or a staple is another one; nil: nobody is told

	// Open opens the storage. It is tried again until it succeeds. A nil Closer needs no closing.
	Open func(context.Context) (certmagic.Storage, io.Closer, error)
}

// A Manager orders, renews and staples the certificates of a CA. Until Run is called it only reads what there is.
type Manager struct {
	cfg        Options
	ca         *http.Client
	responders *http.Client
	book       *challenge.Book
	reader     reader
	cache      func() *certmagic.Cache // made when something is ordered first
	ordered    atomic.Bool             // the cache was made
	busy       chan struct{}           // holds a token for each order that is under way

	running sync.Mutex             // held by Run
	away    atomic.Pointer[outage] // of the storage, when a certificate was looked for last; nil: there was none

	opening chan struct{}     // holds a token of whoever opens or closes, to whom the rest belongs
	storage certmagic.Storage // nil: it was not opened yet
	closer  io.Closer
	closed  bool

	mu      sync.Mutex
	items   map[itemKey]*item
	sources map[string]*source
	wanted  chan struct{} // holds a token when there are other items
}

// An itemKey tells what certificates are for.
type itemKey struct{ name, kind string }

const (
	atOnce      = 4                      // orders under way
	storageTime = 10 * time.Second       // for reading or writing a few values
	orderTime   = 15 * time.Minute       // for an order with all its validations, and for waiting for another node's
	lookPause   = 30 * time.Second       // between two looks for what other nodes have
	busyPause   = 500 * time.Millisecond // the same while somebody has a certificate of the name issued
	eagerPause  = 2 * time.Second        // the same while this node has no certificate, or one that is due
)

// New returns a Manager. It opens and starts nothing.
func New(cfg Options) *Manager {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Changed == nil {
		cfg.Changed = func() {}
	}
	m := &Manager{
		cfg:        cfg,
		ca:         newHTTPClient(cfg.Roots),
		responders: newHTTPClient(nil),
		busy:       make(chan struct{}, atOnce),
		items:      map[itemKey]*item{},
		sources:    map[string]*source{},
		wanted:     make(chan struct{}, 1),
		opening:    make(chan struct{}, 1),
	}
	m.book = challenge.NewBook(m.othersAnswers)
	m.cache = sync.OnceValue(m.newCache)
	return m
}

// newCache returns the cache that certmagic's configurations need. Nothing is put into it: who asks certmagic, and when, is
// this package's.
func (m *Manager) newCache() *certmagic.Cache {
	m.ordered.Store(true)
	return certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert:   func(certmagic.Certificate) (*certmagic.Config, error) { return nil, errors.New("nothing is cached") },
		RenewCheckInterval: checkInterval,
		Logger:             zapTo(m.cfg.Log),
	})
}

// Settings returns those that the Manager was made with.
func (m *Manager) Settings() Settings { return m.cfg.Settings }

// Book has the answers to validations that are pending.
func (m *Manager) Book() *challenge.Book { return m.book }

// othersAnswers returns what is pending on any node.
func (m *Manager) othersAnswers(ctx context.Context) ([]challenge.Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, storageTime)
	defer cancel()
	s, err := m.open(ctx)
	if err != nil {
		return nil, err
	}
	return m.reader.read(ctx, s)
}

// open returns the storage, and opens it if that was not done yet.
func (m *Manager) open(ctx context.Context) (certmagic.Storage, error) {
	select {
	case m.opening <- struct{}{}:
		defer func() { <-m.opening }()
	case <-ctx.Done():
		return nil, fmt.Errorf("the storage is not open yet: %w", ctx.Err())
	}
	if m.closed {
		return nil, errors.New("the storage is closed")
	}
	if m.storage == nil {
		s, closer, err := m.cfg.Open(ctx)
		if err != nil {
			return nil, err
		}
		m.storage, m.closer = s, closer
	}
	return m.storage, nil
}

// Close waits until Run has ended, if it was called, and closes what the Manager has opened.
func (m *Manager) Close() error {
	m.running.Lock()
	defer m.running.Unlock()
	if m.ordered.Load() {
		m.cache().Stop()
	}
	m.opening <- struct{}{}
	defer func() { <-m.opening }()
	m.closed = true
	m.ca.CloseIdleConnections()
	m.responders.CloseIdleConnections()
	if m.closer == nil {
		return nil
	}
	return m.closer.Close()
}

// Certificate is what there is of one name and one kind of keys.
type Certificate struct {
	Name    string
	Kind    string           // of its key, ECDSA or RSA
	Pair    *tls.Certificate // with its Leaf, and its staple if there is one; nil: there is none yet
	Renews  time.Time        // when it is due; zero: it is not known
	Trouble error            // why it could not be had or renewed; nil: it could, or nobody has tried
	Next    time.Time        // when the next attempt is made, after Trouble
}

// Certificate returns what there is now. The first time, it reads the certificate that has served last from the storage.
// One that does not answer is waited for once, whatever number of certificates is looked for.
func (m *Manager) Certificate(name, kind string) Certificate {
	it := m.item(itemKey{name, kind})
	if it.peeked.Load() {
		return it.current()
	}
	if away := m.away.Load(); away != nil && time.Since(away.at) < outagePause {
		it.note(away.err)
		return it.current()
	}
	ctx, cancel := context.WithTimeout(context.Background(), storageTime)
	defer cancel()
	if err := m.peek(ctx, it); err != nil {
		m.away.Store(&outage{err, time.Now()})
		it.note(err)
	}
	return it.current()
}

// An outage is why and when the storage gave no answer.
type outage struct {
	err error
	at  time.Time
}

// outagePause is for how long nobody who waits asks a storage again that gave no answer. Tasks do.
const outagePause = 5 * time.Second

func (m *Manager) item(key itemKey) *item {
	m.mu.Lock()
	defer m.mu.Unlock()
	it := m.items[key]
	if it == nil {
		it = &item{itemKey: key, now: Certificate{Name: key.name, Kind: key.kind}}
		m.items[key] = it
	}
	return it
}

// A Wish is a name and the kinds of keys that it is to have certificates for.
type Wish struct {
	Name  string
	Kinds []string
}

// Want says which certificates are to be had. Others are not renewed any more; what there is of them stays in the
// storage.
func (m *Manager) Want(wishes []Wish) {
	var names []string
	keys := map[itemKey]bool{}
	for _, w := range wishes {
		names = append(names, w.Name)
		for _, kind := range w.Kinds {
			keys[itemKey{w.Name, kind}] = true
		}
	}
	m.book.SetNames(names)
	changed := false
	for key := range keys {
		it := m.item(key)
		changed = !it.wanted.Swap(true) || changed
	}
	m.mu.Lock()
	for key, it := range m.items {
		if !keys[key] {
			changed = it.wanted.Swap(false) || changed
		}
	}
	m.mu.Unlock()
	if changed {
		select {
		case m.wanted <- struct{}{}:
		default: // it is known already
		}
	}
}

// Run orders and renews what is wanted, and follows what other nodes have, until ctx ends.
func (m *Manager) Run(ctx context.Context) error {
	m.running.Lock()
	defer m.running.Unlock()
	var tasks sync.WaitGroup
	defer tasks.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	running := map[*item]context.CancelFunc{}
	swept := false
	for {
		m.mu.Lock()
		items := slices.Collect(maps.Values(m.items))
		m.mu.Unlock()
		for _, it := range items {
			switch stop := running[it]; {
			case it.wanted.Load() && stop == nil:
				one, stop := context.WithCancel(ctx)
				running[it] = stop
				tasks.Go(func() {
					_ = m.cfg.Faults.Again("a certificate's renewal", one.Done(), func() error { return m.tend(one, it) })
				})
			case !it.wanted.Load() && stop != nil:
				stop()
				delete(running, it)
			}
		}
		if !swept {
			swept = m.sweep(ctx)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-m.wanted:
		case <-time.After(answerLife):
			swept = false
		}
	}
}

// sweep removes old answers to validations, and reports whether it could.
func (m *Manager) sweep(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, storageTime)
	defer cancel()
	s, err := m.open(ctx)
	return err == nil && sweep(ctx, s) == nil
}
