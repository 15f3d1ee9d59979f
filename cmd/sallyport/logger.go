package main

import (
	"errors"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/mattn/go-isatty"

	"sallyport/cmd/sallyport/internal/config"
	"sallyport/gateway/control"
	"sallyport/internal/printable"
)

// newLogger returns the log that c asks for: if it names no format, text for a terminal and JSON for anything else.
func newLogger(c config.Log, out io.Writer) *slog.Logger {
	opts := &slog.HandlerOptions{}
	var level slog.Level
	if level.UnmarshalText([]byte(c.Level)) == nil {
		opts.Level = level
	}
	switch {
	case !asText(c, out):
		return slog.New(slog.NewJSONHandler(out, opts))
	case isTerminal(out):
		return slog.New(slog.NewTextHandler(&terminalLog{to: printable.Under(out), colour: wantsColour()}, opts))
	}
	return slog.New(slog.NewTextHandler(out, opts))
}

// asText reports whether what is logged to out is text rather than JSON.
func asText(c config.Log, out io.Writer) bool {
	return c.Format == "text" || c.Format == "" && isTerminal(out)
}

func isTerminal(out io.Writer) bool {
	file, ok := printable.Under(out).(*os.File)
	return ok && isatty.IsTerminal(file.Fd())
}

// wantsColour follows https://no-color.org.
func wantsColour() bool { return os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" }

// A terminalLog shortens the lines of slog's text handler for people: the time of day, the level in colour, the message
// without quotes. What is not printable is escaped.
type terminalLog struct {
	to     io.Writer
	colour bool
}

func (t *terminalLog) Write(line []byte) (int, error) {
	if _, err := t.to.Write(t.shorten(line)); err != nil {
		return 0, err
	}
	return len(line), nil
}

// shorten turns time=2026-11-29T13:50:20.318Z level=WARN msg="two words" key=value into 13:50:20 WARN  two words
// key=value. Any other line stays as it is.
func (t *terminalLog) shorten(line []byte) []byte {
	whole := strings.TrimSuffix(string(line), "\n")
	at, rest, ok := cutField(whole, "time=")
	level, rest, ok2 := cutField(rest, "level=")
	message, rest, ok3 := cutField(rest, "msg=")
	when, err := time.Parse(time.RFC3339, at)
	if !ok || !ok2 || !ok3 || err != nil {
		return append(printable.Append(nil, whole), '\n')
	}
	out := when.AppendFormat(nil, "15:04:05 ")
	if t.colour {
		out = append(out, colourOf(level)...)
	}
	out = append(out, level...)
	if t.colour {
		out = append(out, "\x1b[0m"...)
	}
	out = append(out, strings.Repeat(" ", max(1, len("ERROR ")-len(level)))...)
	out = printable.Append(out, message)
	if rest != "" {
		out = printable.Append(append(out, "  "...), rest)
	}
	return append(out, '\n')
}

// cutField cuts key, its value, which may be quoted, and a space from the beginning of a line.
func cutField(line, key string) (value, rest string, ok bool) {
	rest, ok = strings.CutPrefix(line, key)
	if !ok {
		return "", "", false
	}
	if quoted, err := strconv.QuotedPrefix(rest); err == nil {
		value, err = strconv.Unquote(quoted)
		return value, strings.TrimPrefix(rest[len(quoted):], " "), err == nil
	}
	value, rest, _ = strings.Cut(rest, " ")
	return value, rest, true
}

// colourOf is red for errors, yellow for warnings, green for news, and grey for details.
func colourOf(level string) string {
	switch level {
	case "ERROR":
		return "\x1b[31m"
	case "WARN":
		return "\x1b[33m"
	case "INFO":
		return "\x1b[32m"
	}
	return "\x1b[90m"
}

// fatal tells why serve ended in the log's own format: a line of JSON a problem where the log is JSON. What it returns
// has the exit code of err, and its text as well where that is still to be printed.
func fatal(err error, c config.Log, out io.Writer) error {
	if err == nil || asText(c, out) {
		return err
	}
	log := newLogger(c, out)
	var list control.Problems
	if errors.As(err, &list) {
		for _, p := range list {
			log.Error("serve failed", "error", p.Message, "file", p.File, "line", p.Line, "column", p.Column)
		}
	} else {
		log.Error("serve failed", "error", err.Error())
	}
	return quiet(err)
}
