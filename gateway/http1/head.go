// Package http1 is HTTP/1.1 on the wire, RFC 9112.
package http1

import (
	"math/bits"
	"strconv"

	"sallyport/gateway/message"
)

// An Error says why a message is refused. It never quotes the message.
type Error struct {
	Status int // what a client is answered for its request: 400, 417, 431, 501 or 505. For a response it means nothing
	Line   int // of the head or the trailer section, counted from 1; 0 if it is about the whole, or the chunks
	Text   string
}

func (e *Error) Error() string {
	if e.Line == 0 {
		return e.Text
	}
	return "line " + strconv.Itoa(e.Line) + ": " + e.Text
}

// at is the error with its place.
func (e *Error) at(line int) error {
	placed := *e
	placed.Line = line
	return &placed
}

// ErrHeadTooLong is for a request whose head has more bytes than its carrier takes.
var ErrHeadTooLong = &Error{Status: 431, Text: "the head is too long"}

func bad(text string) *Error { return &Error{Status: 400, Text: text} }

// What can be wrong with the lines of any head.
var (
	errBareLF     = bad("a line feed without carriage return")
	errBareCR     = bad("a carriage return without line feed")
	errControl    = bad("a control character")
	errEmptyStart = bad("an empty line before the first")
	errUnfinished = bad("the head has no end")
	errBehind     = bad("bytes behind the head")
)

// HeadEnd looks for the end of a head in b, of which the first seen bytes were looked at before. It returns the length
// of the head with its empty line, or 0 if it has not ended. The error is for bytes that no head may hold, so that a
// broken one is refused before it is whole: control characters except a tab, CR and LF each without the other, and an
// empty line at its start: see EmptyLine.
func HeadEnd(b []byte, seen int) (n int, err error) {
	if len(b) > 0 && (b[0] == '\r' || b[0] == '\n') {
		return 0, errEmptyStart
	}
	// Two bytes back: an end that was cut within its last CRLF begins no earlier.
	for i := max(0, min(seen, len(b))-2); ; i++ {
		i = nextControl(b, i)
		if i == len(b) {
			return 0, nil
		}
		switch b[i] {
		case '\t':
			continue
		case '\r':
			if i++; i == len(b) {
				return 0, nil
			}
			if b[i] != '\n' {
				return 0, errBareCR
			}
		case '\n':
			if i == 0 || b[i-1] != '\r' {
				return 0, errBareLF
			}
		default:
			return 0, errControl
		}
		if i+2 < len(b) && b[i+1] == '\r' && b[i+2] == '\n' {
			return i + 3, nil
		}
	}
}

// EmptyLine returns how many bytes the empty line has that b begins with, 0 if it begins with none. A server leaves one
// before a request line out (RFC 9112 section 2.2): some clients send one behind a body. more reports that the next byte
// has to tell.
func EmptyLine(b []byte) (n int, more bool) {
	switch {
	case len(b) == 0 || b[0] != '\r':
		return 0, false
	case len(b) == 1:
		return 0, true
	case b[1] != '\n':
		return 0, false
	}
	return 2, false
}

// lineEnd finds the CRLF that ends the line in which head[i] stands.
func lineEnd(head string, i int) (int, *Error) {
	for ; ; i++ {
		i = nextControl(head, i)
		switch {
		case i == len(head):
			return 0, errUnfinished
		case head[i] == '\t':
		case head[i] == '\r' && i+1 < len(head) && head[i+1] == '\n':
			return i, nil
		case head[i] == '\r':
			return 0, errBareCR
		case head[i] == '\n':
			return 0, errBareLF
		default:
			return 0, errControl
		}
	}
}

// nextControl is where the first control character (RFC 5234: 0x00 to 0x1F, 0x7F) of s stands, from i on; len(s) if
// there is none. It looks at eight bytes at once: BenchmarkHeadEnd, less than a third of the time of one by one.
func nextControl[T string | []byte](s T, i int) int {
	const ones, high = 0x0101010101010101, 0x8080808080808080
	for ; i+8 <= len(s); i += 8 {
		w := s[i : i+8]
		x := uint64(w[0]) | uint64(w[1])<<8 | uint64(w[2])<<16 | uint64(w[3])<<24 |
			uint64(w[4])<<32 | uint64(w[5])<<40 | uint64(w[6])<<48 | uint64(w[7])<<56
		// A byte's high bit is set where the subtraction borrows and the byte itself has none. What borrows further up
		// can only be wrong above the first one that is right, and the first is what counts.
		if m := ((x - 0x20*ones) | ((x ^ 0x7f*ones) - ones)) &^ x & high; m != 0 {
			return i + bits.TrailingZeros64(m)/8
		}
	}
	for ; i < len(s); i++ {
		if s[i] < ' ' || s[i] == 0x7f {
			return i
		}
	}
	return len(s)
}

// tokenCharacter are the octets of a token, RFC 9110 section 5.6.2.
var tokenCharacter = func() (t [256]bool) {
	for c := range t {
		t[c] = message.ValidMethod(string([]byte{byte(c)}))
	}
	return t
}()

// lower is ASCII in lower case.
var lower = func() (t [256]byte) {
	for c := range t {
		t[c] = byte(c)
		if 'A' <= c && c <= 'Z' {
			t[c] += 'a' - 'A'
		}
	}
	return t
}()

// equalFold reports whether two names differ at most by the case of ASCII letters.
func equalFold(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if a[i] != b[i] && lower[a[i]] != lower[b[i]] {
			return false
		}
	}
	return true
}
