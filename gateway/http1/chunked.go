package http1

import (
	"strconv"

	"golang.org/x/net/http/httpguts"

	"sallyport/gateway/message"
)

// Bounds of what a chunked body may carry besides its data.
const (
	maxExtension     = 1 << 10  // bytes of the extensions of one chunk
	maxExcess        = 16 << 10 // bytes of size lines beyond what their chunks are worth: CVE-2023-39326
	maxTrailerFields = 64
	maxSizeDigits    = 16
	maxChunk         = 1<<60 - 1
)

var (
	errSize          = bad("the chunk size is no hexadecimal number")
	errSizeTooBig    = bad("the chunk size is too big")
	errExtension     = bad("the chunk extensions are too long")
	errExcess        = bad("the chunks have too little data")
	errChunkEnd      = bad("the chunk does not end where its size says")
	errTrailer       = bad("the trailer section is too long")
	errTrailerFields = bad("too many trailer fields")
)

// A Chunked reads a chunked body, RFC 9112 section 7.1, and nothing beyond its end. The zero value is at a body's
// start.
type Chunked struct {
	state  chunkState
	digits uint8 // of the size line
	line   int   // bytes of the size line
	size   int64 // of the chunk so far, then what is left of its data
	excess int64 // bytes of size lines that no data has paid for

	section []byte // of the trailer fields, so far
	trailer []Field
	err     error
}

type chunkState uint8

const (
	inSize chunkState = iota
	inExtension
	sizeLF // behind the CR
	inData
	dataCR
	dataLF
	trailerStart // at the start of a line
	inTrailer
	trailerLF
	lastLF
	ended
)

// Next reads from b and returns the next piece of data, which is a part of b and may be empty, and how many bytes of b
// are used up. The rest of b is for the next call; if nothing is left, Next needs more. The last piece may come
// together with done: then the last chunk and the trailer section have been read whole. An *Error comes without data
// and again with each call that follows.
//
// Extensions are skipped.
func (c *Chunked) Next(b []byte) (data []byte, n int, done bool, err error) {
	if c.err != nil {
		return nil, 0, false, c.err
	}
	for n < len(b) && c.state != ended {
		if c.state == inData {
			if data != nil {
				break
			}
			k := int(min(c.size, int64(len(b)-n)))
			data = b[n : n+k]
			n += k
			if c.size -= int64(k); c.size == 0 {
				c.state = dataCR
			}
			continue
		}
		if err := c.step(b[n]); err != nil {
			if data != nil {
				break // the next call comes to the same byte
			}
			c.err = err
			return nil, n, false, err
		}
		n++
	}
	return data, n, c.state == ended, nil
}

// Trailer are the trailer fields, once the body is done. Names that a trailer should not hold are among them.
func (c *Chunked) Trailer() []Field { return c.trailer }

// Bounds of a trailer section in bytes as HTTP/1.1 writes it, its empty line included.
const (
	MaxTrailer      = 4 << 10  // of one that HTTP/1.1 carries on any part of its way
	MaxTrailerHTTP2 = 16 << 10 // of any other: gRPC's grpc-status-details-bin alone may have 8 KiB
)

// CheckTrailer holds a trailer section that HTTP/2 has carried to the most bytes, which are one of those bounds, and to
// as many lines as a Chunked takes; the error is an *Error.
func CheckTrailer(lines []Field, most int) error {
	switch {
	case Size(lines)+len("\r\n") > most:
		return errTrailer
	case len(lines) > maxTrailerFields:
		return errTrailerFields
	}
	return nil
}

// Reset makes c ready for another body.
func (c *Chunked) Reset() { *c = Chunked{} }

// step takes one byte that is no data. An error changes nothing.
func (c *Chunked) step(b byte) error {
	switch c.state {
	case inSize:
		d, ok := message.HexDigit(b)
		switch {
		case ok && (c.digits == maxSizeDigits || c.size > maxChunk>>4):
			return errSizeTooBig
		case ok:
			c.size = c.size<<4 | int64(d)
			c.digits++
			c.line++
		case c.digits > 0 && b == ';':
			c.line++
			c.state = inExtension
		case c.digits > 0 && b == '\r':
			return c.endSize()
		default:
			return errSize
		}
	case inExtension:
		switch {
		case b == '\r':
			return c.endSize()
		case b == '\n':
			return errBareLF
		case control(b):
			return errControl
		case c.line-int(c.digits) == maxExtension:
			return errExtension
		}
		c.line++
	case sizeLF:
		if b != '\n' {
			return errBareCR
		}
		c.digits, c.line = 0, 0
		c.state = inData
		if c.size == 0 {
			c.state = trailerStart
		}
	case dataCR:
		if b != '\r' {
			return errChunkEnd
		}
		c.state = dataLF
	case dataLF:
		if b != '\n' {
			return errBareCR
		}
		c.state = inSize
	default:
		return c.stepTrailer(b)
	}
	return nil
}

// endSize weighs the size line. Each chunk is worth 16 bytes and twice its data, so that a sender may send byte by byte
// and sign each chunk, but not make us read much for little.
func (c *Chunked) endSize() error {
	excess := max(0, c.excess+int64(c.line)+2-16-2*c.size)
	if excess > maxExcess {
		return errExcess
	}
	c.excess = excess
	c.state = sizeLF
	return nil
}

func (c *Chunked) stepTrailer(b byte) error {
	switch c.state {
	case trailerStart:
		if b == '\r' {
			c.state = lastLF
			return nil
		}
		return c.keep(b)
	case inTrailer:
		if b == '\r' {
			c.state = trailerLF
			return nil
		}
		return c.keep(b)
	case trailerLF:
		if b != '\n' {
			return errBareCR
		}
		c.section = append(c.section, "\r\n"...)
		c.state = trailerStart
	case lastLF:
		if b != '\n' {
			return errBareCR
		}
		if len(c.section) > 0 {
			var f fields
			if err := f.parse(string(c.section)+"\r\n", 0, 1, false); err != nil {
				return err
			}
			if len(f.Fields) > maxTrailerFields {
				return errTrailerFields
			}
			c.trailer, c.section = f.Fields, nil
		}
		c.state = ended
	}
	return nil
}

// keep takes a byte of a trailer line.
func (c *Chunked) keep(b byte) error {
	switch {
	case b == '\n':
		return errBareLF
	case control(b):
		return errControl
	case len(c.section)+len("\r\n\r\n") >= MaxTrailer:
		return errTrailer
	}
	c.section = append(c.section, b)
	c.state = inTrailer
	return nil
}

func control(b byte) bool { return b < ' ' && b != '\t' || b == 0x7f }

// AppendChunk appends data as a chunk to b. No data is no chunk: it would end the body.
func AppendChunk(b, data []byte) []byte {
	if len(data) == 0 {
		return b
	}
	b = strconv.AppendUint(b, uint64(len(data)), 16)
	b = append(b, "\r\n"...)
	b = append(b, data...)
	return append(b, "\r\n"...)
}

// AppendLast appends the last chunk to b, the trailer section and its empty line. What is no field is left out: a line
// break in it would be another field, or another message.
func AppendLast(b []byte, trailer []Field) []byte {
	b = append(b, "0\r\n"...)
	for _, f := range trailer {
		if message.ValidMethod(f.Name) && httpguts.ValidHeaderFieldValue(f.Value) {
			b = AppendField(b, f.Name, f.Value)
		}
	}
	return append(b, "\r\n"...)
}
