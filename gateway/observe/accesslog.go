package observe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"sallyport/gateway/decision"
	"sallyport/internal/contain"
)

// Bounds of the access log.
const (
	maxText       = 512     // bytes of any text that a client chose
	maxPending    = 4 << 20 // bytes that wait for a slow destination; what comes on top is lost, and counted
	flushInterval = 200 * time.Millisecond
	lastFlush     = 2 * time.Second // for the last lines, when Run ends
)

// An AccessLog writes a line a call. A call waits for memory only, never for the destination.
type AccessLog struct {
	Log *slog.Logger // gets a line when the destination fails; nil: none

	text    bool
	columns []column
	faults  contain.Faults
	lost    func(lines int)
	full    chan struct{} // asks Run to write before its time
	torn    bool          // the last write ended within a line

	mu      sync.Mutex
	pending bytes.Buffer
	out     io.Writer
	retired []io.Closer // destinations that nobody writes to after the write under way
}

// NewAccessLog returns a log that writes to out, as JSON, or as slog's text if text is set, the fields of these names,
// which ParseFields has checked, or all. Its Run does the writing.
func NewAccessLog(out io.Writer, text bool, metrics *Metrics, fields ...string) *AccessLog {
	return &AccessLog{
		out: out, text: text, columns: columns(fields, text), faults: contain.Faults{Count: metrics.Panicked},
		lost: func(lines int) { metrics.lost.Add(float64(lines)) }, full: make(chan struct{}, 1),
	}
}

// Run writes what is pending until ctx ends, and then the rest, unless the destination does not take it for lastFlush.
func (l *AccessLog) Run(ctx context.Context) error {
	work, done := make(chan struct{}, 1), make(chan error, 1)
	go func() { // a destination can hang for good, a pipe that nobody reads; then this is left behind
		defer l.faults.Catch("writing the access log", func(f *contain.Fault) { done <- f })
		var spare bytes.Buffer
		flush := func() error { return l.faults.Do("writing the access log", func() error { return l.flush(&spare) }) }
		for range work {
			_ = flush() // it was logged
		}
		done <- flush()
	}()
	tick := time.NewTicker(flushInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-l.full:
		case <-ctx.Done():
			close(work)
			select {
			case err := <-done:
				return err
			case <-time.After(lastFlush):
				return errors.New("access log: its destination does not take the last lines")
			}
		}
		select {
		case work <- struct{}{}:
		default:
		}
	}
}

// flush writes what is pending. Lines that the destination does not take are lost, and counted.
func (l *AccessLog) flush(spare *bytes.Buffer) error {
	l.mu.Lock()
	l.pending, *spare = *spare, l.pending
	out, retired := l.out, l.retired
	l.retired = nil
	l.mu.Unlock()
	defer func() {
		for _, c := range retired {
			if err := c.Close(); err != nil {
				l.tell(err)
			}
		}
	}()
	if spare.Len() == 0 {
		return nil
	}
	defer spare.Reset()
	text := spare.Bytes()
	if l.torn {
		text = append([]byte{'\n'}, text...)
	}
	n, err := out.Write(text)
	if n > 0 {
		l.torn = text[n-1] != '\n'
	}
	if err != nil {
		l.lost(bytes.Count(text[n:], []byte{'\n'}))
		l.tell(err)
		err = fmt.Errorf("access log: %w", err)
	}
	return err
}

func (l *AccessLog) tell(err error) {
	if l.Log != nil {
		l.Log.Error("access log", "error", err)
	}
}

// SetOutput sends what comes from now on to out. The old destination is closed, if it can be, as soon as nobody writes
// to it any more.
func (l *AccessLog) SetOutput(out io.Writer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if old, ok := l.out.(io.Closer); ok {
		l.retired = append(l.retired, old)
	}
	l.out = out
}

// add has a line written.
func (l *AccessLog) add(line []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pending.Len()+len(line) > maxPending {
		l.lost(1)
		return
	}
	l.pending.Write(line)
	if l.pending.Len() > maxPending/8 {
		select {
		case l.full <- struct{}{}:
		default:
		}
	}
}

// Observe writes the line of a finished call.
func (l *AccessLog) Observe(x *decision.Exchange, took time.Duration) {
	w := lines.Get().(*line)
	defer lines.Put(w)
	w.begin(l.text, x.Started.Add(took))
	for i := range l.columns {
		w.key = l.columns[i].key
		l.columns[i].add(w, x, took)
	}
	w.end()
	l.add(w.b)
}

// problem is what the line's other words don't tell of an error: of a credential, the problem has a word of its own.
func problem(err error) string {
	var refusal *decision.Refusal
	switch {
	case !errors.As(err, &refusal):
		return err.Error()
	case refusal.Cause != nil && refusal.Reason != decision.InvalidCredentials && refusal.Reason != decision.MissingCredentials && refusal.Reason != decision.TokenExpired:
		return refusal.Cause.Error()
	}
	return ""
}

// path is the raw path without the query, which may carry secrets; of a target that is no path, as much as is safe.
func path(x *decision.Exchange) string {
	if x.Path != "" {
		return x.Path
	}
	p, _, _ := strings.Cut(x.Request.Target, "?")
	return p
}

// cut bounds a text that somebody else chose, at the border of a character.
func cut(s string) string {
	if len(s) <= maxText {
		return s
	}
	end := maxText
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + "…"
}
