// Package contain ends what a panic happened in, and never the process.
//
// A panic on a goroutine that nobody guards ends the process. So each goroutine, timer and callback on a goroutine of
// somebody else's begins with a deferred Catch.
package contain

import (
	"fmt"
	"log/slog"
	"runtime/debug"
)

// A Fault is a panic that was contained, and the error that it has become.
type Fault struct {
	Where string // what panicked, as "a handshake"
	Value any    // that it panicked with
	Stack []byte // of its goroutine

	told bool
}

// Error says what panicked, without the stack.
func (f *Fault) Error() string { return fmt.Sprintf("%s panicked: %v", f.Where, f.Value) }

// Catch is deferred. It makes a panic a Fault, and has ended end what the panic happened in and pass the Fault on to
// somebody who tells it. What panics while it is ended has nobody to be told.
func Catch(where string, ended func(*Fault)) {
	if value := recover(); value != nil {
		end(newFault(where, value), ended)
	}
}

// Do calls do and returns its error; of a panic, the Fault. Whoever gets the error tells it.
func Do(where string, do func() error) (err error) {
	defer Catch(where, func(f *Fault) { err = f })
	return do()
}

// newFault returns the Fault of a panic that was recovered from. A Fault that was panicked with is that Fault: it has
// come from another goroutine, with the stack that matters.
func newFault(where string, value any) *Fault {
	if f, ok := value.(*Fault); ok {
		return f
	}
	return &Fault{Where: where, Value: value, Stack: debug.Stack()}
}

func end(f *Fault, ended func(*Fault)) {
	defer func() { _ = recover() }()
	if ended != nil {
		ended(f)
	}
}

// Faults tells people of panics. A nil Faults logs to slog.Default and counts nothing.
type Faults struct {
	Log   *slog.Logger       // gets a line with the stack; nil: slog.Default
	Count func(where string) // called for each; where is a word of the program. nil: nobody counts
}

// Catch is deferred. It makes a panic a Fault, tells it, and has ended, which may be nil, end what it happened in.
func (t *Faults) Catch(where string, ended func(*Fault)) {
	if value := recover(); value != nil {
		f := newFault(where, value)
		t.Tell(f)
		end(f, ended)
	}
}

// Do is the function Do, and tells the Fault.
func (t *Faults) Do(where string, do func() error) (err error) {
	defer t.Catch(where, func(f *Fault) { err = f })
	return do()
}

// New returns the Fault of a panic that the caller has recovered from, told with the attributes.
func (t *Faults) New(where string, value any, attrs ...any) *Fault {
	f := newFault(where, value)
	t.Tell(f, attrs...)
	return f
}

// Tell logs and counts a Fault, unless that was done before. A log that panics itself is not told of.
func (t *Faults) Tell(f *Fault, attrs ...any) {
	if f.told {
		return
	}
	f.told = true
	if t != nil && t.Count != nil {
		end(f, func(f *Fault) { t.Count(f.Where) })
	}
	end(f, func(f *Fault) {
		log := slog.Default()
		if t != nil && t.Log != nil {
			log = t.Log
		}
		log.Error(f.Where+" panicked", append(attrs, "panic", fmt.Sprint(f.Value), "stack", string(f.Stack))...)
	})
}
