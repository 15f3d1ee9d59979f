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
	cluster       = "configuration in the store"
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
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	last := b.states
	b.states = map[string]State{}
	for _, name := range names {
		s, known := last[name]
		if !known {
			s = State{Name: name, Since: time.Now()}
		}
		b.states[name] = s
	}
}

// good records that newer content is in force.
func (b *board) good(name string) { b.record(State{Name: name, Since: time.Now()}) }

// mended records that the content in force is the newest again, and reports whether the source was broken. It does
// nothing for one that was not.
func (b *board) mended(name string) bool {
	s := b.state(name)
	if s.Broken == nil {
		return false
	}
	b.record(State{Name: name, Since: s.Since})
	return true
}

// bad records that newer content is refused.
func (b *board) bad(name string, err error) {
	s := b.state(name)
	if s.Broken == nil {
		s.BrokenSince = time.Now()
	}
	s.Name, s.Broken = name, err
	b.record(s)
}

func (b *board) record(s State) {
	b.mu.Lock()
	b.states[s.Name] = s
	b.mu.Unlock()
	b.told(s.Name, s.Broken)
}

func (b *board) state(name string) State {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.states[name]
}

func (b *board) list() []State {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.SortedFunc(maps.Values(b.states), func(x, y State) int { return cmp.Compare(x.Name, y.Name) })
}
