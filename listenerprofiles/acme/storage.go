package acme

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"

	"sallyport/internal/regularfile"
)

// maxValue is how large a value in the storage may be.
const maxValue = 1 << 20

// Files is a storage in a folder: certmagic's, but for two things. It reads regular files only, bounded. And a lock is one
// of the system's where there are such, so that it ends with the process that holds it, however that ends.
func Files(folder string) certmagic.Storage {
	return &files{FileStorage: certmagic.FileStorage{Path: folder}, locks: newLocks(folder)}
}

type files struct {
	certmagic.FileStorage
	locks locks
}

// Load implements certmagic.Storage.
func (f *files) Load(_ context.Context, key string) ([]byte, error) {
	data, err := regularfile.Read(f.Filename(key), maxValue)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Filename(key), err)
	}
	return data, nil
}

// Lock implements certmagic.Locker.
func (f *files) Lock(ctx context.Context, name string) error {
	return waitFor(ctx, lockPause, func() (bool, error) { return f.locks.try(name) })
}

// TryLock implements certmagic.TryLocker.
func (f *files) TryLock(_ context.Context, name string) (bool, error) { return f.locks.try(name) }

// Unlock implements certmagic.Locker.
func (f *files) Unlock(_ context.Context, name string) error { return f.locks.release(name) }

// lockPause is the time between two attempts to get a lock of files.
const lockPause = 100 * time.Millisecond

// waitFor calls try, again after each pause, until it succeeds or fails, or ctx ends.
func waitFor(ctx context.Context, pause time.Duration, try func() (bool, error)) error {
	for {
		if ok, err := try(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

// The names under which this package keeps what certmagic doesn't, beside its own.
const (
	accountsAt   = "accounts/"   // one JSON a CA
	pendingAt    = "pending/"    // the key and the order of a certificate that is being issued
	servedAt     = "served/"     // key and chain of the certificate that serves, in one value
	staplesAt    = "staples/"    // OCSP responses
	challengesAt = "challenges/" // answers to validations that are pending
)

// load reads a value as JSON. What isn't there leaves it as it is, which found reports. What is no JSON is unreadable.
func load(ctx context.Context, s certmagic.Storage, key string, value any) (found bool, err error) {
	data, err := s.Load(ctx, key)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err == nil {
		if err = json.Unmarshal(data, value); err != nil {
			err = unreadable{err}
		}
	}
	if err != nil {
		return false, fmt.Errorf("storage: %s: %w", key, err)
	}
	return true, nil
}

// An unreadable error tells that a value is there and was written badly.
type unreadable struct{ error }

// Unwrap returns the cause.
func (u unreadable) Unwrap() error { return u.error }

// keep writes a value as JSON.
func keep(ctx context.Context, s certmagic.Storage, key string, value any) error {
	data, err := json.Marshal(value)
	if err == nil {
		err = s.Store(ctx, key, data)
	}
	if err != nil {
		return fmt.Errorf("storage: %s: %w", key, err)
	}
	return nil
}

// forget removes a value that may be there.
func forget(ctx context.Context, s certmagic.Storage, key string) error {
	if err := s.Delete(ctx, key); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("storage: %s: %w", key, err)
	}
	return nil
}

// same reports whether the storage has a value already.
func same(ctx context.Context, s certmagic.Storage, key string, value []byte) bool {
	data, err := s.Load(ctx, key)
	return err == nil && bytes.Equal(data, value)
}

// children returns the names right below a prefix that ends with a slash; none if there are none.
func children(ctx context.Context, s certmagic.Storage, prefix string) ([]string, error) {
	keys, err := s.List(ctx, strings.TrimSuffix(prefix, "/"), false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return keys, err
}

// safe is a text as a part of a storage's key.
func safe(text string) string { return cmp.Or(certmagic.StorageKeys.Safe(text), "_") }
