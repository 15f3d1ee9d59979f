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
	key  string // what a value begins with
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

// str adds a text, unless it is empty. What somebody else may have chosen is cut to maxText, and cannot break the line.
func (l *line) str(value string) {
	if value == "" {
		return
	}
	if len(value) > maxText {
		value = cut(value)
	}
	l.b = append(l.b, l.key...)
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
		l.str(a.String())
		return
	}
	l.b = append(append(l.b, l.key...), '"')
	l.b = printable.AppendJSON(l.b, a.Name)
	l.b = append(l.b, ':')
	l.b = printable.AppendJSON(l.b, a.Version)
	l.b = append(l.b, '"')
}

// word adds what needs neither quotes nor escapes, unless it is empty.
func (l *line) word(value string) {
	if value != "" {
		addWord(l, value)
	}
}

// bytes adds what needs neither quotes nor escapes.
func (l *line) bytes(value []byte) { addWord(l, value) }

func addWord[T string | []byte](l *line, value T) {
	l.b = append(l.b, l.key...)
	if l.text {
		l.b = append(l.b, value...)
		return
	}
	l.b = append(append(append(l.b, '"'), value...), '"')
}

func (l *line) integer(value int64) { l.b = strconv.AppendInt(append(l.b, l.key...), value, 10) }

// milliseconds adds a time of whole microseconds as the shortest decimal fraction.
func (l *line) milliseconds(d time.Duration) {
	us := d.Microseconds()
	l.integer(us / 1000)
	us %= 1000
	if us == 0 {
		return
	}
	digits := 3
	for ; us%10 == 0; us /= 10 {
		digits--
	}
	l.b = append(l.b, ".000"[:1+digits]...)
	for i := len(l.b) - 1; us > 0; i-- {
		l.b[i] = byte('0' + us%10)
		us /= 10
	}
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
