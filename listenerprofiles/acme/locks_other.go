//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package acme

import (
	"fmt"
	"sync"
)

// locks are within this process: on these systems a folder belongs to one.
type locks struct {
	mu   *sync.Mutex
	held map[string]bool
}

func newLocks(string) locks { return locks{&sync.Mutex{}, map[string]bool{}} }

// try takes a lock, unless somebody holds it.
func (l locks) try(name string) (bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held[name] {
		return false, nil
	}
	l.held[name] = true
	return true, nil
}

// release gives a lock back.
func (l locks) release(name string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.held[name] {
		return fmt.Errorf("lock %s is not held", name)
	}
	delete(l.held, name)
	return nil
}
