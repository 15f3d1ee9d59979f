package load

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// Kinds of failures. Each wrong status is a kind of its own.
const (
	connect      = "connect"
	handshake    = "handshake"
	timeout      = "timeout"
	broken       = "connection broken"
	malformed    = "malformed answer"
	wrongBody    = "wrong body"
	notResumed   = "not resumed"
	neverStarted = "never started"
)

// errAborted is the error of a call that was in progress when the run ended. It does not count as a failure.
var errAborted = errors.New("aborted")

// A Failure says why a call did not succeed.
type Failure struct {
	Kind  string
	Cause error // or nil
}

func failed(kind string, cause error) *Failure { return &Failure{kind, cause} }

func (f *Failure) Error() string {
	if f.Cause == nil {
		return f.Kind
	}
	return fmt.Sprintf("%s: %v", f.Kind, f.Cause)
}

func (f *Failure) Unwrap() error { return f.Cause }

// transport wraps the error of a read or write.
func transport(err error) *Failure {
	if isTimeout(err) {
		return failed(timeout, err)
	}
	return failed(broken, err)
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &n) && n.Timeout()
}

// Errors groups failures by kind.
type Errors map[string]Failures

// Failures counts the failures of one kind.
type Failures struct {
	Count   uint64 `json:"count"`
	Example string `json:"example"` // the first one
}

// Total returns the number of failures of all kinds.
func (e Errors) Total() (n uint64) {
	for _, f := range e {
		n += f.Count
	}
	return n
}

// And returns the failures of both.
func (e Errors) And(other Errors) Errors {
	all := Errors{}
	for kind, f := range e {
		all[kind] = f
	}
	for kind, f := range other {
		if first, ok := all[kind]; ok {
			f.Count, f.Example = f.Count+first.Count, first.Example
		}
		all[kind] = f
	}
	return all
}

// String lists the kinds, most frequent first.
func (e Errors) String() string {
	kinds := slices.SortedFunc(maps.Keys(e), func(a, b string) int {
		return cmp.Or(cmp.Compare(e[b].Count, e[a].Count), cmp.Compare(a, b))
	})
	var s []string
	for _, kind := range kinds {
		s = append(s, fmt.Sprintf("%d × %s", e[kind].Count, e[kind].Example))
	}
	return strings.Join(s, "; ")
}

// An errorList collects Errors concurrently.
type errorList struct {
	count  atomic.Uint64
	mu     sync.Mutex
	byKind Errors
}

func (l *errorList) add(err error) { l.addMany(err, 1) }

func (l *errorList) addMany(err error, n uint64) {
	kind := broken
	if f := (*Failure)(nil); errors.As(err, &f) {
		kind = f.Kind
	}
	l.count.Add(n)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.byKind == nil {
		l.byKind = Errors{}
	}
	f, ok := l.byKind[kind]
	if !ok {
		f.Example = err.Error()
	}
	f.Count += n
	l.byKind[kind] = f
}

func (l *errorList) all() Errors {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.byKind)
}
