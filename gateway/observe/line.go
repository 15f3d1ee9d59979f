package observe

import (
	"strconv"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"sallyport/certstore"
	"sallyport/internal/printable"
)

// A line is a line of the access log under way, as slog's handlers would write it: JSON, or text.
type line struct {
	text bool
	b    []byte
}

var lines = sync.Pool{New: func() any { return new(line) }} // it holds memory only, no state

func (l *line) begin(text bool, now time.Time) {
	l.text = text
	if text {
		l.b = append(l.b[:0], "time="...)
		l.b = now.AppendFormat(l.b, "2006-01-02T15:04:05.000Z07:00")
		l.b = append(l.b, " level=INFO msg=call"...)
		return
	}
	l.b = append(l.b[:0], `{"time":"`...)
	l.b = now.AppendFormat(l.b, time.RFC3339Nano)
	l.b = append(l.b, `","level":"INFO","msg":"call"`...)
}

func (l *line) end() {
	if !l.text {
		l.b = append(l.b, '}')
	}
	l.b = append(l.b, '\n')
}

func (l *line) key(key string) {
	if l.text {
		l.b = append(l.b, ' ')
		l.b = append(l.b, key...)
		l.b = append(l.b, '=')
		return
	}
	l.b = append(l.b, `,"`...)
	l.b = append(l.b, key...)
	l.b = append(l.b, `":`...)
}

// str adds a text, unless it is empty. What somebody else may have chosen is cut to maxText, and cannot break the line.
func (l *line) str(key, value string) {
	if value == "" {
		return
	}
	if len(value) > maxText {
		value = cut(value)
	}
	l.key(key)
	switch {
	case !l.text:
		l.b = append(l.b, '"')
		l.b = printable.AppendJSON(l.b, value)
		l.b = append(l.b, '"')
	case plainWord(value):
		l.b = append(l.b, value...)
	default:
		l.b = strconv.AppendQuote(l.b, value)
	}
}

func (l *line) api(a certstore.API) {
	if l.text {
		l.str("api", a.String())
		return
	}
	l.key("api")
	l.b = append(l.b, '"')
	l.b = printable.AppendJSON(l.b, a.Name)
	l.b = append(l.b, ':')
	l.b = printable.AppendJSON(l.b, a.Version)
	l.b = append(l.b, '"')
}

// word adds what needs neither quotes nor escapes.
func (l *line) word(key string, value []byte) {
	l.key(key)
	if l.text {
		l.b = append(l.b, value...)
		return
	}
	l.b = append(l.b, '"')
	l.b = append(l.b, value...)
	l.b = append(l.b, '"')
}

func (l *line) integer(key string, value int64) {
	l.key(key)
	l.b = strconv.AppendInt(l.b, value, 10)
}

func (l *line) float(key string, value float64) {
	l.key(key)
	l.b = strconv.AppendFloat(l.b, value, 'f', -1, 64)
}

// plainWord reports whether a value stands without quotes in a line of text.
func plainWord(s string) bool {
	for _, r := range s {
		if r == ' ' || r == '=' || r == '"' || r == utf8.RuneError || !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}
