package load

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
)

// A head holds the parts of an answer's head that the generator needs.
type head struct {
	status  int
	length  int64 // of the body, or chunked or untilEOF
	close   bool  // the connection ends with the answer
	size    int   // bytes of the head itself
	ignored bool  // an interim answer (1xx); the final one follows
}

const (
	chunked  = -1 // the body is chunked
	untilEOF = -2 // the end of the connection ends the body
)

// errShort means that the end of the head has not arrived yet.
var errShort = errors.New("head without end")

var (
	crlf    = []byte("\r\n")
	headEnd = []byte("\r\n\r\n")
)

// parseHead parses the head at the start of b (RFC 9112 §4, §6.3). It is strict: a header that determines the framing
// must occur once, in its plain form.
func parseHead(b []byte) (head, error) {
	end := bytes.Index(b, headEnd)
	if end < 0 {
		return head{}, errShort
	}
	h := head{length: untilEOF, size: end + len(headEnd)}
	line, rest, _ := bytes.Cut(b[:end], crlf)
	// HTTP/1.1 200 OK
	if len(line) < 12 || string(line[:7]) != "HTTP/1." || line[7] != '0' && line[7] != '1' ||
		line[8] != ' ' || len(line) > 12 && line[12] != ' ' {
		return head{}, fmt.Errorf("status line %.40q", line)
	}
	h.close = line[7] == '0'
	for _, digit := range line[9:12] {
		if digit < '0' || digit > '9' {
			return head{}, fmt.Errorf("status line %.40q", line)
		}
		h.status = h.status*10 + int(digit-'0')
	}
	if h.status < 100 {
		return head{}, fmt.Errorf("status %d", h.status)
	}
	lengths, codings := 0, 0
	for len(rest) > 0 {
		line, rest, _ = bytes.Cut(rest, crlf)
		colon := bytes.IndexByte(line, ':')
		if colon <= 0 || line[0] == ' ' || line[0] == '\t' || line[colon-1] == ' ' || line[colon-1] == '\t' {
			return head{}, fmt.Errorf("header line %.40q", line)
		}
		name, value := line[:colon], line[colon+1:]
		switch {
		case len(name) == 14 && bytes.EqualFold(name, []byte("content-length")):
			n, err := strconv.ParseUint(string(bytes.TrimSpace(value)), 10, 62)
			if err != nil {
				return head{}, fmt.Errorf("header line %.40q", line)
			}
			h.length = int64(n)
			lengths++
		case len(name) == 17 && bytes.EqualFold(name, []byte("transfer-encoding")):
			if !bytes.EqualFold(bytes.TrimSpace(value), []byte("chunked")) {
				return head{}, fmt.Errorf("header line %.40q", line)
			}
			h.length = chunked
			codings++
		case len(name) == 10 && bytes.EqualFold(name, []byte("connection")):
			h.close = h.close || bytes.EqualFold(bytes.TrimSpace(value), []byte("close"))
		}
	}
	switch {
	case lengths+codings > 1:
		return head{}, fmt.Errorf("%d Content-Length and %d Transfer-Encoding", lengths, codings)
	case h.status < 200:
		h.ignored = true
		h.length = 0
	case h.status == 204 || h.status == 304:
		h.length = 0
	case h.length == untilEOF:
		h.close = true
	}
	return h, nil
}
