package http1

import "strings"

var (
	errStatusLine = bad("the status line is not a version, a status and a reason")
	errStatus     = bad("the status is not a number from 100 to 999")
)

// A Response is the head of a response. It is reused from one call of a connection to the next.
type Response struct {
	Status int // 100 to 999
	Minor  int // of the version: 0 or 1
	Reason string
	fields
	Length  int64 // of the body that follows in bytes, InChunks or UntilClose
	Close   bool  // the connection cannot be used again
	Upgrade bool  // 101: what follows is no HTTP/1
}

// Parse reads a head with its empty line: that of an answer to a request with that method, which is not CONNECT. All
// strings are parts of head. It refuses with an *Error what is malformed and whatever two readers could take for
// different answers; then r holds only what was read before the fault, for logs. It allocates nothing once r has grown.
func (r *Response) Parse(head, method string) error {
	f := r.fields
	f.truncate()
	*r = Response{fields: f}

	end, fault := lineEnd(head, 0)
	if fault == nil {
		fault = r.parseLine(head[:end])
	}
	if fault != nil {
		return fault.at(1)
	}
	if err := r.fields.parse(head, end+2, 2, true); err != nil {
		return err
	}
	s, err := r.summarize(r.Minor)
	if err != nil {
		return err
	}
	r.Close, r.Upgrade = s.close, r.Status == 101
	switch { // RFC 9112 section 6.3
	case r.Status < 200 || r.Status == 204:
		// It ends with its head. One that states a body must not, and what its server sends next may be that body: the
		// connection carries nothing after this answer.
		r.Close = r.Close || s.length != Unstated && s.length != 0
	case r.Status == 304 || method == "HEAD":
	case s.length == Unstated:
		r.Length, r.Close = UntilClose, true
	default:
		r.Length = s.length
	}
	return nil
}

// Reset forgets the response, so that its head can be collected, and keeps the room for the next one.
func (r *Response) Reset() {
	f := r.fields
	f.reset()
	*r = Response{fields: f}
}

// parseLine reads version SP status, and SP reason, of which many servers leave out the space if the reason is empty
// (RFC 9112 section 4).
func (r *Response) parseLine(line string) *Error {
	version, rest, ok := strings.Cut(line, " ")
	minor, err := parseVersion(version)
	switch {
	case err != nil:
		return err
	case !ok || len(rest) < 3 || len(rest) > 3 && rest[3] != ' ':
		return errStatusLine
	case !digit(rest[0]) || !digit(rest[1]) || !digit(rest[2]) || rest[0] == '0':
		return errStatus
	}
	r.Minor = minor
	r.Status = int(rest[0]-'0')*100 + int(rest[1]-'0')*10 + int(rest[2]-'0')
	r.Reason = rest[min(4, len(rest)):]
	return nil
}
