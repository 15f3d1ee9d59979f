//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package acme

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
)

// locks are files that the system has locked for this process.
type locks struct {
	folder string
	mu     *sync.Mutex
	held   map[string]*os.File
}

func newLocks(folder string) locks {
	return locks{filepath.Join(folder, "locks"), &sync.Mutex{}, map[string]*os.File{}}
}

// try takes a lock, unless somebody holds it.
func (l locks) try(name string) (bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held[name] != nil {
		return false, nil
	}
	if err := os.MkdirAll(l.folder, 0o700); err != nil {
		return false, err
	}
	file, err := os.OpenFile(filepath.Join(l.folder, safe(name)+".flock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return false, err
	}
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err != nil {
		file.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) || errors.Is(err, syscall.EINTR) {
			return false, nil
		}
		return false, fmt.Errorf("lock %s: %w", name, err)
	}
	l.held[name] = file
	return true, nil
}

// release gives a lock back. Its file stays: a new one of the same name would be another lock.
func (l locks) release(name string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	file := l.held[name]
	if file == nil {
		return fmt.Errorf("lock %s is not held", name)
	}
	delete(l.held, name)
	return file.Close()
}
