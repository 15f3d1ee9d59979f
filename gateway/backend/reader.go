package backend

import (
	"fmt"
	"io"
	"strings"
	"unsafe"

	"sallyport/gateway/http1"
	"sallyport/gateway/message"
	"sallyport/gateway/wire"
)

// Bounds of an answer.
const (
	MaxHead  = wire.LargeSize // bytes of a head: of HTTP/1.1 as sent, of HTTP/2 as it would be in HTTP/1.1
	maxHeads = 17             // heads of an answer: those of interim answers, and its own
)

// An Event is what a Reader has found.
type Event uint8

const (
	More    Event = iota // nothing without further bytes
	Interim              // Response is an interim answer, other than 100
	Head                 // Response is the head of the answer
	Data                 // a part of its body
	End                  // the answer is over
)

// A Reader reads an answer without I/O: it is fed bytes and returns events, always in the order Interim…, Head, Data…,
// End. The zero value needs Begin.
type Reader struct {
	Response http1.Response // from Interim or Head on

	method  string
	upgrade string // the protocol that the answer may switch to; "": none
	lasting bool   // strings of Response outlive the call
	state   readerState
	seen    int    // bytes of the head that were looked at
	heads   int    // read so far
	ended   bool   // an interim answer ends the connection with the answer
	text    []byte // memory of heads that do not last
	left    int64  // Response.Length, less what has come
	chunks  http1.Chunked
}

type readerState uint8

const (
	readingHead readerState = iota
	readingBody
	readDone
)

// Begin prepares for the answer to a request with that method. upgrade names the protocol that the request asks for, if
// any. Strings of a Response that is not lasting are valid until the next Begin only, which saves an allocation a call.
func (r *Reader) Begin(method, upgrade string, lasting bool) {
	r.method, r.upgrade, r.lasting = method, upgrade, lasting
	r.state, r.seen, r.heads, r.ended = readingHead, 0, 0, false
}

// Reset lets go of the answer.
func (r *Reader) Reset() {
	r.Response.Reset()
	r.chunks.Reset()
	r.method, r.upgrade, r.state, r.left = "", "", readingHead, 0
	if cap(r.text) > wire.SmallSize {
		r.text = nil
	}
}

// Next looks at the bytes that have come and were not used. It returns what it found and how many bytes of p that used
// up. Data is a part of p, which Next may change to leave chunk sizes out of it. An error is an ErrBadAnswer.
func (r *Reader) Next(p []byte) (found Event, data []byte, used int, err error) {
	switch r.state {
	case readingHead:
		found, used, err = r.head(p)
		return found, nil, used, asBadAnswer(err)
	case readingBody:
		if data, used, err = r.body(p); err != nil {
			return More, data, used, asBadAnswer(err)
		}
		switch {
		case len(data) > 0:
			return Data, data, used, nil
		case r.state == readDone:
			return End, nil, used, nil
		}
		return More, nil, used, nil
	}
	return End, nil, 0, nil
}

// Closed returns what it means that the connection has ended with err: io.EOF if that ends the answer, else an error.
func (r *Reader) Closed(err error) error {
	problem := errCut
	switch {
	case r.state == readingHead && r.heads == 0 && r.seen == 0:
		problem = errNoAnswer
	case r.state == readDone, r.state == readingBody && r.left == http1.UntilClose && err == io.EOF:
		r.state = readDone
		return io.EOF
	}
	return fmt.Errorf("%w: %w", problem, err)
}

// Over reports whether the answer has been read whole.
func (r *Reader) Over() bool { return r.state == readDone }

func (r *Reader) head(p []byte) (Event, int, error) {
	for used := 0; ; {
		n, err := http1.HeadEnd(p[used:], r.seen)
		if err != nil {
			return More, used, err
		}
		switch {
		case n > MaxHead || n == 0 && len(p)-used >= MaxHead: // however much of it comes at once
			return More, used, errHead
		case n == 0:
			r.seen = len(p) - used
			return More, used, nil
		}
		r.seen = 0
		r.heads++
		if err := r.Response.Parse(r.keep(p[used:used+n]), r.method); err != nil {
			return More, used, err
		}
		used += n
		r.ended = r.ended || r.Response.Close
		switch status := r.Response.Status; {
		case status < 200 && status != 101 && r.heads >= maxHeads:
			return More, used, errInterim
		case status == 100:
			continue // the client has its own from us
		case status == 101 && !r.switched():
			return More, used, errSwitched
		case status < 200 && status != 101:
			return Interim, used, nil
		}
		r.Response.Close = r.ended
		r.beginBody()
		return Head, used, nil
	}
}

// switched reports whether the answer switches to the protocol that was asked for (RFC 9110 section 7.8).
func (r *Reader) switched() bool {
	to, n := r.Response.First("Upgrade")
	return r.upgrade != "" && n == 1 && strings.EqualFold(to, r.upgrade)
}

// keep makes a head a string.
func (r *Reader) keep(head []byte) string {
	if r.lasting {
		return string(head)
	}
	r.text = append(r.text[:0], head...)
	return unsafe.String(unsafe.SliceData(r.text), len(r.text))
}

func (r *Reader) beginBody() {
	r.left = r.Response.Length
	r.chunks.Reset()
	r.state = readingBody
	if r.left == 0 {
		r.state = readDone
	}
}

// body takes what is there of the body, the data of all chunks one behind the other.
func (r *Reader) body(p []byte) (data []byte, used int, err error) {
	switch {
	case r.left == http1.UntilClose:
		return p, len(p), nil
	case r.left >= 0:
		data = p[:min(r.left, int64(len(p)))]
		if r.left -= int64(len(data)); r.left == 0 {
			r.state = readDone
		}
		return data, len(data), nil
	}
	n, over := 0, false
	for used < len(p) && !over && err == nil {
		var one []byte
		var k int
		one, k, over, err = r.chunks.Next(p[used:])
		if n == 0 {
			data, n = one, len(one) // nothing to move
		} else {
			data = append(data, one...) // within p: what it overwrites has been used
		}
		used += k
	}
	if over {
		r.state = readDone
	}
	return data, used, err
}

// Whole reports whether p is a final answer from its first byte to its last. If so the head is read: the next events
// are those behind Head, and used is its length. If not, the Reader is as it was.
func (r *Reader) Whole(p []byte) (used int, whole bool) {
	if r.state != readingHead || r.heads > 0 {
		return 0, false
	}
	n, err := http1.HeadEnd(p, 0)
	if n == 0 || n > MaxHead || err != nil || r.Response.Parse(r.keep(p[:n]), r.method) != nil || r.Response.Status < 200 || !wholeBody(r.Response.Length, p[n:]) {
		return 0, false
	}
	r.heads = 1
	r.beginBody()
	return n, true
}

func wholeBody(length int64, p []byte) bool {
	switch length {
	case http1.UntilClose:
		return false
	case http1.InChunks:
	default:
		return int64(len(p)) == length
	}
	var chunks http1.Chunked
	for len(p) > 0 {
		_, used, done, err := chunks.Next(p)
		if p = p[used:]; done || err != nil {
			return err == nil && len(p) == 0
		}
	}
	return false
}

// Announced are the trailer fields that the answer announces and that may be passed on.
func (r *Reader) Announced() []string {
	if r.Response.Length != http1.InChunks {
		return nil
	}
	return announced(r.Response.Values("Trailer"), message.MayTrail)
}

// announced are the names in lists of trailer fields that may be passed on.
func announced(lists []string, may func(name string) bool) (names []string) {
	for _, list := range lists {
		for name := range strings.SplitSeq(list, ",") {
			if name = strings.Trim(name, " \t"); may(name) {
				names = append(names, name)
			}
		}
	}
	return names
}

// Trailers are the trailer fields of an answer that is over, as far as they may be passed on.
func (r *Reader) Trailers() []http1.Field { return mayTrail(r.chunks.Trailer(), message.MayTrail) }

func mayTrail(fields []http1.Field, may func(name string) bool) []http1.Field {
	var kept []http1.Field // a list of its own: the other one is read again
	for _, f := range fields {
		if may(f.Name) {
			kept = append(kept, f)
		}
	}
	return kept
}
