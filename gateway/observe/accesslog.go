package observe

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"sallyport/gateway"
)

// Bounds of the access log.
const (
	maxText       = 512     // bytes of any text that a client chose
	maxPending    = 4 << 20 // bytes that wait for a slow destination; what comes on top is lost, and counted
	flushInterval = 200 * time.Millisecond
)

// An AccessLog writes a line a call. A call waits for memory only, never for the destination.
type AccessLog struct {
	logger *slog.Logger
	lost   func()

	mu      sync.Mutex
	pending bytes.Buffer
	out     io.Writer
	full    chan struct{} // asks Run to write before its time
}

// NewAccessLog returns a log that writes to out, as JSON, or as slog's text if text is set. Its Run does the writing.
func NewAccessLog(out io.Writer, text bool, metrics *Metrics) *AccessLog {
	l := &AccessLog{out: out, lost: metrics.lost.Inc, full: make(chan struct{}, 1)}
	if text {
		l.logger = slog.New(slog.NewTextHandler(pendingWriter{l}, nil))
	} else {
		l.logger = slog.New(slog.NewJSONHandler(pendingWriter{l}, nil))
	}
	return l
}

// Run writes what is pending until ctx ends, and then the rest.
func (l *AccessLog) Run(ctx context.Context) error {
	tick := time.NewTicker(flushInterval)
	defer tick.Stop()
	var spare bytes.Buffer
	for {
		select {
		case <-tick.C:
		case <-l.full:
		case <-ctx.Done():
			return l.flush(&spare)
		}
		if err := l.flush(&spare); err != nil {
			slog.Default().Error("access log", "error", err)
		}
	}
}

func (l *AccessLog) flush(spare *bytes.Buffer) error {
	l.mu.Lock()
	l.pending, *spare = *spare, l.pending
	out := l.out
	l.mu.Unlock()
	if spare.Len() == 0 {
		return nil
	}
	_, err := out.Write(spare.Bytes())
	spare.Reset()
	return err
}

// SetOutput sends what comes from now on to out, and returns the old destination, which nobody writes to any more once
// the next flush is over.
func (l *AccessLog) SetOutput(out io.Writer) io.Writer {
	l.mu.Lock()
	defer l.mu.Unlock()
	old := l.out
	l.out = out
	return old
}

type pendingWriter struct{ log *AccessLog }

func (w pendingWriter) Write(line []byte) (int, error) {
	l := w.log
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pending.Len()+len(line) > maxPending {
		l.lost()
		return len(line), nil
	}
	l.pending.Write(line)
	if l.pending.Len() > maxPending/8 {
		select {
		case l.full <- struct{}{}:
		default:
		}
	}
	return len(line), nil
}

// Observe writes the line of a finished call.
func (l *AccessLog) Observe(x *gateway.Exchange, took time.Duration) {
	attrs := make([]slog.Attr, 0, 24)
	text := func(key, value string) {
		if value != "" {
			attrs = append(attrs, slog.String(key, cut(value)))
		}
	}
	text("id", x.ID)
	text("listener", x.Listener.Name)
	text("peer", x.Peer.String())
	text("method", x.Request.Method())
	text("host", x.Request.Authority())
	text("path", path(x))
	text("api", apiName(x))
	if x.Resource != nil {
		text("resource", x.Resource.Path)
	}
	text("decision", caller(x))
	text("reason", reason(x))
	if x.Client != nil {
		text("alias", x.Client.Alias)
		text("tier", x.Client.Tier)
	}
	if x.Certificate != nil {
		text("fingerprint", hex.EncodeToString(x.Certificate.Fingerprint[:]))
	}
	if x.Claims != nil {
		text("subject", x.Claims.Subject)
		text("key_manager", x.Claims.KeyManager)
	}
	if err := x.CertificateProblem(); err != nil {
		text("certificate_problem", err.Error())
	}
	if err := x.TokenProblem(); err != nil {
		text("token_problem", err.Error())
	}
	var refusal *gateway.Refusal
	if errors.As(x.Err, &refusal) && x.CertificateProblem() == nil && x.TokenProblem() == nil && refusal.Cause != nil {
		text("problem", refusal.Cause.Error())
	}
	text("upstream", x.Upstream)
	attrs = append(attrs,
		slog.Int("status", x.Status),
		slog.Float64("duration_ms", float64(took.Microseconds())/1000),
		slog.Int64("bytes_in", x.BytesIn),
		slog.Int64("bytes_out", x.BytesOut))
	l.logger.LogAttrs(context.Background(), slog.LevelInfo, "call", attrs...)
}

// path is the raw path without the query, which may carry secrets; of a target that is no path, as much as is safe.
func path(x *gateway.Exchange) string {
	if x.Path != "" {
		return x.Path
	}
	p, _, _ := strings.Cut(x.Request.Target(), "?")
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
