package http1

import (
	"strings"

	"sallyport/gateway/message"
)

var (
	errRequestLine = bad("the request line is not a method, a target and a version")
	errMethod      = bad("the method is no token")
	errTarget      = bad("the request target is malformed")
	errVersion     = bad("the version is malformed")
	errNoHost      = bad("no Host")
	errTwoHosts    = bad("more than one Host")
	errHost        = bad("Host is malformed")
	errOtherHTTP   = &Error{Status: 505, Text: "the version is not HTTP/1"}
	errExpect      = &Error{Status: 417, Text: "an expectation other than 100-continue"}
)

// A Request is the head of a request, whatever carried it: that of HTTP/2 is told in the words of HTTP/1.1. Its strings
// are as they stood on the wire; none is decoded or cleaned. It is reused from one call of a connection to the next.
type Request struct {
	Method  string
	Target  string // origin-form, absolute-form of http and https, authority-form with CONNECT only, "*" with OPTIONS only
	Version string // by which it is read, as RFC 9110 section 7.6.3 writes it: "1.0", "1.1" or "2"
	Minor   int    // of the version: 0 or 1
	Host    string // of the Host field, even if Target has another; "" if none was sent (HTTP/1.0) or it was sent empty
	fields
	Hosts     int   // how many Host fields there are
	Joined    int   // cookies of HTTP/2 that stand in a field with others
	Length    int64 // of the body in bytes, or InChunks
	HasLength bool  // a Content-Length states it
	Close     bool  // the connection ends with this call
	Expect    bool  // 100-continue, in HTTP/1.1, whether or not there is a body to wait for
	Upgrade   bool  // asks for another protocol, in HTTP/1.1
	Problem   error // why there is no request that every reader reads alike, told by whoever read it; nil if there is one
}

// Parse reads a head with its empty line. All strings are parts of head. It refuses with an *Error whatever two readers
// could take for different requests; then r holds only what was read before the fault, for logs. It allocates nothing
// once r has grown.
func (r *Request) Parse(head string) error {
	f := r.fields
	f.truncate()
	*r = Request{fields: f}

	end, fault := lineEnd(head, 0)
	if fault == nil {
		fault = r.parseLine(head[:end])
	}
	if fault != nil {
		return fault.at(1)
	}
	if err := r.fields.parse(head, end+2, 2, false); err != nil {
		return err
	}
	s, err := r.summarize(r.Minor)
	if err != nil {
		return err
	}
	r.Host, r.Hosts, r.Length, r.HasLength = s.host, s.hosts, s.length, s.length >= 0
	r.Close, r.Upgrade = s.close, s.upgrade
	if s.length == Unstated {
		r.Length = 0 // RFC 9112 section 6.3
	}
	switch {
	case s.hosts > 1:
		return errTwoHosts
	case s.hosts == 0 && r.Minor > 0:
		return errNoHost
	case r.Host != "" && !message.ValidAuthority(r.Host):
		return errHost
	case s.expects > 1 || s.expects == 1 && !equalFold(s.expect, "100-continue"):
		return errExpect
	}
	r.Expect = s.expects == 1 && r.Minor > 0
	return nil
}

// CopyTo makes to the same request, with memory of its own, for a reader who may read it while others read r: even
// Values writes. r must not be parsed or reset meanwhile.
func (r *Request) CopyTo(to *Request) {
	f := to.fields
	f.reset()
	f.Fields, f.options = append(f.Fields, r.Fields...), append(f.options, r.options...)
	*to = Request{
		Method: r.Method, Target: r.Target, Version: r.Version, Minor: r.Minor, Host: r.Host, fields: f,
		Hosts: r.Hosts, Joined: r.Joined, Length: r.Length, HasLength: r.HasLength,
		Close: r.Close, Expect: r.Expect, Upgrade: r.Upgrade, Problem: r.Problem,
	}
}

// Reset forgets the request, so that its head can be collected, and keeps the room for the next one.
func (r *Request) Reset() {
	f := r.fields
	f.reset()
	*r = Request{fields: f}
}

// Authority is the host, and the port if one was named, that the request is for: that of the target if it has one, else
// Host (RFC 9112 section 3.3).
func (r *Request) Authority() string {
	if r.Method == "CONNECT" {
		return r.Target
	}
	if authority, _, ok := cutAbsolute(r.Target); ok {
		return authority
	}
	return r.Host
}

// Lines is how many header lines were sent, without Host and pseudo-headers. Each line of cookies counts; where only
// their sum is known (HTTP/2, RFC 9113 section 8.2.3), each cookie does.
func (r *Request) Lines() int { return len(r.Fields) - r.Hosts + r.Joined }

// Count is how many header lines have a name that match reports true for.
func (r *Request) Count(match func(name string) bool) (n int) {
	for i := range r.Fields {
		if match(r.Fields[i].Name) {
			n++
		}
	}
	return n
}

// parseLine reads method SP target SP version, with nothing more around or between them (RFC 9112 section 3).
func (r *Request) parseLine(line string) *Error {
	i := strings.IndexByte(line, ' ')
	j := strings.LastIndexByte(line, ' ')
	if i == j {
		return errRequestLine // no space, or one
	}
	r.Method, r.Target = line[:i], line[i+1:j]
	version := line[j+1:]
	minor, err := parseVersion(version)
	switch {
	case !message.ValidMethod(r.Method):
		return errMethod
	case err != nil:
		return err
	case !validTarget(r.Method, r.Target):
		return errTarget
	}
	r.Minor, r.Version = minor, "1.1"
	if minor == 0 {
		r.Version = "1.0"
	}
	return nil
}

// parseVersion reads an HTTP-version, RFC 9112 section 2.3. A later HTTP/1 is read as HTTP/1.1 (RFC 9110 section 2.5).
func parseVersion(s string) (minor int, err *Error) {
	switch s {
	case "HTTP/1.1":
		return 1, nil
	case "HTTP/1.0":
		return 0, nil
	}
	if len(s) == len("HTTP/1.1") && s[:5] == "HTTP/" && digit(s[5]) && s[6] == '.' && digit(s[7]) {
		if s[5] == '1' {
			return 1, nil
		}
		return 0, errOtherHTTP
	}
	return 0, errVersion
}

func digit(c byte) bool { return '0' <= c && c <= '9' }

// validTarget reports whether a target is in one of the forms of RFC 9112 section 3.2 that the method can have: visible
// ASCII, in the query also octets from 0x80 up, and each % in the path begins an escape. Which paths are good is message.ParseTarget's matter.
func validTarget(method, target string) bool {
	if method == "CONNECT" {
		return message.ValidAuthority(target)
	}
	if target == "*" {
		return method == "OPTIONS"
	}
	path := target
	if authority, rest, ok := cutAbsolute(target); ok {
		if !message.ValidAuthority(authority) {
			return false
		}
		path = rest
	} else if target == "" || target[0] != '/' {
		return false
	}
	inQuery := false
	for i := 0; i < len(path); i++ {
		switch c := path[i]; {
		case c <= ' ' || c == 0x7f || c > 0x7f && !inQuery:
			return false
		case c == '?':
			inQuery = true
		case c == '%' && !inQuery:
			if _, ok := message.Unescape(path[i:]); !ok {
				return false
			}
		}
	}
	return true
}

// cutAbsolute splits a target in absolute-form into its authority and all that follows it.
func cutAbsolute(target string) (authority, rest string, ok bool) {
	if target == "" || target[0] == '/' {
		return "", "", false
	}
	scheme, rest, ok := strings.Cut(target, "://")
	if !ok || !equalFold(scheme, "http") && !equalFold(scheme, "https") {
		return "", "", false
	}
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		return rest[:i], rest[i:], true
	}
	return rest, "", true
}
