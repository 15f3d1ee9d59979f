// Package progress tells a person how far a measurement is.
package progress

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// quietPeriod is how often a passing state is told where lines stay.
const quietPeriod = 10 * time.Second

// A Line is one line that is rewritten on a terminal, and plain lines elsewhere. Its methods may be called at once.
type Line struct {
	mu       sync.Mutex
	out      io.Writer
	terminal bool
	shown    bool // a passing state stands on the terminal's line
	last     time.Time
}

// New writes to out, which is a terminal or not.
func New(out io.Writer) *Line {
	l := &Line{out: out, last: time.Now()}
	if f, ok := out.(*os.File); ok {
		info, err := f.Stat()
		l.terminal = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return l
}

// Pass shows a passing state, in place of the last one.
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

// Say writes a line that stays.
func (l *Line) Say(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.clear()
	fmt.Fprintf(l.out, format+"\n", args...)
	l.last = time.Now()
}

// Clear takes the passing state away.
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
