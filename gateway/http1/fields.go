package http1

import (
	"math"
	"strconv"
	"strings"

	"sallyport/gateway/message"
)

// A Field is a header or trailer line.
type Field = message.Field

// Length of a body that isn't a number of bytes.
const (
	InChunks   = -1 // Transfer-Encoding: chunked
	UntilClose = -2 // a response that ends with its connection
	Unstated   = -3 // a request without a body, and without a Content-Length that says so
)

var (
	errFieldName     = bad("the field name is no token")
	errNoFieldName   = bad("no field name")
	errSpaceColon    = bad("a space before the colon")
	errNoColon       = bad("no colon")
	errFold          = bad("a line that goes on from the one before")
	errTwoLengths    = bad("more than one Content-Length")
	errLength        = bad("Content-Length is no plain number")
	errLengthTooBig  = bad("Content-Length is too big")
	errTwoCodings    = bad("more than one Transfer-Encoding")
	errOldCoding     = bad("Transfer-Encoding in HTTP/1.0")
	errBoth          = bad("both Content-Length and Transfer-Encoding")
	errTrailerFrames = bad("Trailer announces a field that frames the message")
	errListed        = &Error{Status: 431, Text: "a list of Connection, TE or Trailer is too long"}
	errCoding        = &Error{Status: 501, Text: "Transfer-Encoding is not chunked"}
)

// Bounds of the lists that are looked at element by element, some of them for each line of the head: without these a
// head of 64 KiB could cost a thousand times as much as others. They hold for all lines of a name together; empty
// elements count (RFC 9110 section 5.6.1.2 asks for a reasonable number of them).
const (
	maxOptions  = 32  // elements of Connection, and of TE
	maxListSize = 512 // bytes of these, the spaces between elements included
)

// MaxAnnounced is how many names the Trailer fields of a message may announce: as many as a trailer section may have.
const MaxAnnounced = maxTrailerFields

// A listed is how long the list of all lines of one name is.
type listed struct{ elements, size int }

// add counts another line, and reports whether the list is still within those bounds.
func (l *listed) add(value string, elements, size int) bool {
	l.elements += strings.Count(value, ",") + 1
	l.size += len(value)
	return l.elements <= elements && l.size <= size
}

// fields are the header lines of a message and what they say of its framing.
type fields struct {
	Fields []Field // all lines in order, Host and framing ones included

	options []string // of all Connection lines
	arena   []string // what Values has handed out
}

// Values returns the values of all lines of that name, in any case, in order; nil if there is none. They stay valid
// until the next Parse; the caller does not change them.
func (f *fields) Values(name string) []string {
	start := len(f.arena)
	for i := range f.Fields {
		if equalFold(f.Fields[i].Name, name) {
			f.arena = append(f.arena, f.Fields[i].Value)
		}
	}
	if end := len(f.arena); end > start {
		return f.arena[start:end:end]
	}
	return nil
}

// First is the value of the first line of that name, in any case, and how many such lines there are.
func (f *fields) First(name string) (value string, n int) {
	for i := range f.Fields {
		if equalFold(f.Fields[i].Name, name) {
			if n == 0 {
				value = f.Fields[i].Value
			}
			n++
		}
	}
	return value, n
}

// Named reports whether a Connection field names this field, which then is for the next hop only (RFC 9110 section
// 7.6.1).
func (f *fields) Named(name string) bool {
	for _, option := range f.options {
		if equalFold(option, name) {
			return true
		}
	}
	return false
}

// keptFields is how much of that room is kept at most: a head of thousands of lines leaves none behind.
const keptFields = 128

// reset lets go of the head's strings, and keeps the room for the next one's.
func (f *fields) reset() {
	if cap(f.Fields) > keptFields || cap(f.options) > keptFields || cap(f.arena) > keptFields {
		*f = fields{}
		return
	}
	f.truncate()
}

// truncate clears what was used, so that what lies beyond is always clear.
func (f *fields) truncate() {
	clear(f.Fields)
	clear(f.options)
	clear(f.arena)
	f.Fields, f.options, f.arena = f.Fields[:0], f.options[:0], f.arena[:0]
}

// parse reads the lines of a head from i on, up to its empty line, which has to be the end (RFC 9112 section 5). Line
// is the number of the first. With spaces, those before a colon are left out, as a proxy has to in an answer; in a request
// they are refused (RFC 9112 section 5.1).
func (f *fields) parse(head string, i, line int, spaces bool) error {
	for ; ; line++ {
		start := i
		for i < len(head) && tokenCharacter[head[i]] {
			i++
		}
		if i == len(head) {
			return errUnfinished.at(line)
		}
		name := head[start:i]
		if spaces && name != "" && head[i] != ':' {
			if i = skipSpace(head, i); i == len(head) {
				return errUnfinished.at(line)
			}
		}
		if name == "" || head[i] != ':' {
			if strings.HasPrefix(head[start:], "\r\n") {
				if start+2 != len(head) {
					return errBehind.at(line)
				}
				return nil
			}
			return nameError(head[start:], head[start:i]).at(line)
		}
		i = skipSpace(head, i+1)
		start = i
		end, fault := lineEnd(head, i)
		if fault != nil {
			return fault.at(line)
		}
		i = end + 2
		for end > start && (head[end-1] == ' ' || head[end-1] == '\t') {
			end--
		}
		f.Fields = append(f.Fields, Field{Name: name, Value: head[start:end]})
	}
}

// skipSpace is where in s, from i on, something else than spaces and tabs stands; len(s) if nothing does.
func skipSpace(s string, i int) int {
	for i < len(s) && (s[i] == ' ' || s[i] == '\t') {
		i++
	}
	return i
}

// nameError says what is wrong with a line that begins with that name and not with a colon behind it.
func nameError(line, name string) *Error {
	switch c := line[len(name)]; {
	case name == "" && (c == ' ' || c == '\t'):
		return errFold
	case name == "" && c == ':':
		return errNoFieldName
	case c == ' ' || c == '\t':
		return errSpaceColon
	case c == '\r' && strings.HasPrefix(line[len(name):], "\r\n"):
		return errNoColon
	case c == '\r':
		return errBareCR
	case c == '\n':
		return errBareLF
	}
	return errFieldName
}

// A summary is what the fields say that frame the message or end its connection.
type summary struct {
	hosts   int
	host    string
	length  int64 // of Content-Length, InChunks, or Unstated
	expects int
	expect  string
	upgrade bool // an Upgrade field, and the option in Connection
	close   bool // RFC 9112 section 9.3
}

// summarize looks at each line once. A length that two readers could take for different ones is refused (RFC 9112
// section 6.3, and its section 11.2: request smuggling): what is right in only some eyes is wrong here.
func (f *fields) summarize(minor int) (s summary, err error) {
	lengths, codings, upgrades := 0, 0, false
	var options, te, trailers listed
	s.length = Unstated
	for i := range f.Fields {
		name, value := f.Fields[i].Name, f.Fields[i].Value
		line := i + 2
		switch len(name) {
		case len("te"):
			if equalFold(name, "te") && !te.add(value, maxOptions, maxListSize) {
				return s, errListed.at(line)
			}
		case len("host"):
			if equalFold(name, "host") {
				s.host = value
				s.hosts++
			}
		case len("expect"):
			if equalFold(name, "expect") {
				s.expect = value
				s.expects++
			}
		case len("upgrade"):
			switch {
			case equalFold(name, "upgrade"):
				upgrades = true
			case !equalFold(name, "trailer"):
			case !trailers.add(value, MaxAnnounced, MaxTrailer):
				return s, errListed.at(line)
			case announcesFraming(value):
				return s, errTrailerFrames.at(line)
			}
		case len("connection"):
			if equalFold(name, "connection") {
				if !options.add(value, maxOptions, maxListSize) {
					return s, errListed.at(line)
				}
				f.options = appendList(f.options, value)
			}
		case len("content-length"):
			if equalFold(name, "content-length") {
				if lengths++; lengths > 1 {
					return s, errTwoLengths.at(line)
				}
				n, fault := parseLength(value)
				if fault == nil && codings > 0 {
					fault = errBoth
				}
				if fault != nil {
					return s, fault.at(line)
				}
				s.length = n
			}
		case len("transfer-encoding"):
			if equalFold(name, "transfer-encoding") {
				switch codings++; {
				case lengths > 0:
					return s, errBoth.at(line)
				case codings > 1:
					return s, errTwoCodings.at(line)
				case minor == 0:
					return s, errOldCoding.at(line)
				case !equalFold(value, "chunked"):
					err = errCoding.at(line) // unless something is worse
				}
				s.length = InChunks
			}
		}
	}
	s.upgrade = upgrades && minor > 0 && f.Named("upgrade")
	s.close = f.Named("close") || minor == 0 && !f.Named("keep-alive")
	return s, err
}

// parseLength is 1*DIGIT. A leading zero is refused: some readers would take the number for an octal one.
func parseLength(s string) (n int64, err *Error) {
	if s == "" || len(s) > 1 && s[0] == '0' {
		return 0, errLength
	}
	for i := range len(s) {
		d := int64(s[i]) - '0'
		if d < 0 || d > 9 {
			return 0, errLength
		}
		if n > (math.MaxInt64-d)/10 {
			return 0, errLengthTooBig
		}
		n = n*10 + d
	}
	return n, nil
}

// appendList appends the elements of a list, RFC 9110 section 5.6.1.
func appendList(list []string, value string) []string {
	for more := true; more; {
		var element string
		element, value, more = strings.Cut(value, ",")
		if element = strings.Trim(element, " \t"); element != "" {
			list = append(list, element)
		}
	}
	return list
}

// announcesFraming reports whether a Trailer field names what must not stand in a trailer section (RFC 9110 section
// 6.5.1) and would change what the message is.
func announcesFraming(value string) bool {
	for name := range strings.SplitSeq(value, ",") {
		switch name = strings.Trim(name, " \t"); {
		case equalFold(name, "content-length"), equalFold(name, "transfer-encoding"), equalFold(name, "trailer"):
			return true
		}
	}
	return false
}

// Size is how many bytes lines take in HTTP/1.1, whatever carried them.
func Size(lines []Field) (n int) {
	for i := range lines {
		n += len(lines[i].Name) + len(lines[i].Value) + len(": \r\n")
	}
	return n
}

// AppendNumber appends a header line of a number to b.
func AppendNumber(b []byte, name string, n int64) []byte {
	b = append(b, name...)
	b = append(b, ": "...)
	b = strconv.AppendInt(b, n, 10)
	return append(b, "\r\n"...)
}

// AppendField appends a header line to b.
func AppendField(b []byte, name, value string) []byte {
	b = append(b, name...)
	b = append(b, ": "...)
	b = append(b, value...)
	return append(b, "\r\n"...)
}
