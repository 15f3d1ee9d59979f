// Package progress shows a person how far a measurement has got.
package progress

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// quietPeriod is the shortest time between two passing states where they are printed as lines.
const quietPeriod = 10 * time.Second

// A Line rewrites one line on a terminal, and prints plain lines elsewhere. Its methods may be called concurrently.
type Line struct {
	mu       sync.Mutex
	out      io.Writer
	terminal bool
	shown    bool // the terminal shows a passing state
	last     time.Time
}

// New returns a Line that writes to out.
func New(out io.Writer) *Line {
	l := &Line{out: out, last: time.Now()}
	if f, ok := out.(*os.File); ok {
		info, err := f.Stat()
		l.terminal = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return l
}

// Pass replaces the passing state.
func (l *Line) Pass(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.terminal {
		fmt.Fprintf(l.out, "\r\x1b[K"+format, args...)
		l.shown = true
		return
	}
	if now := time.Now(); now.Sub(l.last) >= quietPeriod {
		l.last = now
		fmt.Fprintf(l.out, format+"\n", args...)
	}
}

// Say prints a line that stays.
func (l *Line) Say(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.clear()
	fmt.Fprintf(l.out, format+"\n", args...)
	l.last = time.Now()
}

// Clear removes the passing state.
func (l *Line) Clear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.clear()
}

func (l *Line) clear() {
	if l.shown {
		fmt.Fprint(l.out, "\r\x1b[K")
		l.shown = false
	}
}
