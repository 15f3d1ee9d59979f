package acme

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"

	"sallyport/certstore"
	"sallyport/internal/contain"
	"sallyport/internal/fileset"
)

// Shared is a storage in a store that several gateways use. What is kept is encrypted under a key, if that is not the zero
// Key. A lock is a lease, which ends soon after the process that holds it.
func Shared(store *certstore.Store, key fileset.Key, log *slog.Logger, faults *contain.Faults) certmagic.Storage {
	return &shared{store: store, key: key, log: log, faults: faults, holder: rand.Text(), held: map[string]func(){}}
}

type shared struct {
	store  *certstore.Store
	key    fileset.Key
	log    *slog.Logger
	faults *contain.Faults
	holder string // this process among others

	mu   sync.Mutex
	held map[string]func() // by lock: ends its renewal, if that has begun
}

// root is where all values are in the Store.
const root = "acme/"

// Store implements certmagic.Storage.
func (s *shared) Store(ctx context.Context, key string, value []byte) error {
	sealed, err := s.key.SealValue(root+key, value)
	if err != nil {
		return err
	}
	return s.store.PutValue(ctx, root+key, sealed)
}

// Load implements certmagic.Storage.
func (s *shared) Load(ctx context.Context, key string) ([]byte, error) {
	v, err := s.store.Value(ctx, root+key)
	if err != nil {
		return nil, err
	}
	return s.key.OpenValue(root+key, v.Content)
}

// Delete implements certmagic.Storage.
func (s *shared) Delete(ctx context.Context, key string) error {
	return s.store.RemoveValues(ctx, root+key)
}

// Exists implements certmagic.Storage.
func (s *shared) Exists(ctx context.Context, key string) bool {
	list, err := s.store.Values(ctx, root+key)
	return err == nil && len(list) > 0
}

// List implements certmagic.Storage.
func (s *shared) List(ctx context.Context, prefix string, recursive bool) ([]string, error) {
	list, err := s.store.Values(ctx, path.Clean(root+prefix))
	if err != nil {
		return nil, err
	}
	var keys []string
	seen := map[string]bool{}
	for _, v := range list {
		key := strings.TrimPrefix(v.Name, root)
		below, ok := strings.CutPrefix(key, strings.TrimSuffix(prefix, "/")+"/")
		if !ok && prefix != "" {
			continue
		}
		if first, _, deep := strings.Cut(below, "/"); deep && !recursive {
			key = path.Join(prefix, first)
		}
		if !seen[key] {
			seen[key] = true
			keys = append(keys, key)
		}
	}
	return keys, nil
}

// Stat implements certmagic.Storage.
func (s *shared) Stat(ctx context.Context, key string) (info certmagic.KeyInfo, err error) {
	list, err := s.store.Values(ctx, root+key)
	switch {
	case err != nil:
		return info, err
	case len(list) == 0:
		return info, fmt.Errorf("%s: %w", key, fs.ErrNotExist)
	case list[0].Name != root+key:
		return certmagic.KeyInfo{Key: key}, nil // a part of other keys
	}
	return certmagic.KeyInfo{Key: key, Modified: list[0].Modified, Size: list[0].Size, IsTerminal: true}, nil
}

const (
	leaseLife  = 15 * time.Second // of a lock whose process is gone
	leasePause = 3 * time.Second  // between two renewals, and for each of them

	sharedLockPause = 500 * time.Millisecond
)

// TryLock implements certmagic.TryLocker.
func (s *shared) TryLock(ctx context.Context, name string) (bool, error) {
	if !s.claim(name) {
		return false, nil
	}
	ok, err := s.store.AcquireLease(ctx, root+name, s.holder, leaseLife)
	if !ok || err != nil {
		s.hold(name, nil)
		return false, err
	}
	renewing, cancel := context.WithCancel(context.Background())
	var task sync.WaitGroup
	task.Go(func() {
		defer s.faults.Catch("the renewal of a lock", nil)
		s.renew(renewing, name)
	})
	s.hold(name, func() { cancel(); task.Wait() })
	return true, nil
}

// claim keeps others of this process away from a lock while the store is asked for it.
func (s *shared) claim(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held[name] != nil {
		return false
	}
	s.held[name] = func() {}
	return true
}

// release returns what ends the renewal of a lock that is held, which stays claimed; nil: it isn't held.
func (s *shared) release(name string) (end func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if end = s.held[name]; end != nil {
		s.held[name] = func() {}
	}
	return end
}

// hold says what ends the renewal of a lock; nil: it is not held any more. It returns what did before.
func (s *shared) hold(name string, end func()) (before func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before = s.held[name]
	if s.held[name] = end; end == nil {
		delete(s.held, name)
	}
	return before
}

// renew keeps a lease until ctx ends.
func (s *shared) renew(ctx context.Context, name string) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(leasePause):
		}
		asking, cancel := context.WithTimeout(ctx, leasePause)
		ok, err := s.store.AcquireLease(asking, root+name, s.holder, leaseLife)
		cancel()
		if ctx.Err() == nil && (err != nil || !ok) {
			s.log.Warn("a lock on certificates could not be kept in the store", "lock", name, "lost", err == nil, "error", err)
		}
	}
}

// Lock implements certmagic.Locker.
func (s *shared) Lock(ctx context.Context, name string) error {
	return waitFor(ctx, sharedLockPause, func() (bool, error) { return s.TryLock(ctx, name) })
}

// Unlock implements certmagic.Locker. A store that does not answer holds it up for no longer than the lease lives.
func (s *shared) Unlock(ctx context.Context, name string) error {
	end := s.release(name)
	if end == nil {
		return errors.New("the lock " + name + " is not held")
	}
	end()
	// Not before, or the lease that ends here could be that of the next one in this process.
	defer func() { s.hold(name, nil) }()
	ctx, cancel := context.WithTimeout(ctx, storageTime)
	defer cancel()
	return s.store.ReleaseLease(ctx, root+name, s.holder)
}
