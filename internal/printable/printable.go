// Package printable escapes text from outside wherever a person may read it.
//
// Certificates, tokens, names and files are chosen by others. Controls (C0, DEL and C1) can drive a terminal, line and
// paragraph separators can make a second line, and marks of writing direction and characters without width can make a
// text look like another one (Unicode UTS 55). All of them are what unicode.IsPrint calls not printable.
package printable

import (
	"io"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Text returns s with everything escaped that is not printable, as \uXXXX, and what is no UTF-8 as \ufffd. Quotes and
// backslashes stay.
func Text(s string) string {
	if clean(s) {
		return s
	}
	return string(Append(nil, s))
}

// Append appends Text(s). It allocates nothing of its own. Within a JSON string the escapes are JSON's.
func Append(b []byte, s string) []byte { return appendBut(b, s, &plainText) }

// AppendJSON appends s for within a JSON string: as Append, with quotes and backslashes escaped.
func AppendJSON(b []byte, s string) []byte { return appendBut(b, s, &plainJSON) }

// The bytes of ASCII that stand for themselves.
var (
	plainText = ascii("")
	plainJSON = ascii(`"\`)
)

func ascii(but string) (plain [256]bool) {
	for c := ' '; c < 0x7f; c++ {
		plain[c] = !strings.ContainsRune(but, c)
	}
	return plain
}

// Quote returns s in quotes, as Go writes a string, cut at 64 bytes.
func Quote(s string) string {
	const shown = 64
	if len(s) <= shown {
		return strconv.Quote(s)
	}
	end := shown
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return strconv.Quote(s[:end]) + "…"
}

func clean(s string) bool {
	for _, r := range s {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}

// appendBut appends s; printable ASCII that is not plain gets a backslash.
func appendBut(b []byte, s string, plain *[256]bool) []byte {
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if plain[c] {
			i++
			continue
		}
		special := ' ' <= c && c < 0x7f
		r, size := utf8.DecodeRuneInString(s[i:])
		if r != utf8.RuneError && unicode.IsPrint(r) && !special {
			i += size
			continue
		}
		b = append(b, s[start:i]...)
		i += size
		start = i
		switch {
		case special:
			b = append(b, '\\', c)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			b = appendUnit(appendUnit(b, high), low)
		default:
			b = appendUnit(b, r)
		}
	}
	return append(b, s[start:]...)
}

func appendUnit(b []byte, unit rune) []byte {
	const digits = "0123456789abcdef"
	return append(b, '\\', 'u', digits[unit>>12&15], digits[unit>>8&15], digits[unit>>4&15], digits[unit&15])
}

// NewWriter returns a Writer of text, or of JSON, that a person may read: what is not printable is escaped, except line
// feeds and tabs. It does not escape lines that a text from outside may make: Text does. Each write ends with a whole
// character.
func NewWriter(w io.Writer) io.Writer { return &writer{w} }

// Under returns what a Writer of NewWriter writes to, for whoever escapes all by itself and counts what was written; any
// other Writer as it is.
func Under(w io.Writer) io.Writer {
	if w, ok := w.(*writer); ok {
		return w.to
	}
	return w
}

type writer struct{ to io.Writer }

func (w *writer) Write(p []byte) (int, error) {
	var b []byte // nil: all of p so far is printable
	start := 0
	for i := 0; i < len(p); {
		if c := p[i]; ' ' <= c && c < 0x7f || c == '\n' || c == '\t' {
			i++
			continue
		}
		r, size := utf8.DecodeRune(p[i:])
		if r == utf8.RuneError && size == 1 || !unicode.IsPrint(r) {
			b = append(b, p[start:i]...)
			b = Append(b, string(p[i:i+size]))
			start = i + size
		}
		i += size
	}
	out := p
	if start > 0 {
		out = append(b, p[start:]...)
	}
	if _, err := w.to.Write(out); err != nil {
		return 0, err
	}
	return len(p), nil
}
