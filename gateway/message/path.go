package message

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

// Bounds of a path. One with more is nobody's resource.
const (
	MaxPath     = 8 << 10 // bytes
	MaxSegments = 128
)

// Errors of CheckPath. All of them are answered with 400; the text is for logs and for whoever writes a template.
var (
	errPathLength = errors.New("path is too long")
	errSegments   = errors.New("path has too many segments")
	errEmpty      = errors.New("path has an empty segment")
	errDot        = errors.New("path has a dot segment")
	errCharacter  = errors.New("path has a character that must be escaped")
	errEscape     = errors.New("path has a malformed escape")
	errDelimiter  = errors.New("path has an escaped backslash or control character")
	errTwice      = errors.New("path has a doubly escaped slash, backslash or dot")
	errOverlong   = errors.New("path has an overlong UTF-8 sequence")
)

// keptSlash and keptEscape stand in a meaning for what is no separator and no character: an escaped slash, and the
// percent sign of an escape that is not undone. No path can have their octets otherwise.
const (
	keptSlash  = 0x00
	keptEscape = 0x01
)

// CheckPath refuses every path, beginning with a slash, that servers are known to take for another one, whatever it is
// compared with: empty segments, except behind a final slash, and dot segments, both also once ";parameters" are cut off
// and escaped slashes separate; backslashes, controls, spaces and octets from 0x80 up, except as escapes; escapes of
// escapes of slashes, backslashes and dots; overlong UTF-8. An escaped slash itself passes: see HasEscapedSlash.
//
// What passes may still have several readings: see Readings.
func CheckPath(path string) error {
	if len(path) > MaxPath {
		return errPathLength
	}
	escaped := false
	for i := range len(path) {
		switch c := path[i]; {
		case c == '%':
			c, ok := Unescape(path[i:])
			if !ok {
				return errEscape
			}
			if c == '\\' || c < ' ' || c == 0x7f {
				return errDelimiter
			}
			escaped = true
		case c <= ' ' || c >= 0x7f || c == '\\' || c == '#':
			return errCharacter
		}
	}
	var space [256]byte
	if !escaped {
		return checkSegments(append(space[:0], path...))
	}
	text := AppendReading(space[:0], path, AsReceived)
	if err := checkOctets(text); err != nil {
		return err
	}
	return checkSegments(text)
}

// checkSegments looks at the segments of a meaning. An escaped slash separates, as it may for a server.
func checkSegments(text []byte) error {
	segments, start := 0, 1
	for i := 1; i <= len(text); i++ {
		last := i == len(text)
		if !last && text[i] != '/' && text[i] != keptSlash {
			continue
		}
		name, _, _ := bytes.Cut(text[start:i], semicolon)
		switch {
		case len(name) == 0 && !last:
			return errEmpty
		case len(name) == 1 && name[0] == '.', len(name) == 2 && name[0] == '.' && name[1] == '.':
			return errDot
		}
		if segments++; segments > MaxSegments {
			return errSegments
		}
		start = i + 1
	}
	return nil
}

var semicolon = []byte(";")

// checkOctets looks at a meaning for what a server would see that undoes escapes twice, or decodes UTF-8 carelessly.
func checkOctets(text []byte) error {
	for i, c := range text {
		switch rest := text[i+1:]; {
		case c == '%' && len(rest) >= 2:
			if d, ok := Unescape("%" + string(rest[:2])); ok && (d == '/' || d == '\\' || d == '.') {
				return errTwice
			}
		case len(rest) == 0 || rest[0]&0xc0 != 0x80: // no sequence begins here
		case c == 0xc0 || c == 0xc1, c == 0xe0 && rest[0] < 0xa0, c == 0xf0 && rest[0] < 0x90, c >= 0xf8 && c < 0xfe:
			return errOverlong
		}
	}
	return nil
}

// EscapeText escapes the octets of a path from 0x80 up, as in a template that is written in UTF-8.
func EscapeText(path string) string {
	var b strings.Builder
	for i := range len(path) {
		if c := path[i]; c >= 0x80 {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// HasEscapedSlash reports whether a path that CheckPath lets pass has an escaped slash.
func HasEscapedSlash(path string) bool {
	return strings.Contains(path, "%2F") || strings.Contains(path, "%2f")
}

// A Reading is a way in which a server may read a path: a set of what it does with it. AsReceived undoes escapes, and
// nothing else.
type Reading uint8

const (
	AsReceived   Reading = 0
	Spelled      Reading = 1 << (iota - 1) // leaves an escape of a character that needs none as it is
	CutAll                                 // cuts ";parameters" off each segment, and then undoes escapes
	CutLast                                // cuts them off the last segment only
	CutUnescaped                           // undoes escapes, and then cuts them off each segment
	CutSlash                               // cuts a final slash off
	AddSlash                               // adds a final slash
	SplitSlash                             // takes an escaped slash for a separator
	FoldLetters                            // takes U+212A for k and U+017F for s, as those do that ignore case by Unicode
)

var readingNames = []string{
	"needless escapes not undone", ";parameters cut off", ";parameters of the last segment cut off", "escaped ;parameters cut off",
	"final slash cut off", "final slash added", "escaped slashes separate", "case ignored by Unicode",
}

// String says what the reading does, for logs and explain.
func (r Reading) String() string {
	var did []string
	for i, name := range readingNames {
		if r&(1<<i) != 0 {
			did = append(did, name)
		}
	}
	if len(did) == 0 {
		return "as received"
	}
	return strings.Join(did, ", ")
}

// parameterReadings are the ways to cut parameters off, with what else they exclude.
var parameterReadings = [...]Reading{0, CutAll, CutLast, CutUnescaped, Spelled, Spelled | CutAll, Spelled | CutLast}

// Readings calls try with each reading of a path, beside AsReceived, that could differ from it, until try returns false.
// Of AddSlash, SplitSlash and FoldLetters only those of among are tried.
func Readings(path string, among Reading, try func(Reading) bool) {
	escapes, parameters := strings.IndexByte(path, '%') >= 0, strings.IndexByte(path, ';') >= 0
	if !escapes {
		among &= AddSlash
	}
	if !escapes && !parameters && among == 0 && path[len(path)-1] != '/' {
		return
	}
	subsets := among & (SplitSlash | FoldLetters)
	for _, params := range parameterReadings {
		if params&(Spelled|CutUnescaped) != 0 && !escapes || params&(CutAll|CutLast) != 0 && !parameters {
			continue
		}
		for _, slash := range [...]Reading{0, CutSlash, AddSlash & among} {
			for rest := Reading(0); ; rest = (rest - subsets) & subsets {
				if r := params | slash | rest; r != AsReceived && !try(r) {
					return
				}
				if rest == subsets {
					break
				}
			}
		}
	}
}

// Meaning is what a path means as it is received.
func Meaning(path string) string { return string(AppendReading(nil, path, AsReceived)) }

// Spell is the plainest path of a meaning: only what has to be escaped is.
func Spell(meaning string) string {
	var b strings.Builder
	for _, c := range []byte(meaning) {
		switch {
		case c == keptSlash:
			b.WriteString("%2F")
		case plain(c) || c == '/':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// Text is a meaning as people write it: with the escapes that were not undone.
func Text(meaning []byte) string {
	if bytes.IndexByte(meaning, keptSlash) < 0 && bytes.IndexByte(meaning, keptEscape) < 0 {
		return string(meaning)
	}
	var b strings.Builder
	for i := 0; i < len(meaning); i++ {
		switch c := meaning[i]; {
		case c == keptSlash:
			b.WriteString("%2F")
		case c == keptEscape && i+1 < len(meaning):
			i++
			fmt.Fprintf(&b, "%%%02X", meaning[i])
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// plain tells the octets that need no escape, since a path may have them as they are.
func plain(c byte) bool { return c > ' ' && c < 0x7f && !strings.ContainsRune(`%\#?/`, rune(c)) }

// AppendReading appends what a path means in a reading: segments with their escapes undone, separated by slashes. An
// escaped slash that does not separate equals no character. The path begins with a slash, and CheckPath lets it pass.
func AppendReading(b []byte, path string, r Reading) []byte {
	begin, cut := len(b), false // cut: behind a parameter's semicolon
	last := strings.LastIndexByte(path, '/')
	for i := 0; i < len(path); i++ {
		c := path[i]
		if c == '/' || c == ';' {
			cut = c == ';' && (r&(CutAll|CutUnescaped) != 0 || r&CutLast != 0 && i > last)
			if !cut {
				b = append(b, c)
			}
			continue
		}
		if c != '%' {
			if !cut {
				b = append(b, c)
			}
			continue
		}
		c, _ = Unescape(path[i:])
		switch {
		case c == '/' && r&SplitSlash != 0:
			cut = false
			b = append(b, '/')
		case c == ';' && r&CutUnescaped != 0:
			cut = true
		case cut:
		case c == '/':
			b = append(b, keptSlash)
		case r&Spelled != 0 && plain(c):
			b = append(b, keptEscape, c)
		case r&FoldLetters != 0 && c == 0xaa && bytes.HasSuffix(b[begin:], kelvin[:2]):
			b = append(b[:len(b)-2], 'k')
		case r&FoldLetters != 0 && c == 0xbf && bytes.HasSuffix(b[begin:], longS[:1]):
			b = append(b[:len(b)-1], 's')
		default:
			b = append(b, c)
		}
		i += len("2F")
	}
	switch final := b[len(b)-1] == '/'; {
	case r&CutSlash != 0 && final && len(b) > begin+1:
		b = b[:len(b)-1]
	case r&AddSlash != 0 && !final:
		b = append(b, '/')
	}
	return b
}

// kelvin and longS are the two letters that Unicode folds to ASCII.
var kelvin, longS = []byte("\u212a"), []byte("\u017f")
