package control

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"
)

// The names of sources, as metrics, /readyz and State have them.
const (
	configuration = "configuration"
	store         = "store"
)

func profilesOf(listener string) string { return "profiles of listener " + listener }

func keysOf(keyManager string) string { return "keys of " + keyManager }

// A State tells what is in force of one source.
type State struct {
	Name        string
	Since       time.Time // when the content in force came into force
	Broken      error     // why newer content is refused; nil if there is none
	BrokenSince time.Time // since when newer content has been refused, whatever the reason was at first
}

// A board holds the State of each source. The loop writes it, and the token verifier for its keys.
type board struct {
	mu     sync.Mutex
	told   func(name string, err error)
	states map[string]State
}

// keep makes the board's sources these: new ones are in force from now on, others are dropped.
func (b *board) keep(names []string) {
	for _, s := range b.list() {
		if !slices.Contains(names, s.Name) {
			b.mended(s.Name)
			b.mu.Lock()
			delete(b.states, s.Name)
			b.mu.Unlock()
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, name := range names {
		if _, ok := b.states[name]; !ok {
			b.states[name] = State{Name: name, Since: time.Now()}
		}
	}
}

// good records that newer content is in force.
func (b *board) good(name string) {
	b.mu.Lock()
	b.states[name] = State{Name: name, Since: time.Now()}
	b.mu.Unlock()
	b.told(name, nil)
}

// mended records that the content in force is the newest again. It does nothing for a source that is not broken.
func (b *board) mended(name string) {
	b.mu.Lock()
	s := b.states[name]
	if s.Broken == nil {
		b.mu.Unlock()
		return
	}
	b.states[name] = State{Name: name, Since: s.Since}
	b.mu.Unlock()
	b.told(name, nil)
}

// bad records that newer content is refused.
func (b *board) bad(name string, err error) {
	b.mu.Lock()
	s := b.states[name]
	if s.Broken == nil {
		s.BrokenSince = time.Now()
	}
	s.Name, s.Broken = name, err
	b.states[name] = s
	b.mu.Unlock()
	b.told(name, err)
}

func (b *board) broken(name string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.states[name].Broken
}

func (b *board) list() []State {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.SortedFunc(maps.Values(b.states), func(x, y State) int { return cmp.Compare(x.Name, y.Name) })
}
