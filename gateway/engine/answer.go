package engine

import (
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"
	"time"

	"sallyport/gateway/backend"
	"sallyport/gateway/http1"
	"sallyport/gateway/wire"
)

// An answer is where the sending of a server's answer is.
type answer struct {
	inChunks bool // its body, to the client
	bodyless bool
	pace     wire.Pace
}

// passInterim passes an interim answer on, unless the client speaks HTTP/1.0, which knows no such thing (RFC 9110
// section 15.2).
func (c *call) passInterim(res *http1.Response) error {
	if c.Head.Minor == 0 {
		return nil
	}
	out := wire.Small.Get()
	defer wire.Small.Put(out)
	*out = appendStatus((*out)[:0], res.Status, res.Reason)
	c.AnswerFields(c.Trip.Server, res, func(name, value string) { *out = http1.AppendField(*out, name, value) })
	*out = append(*out, "\r\n"...)
	return c.client.sendSoon(*out)
}

// appendHead appends the head of the answer.
func (c *call) appendHead(b []byte) []byte {
	e, res, a := c.client.engine, &c.Trip.Response, &c.answer
	// What a client still sends of a body that nobody wants could be mistaken for its next call.
	c.body.answer()
	c.last = c.last || !c.Trip.BodySent() || e.draining.Load()
	c.Status = res.Status

	b = appendStatus(b, res.Status, res.Reason)
	if !c.AnswerFields(c.Trip.Server, res, func(name, value string) { b = http1.AppendField(b, name, value) }) {
		b = e.appendDate(b, c.seen)
	}
	b = c.AppendOwnFields(b)
	*a = answer{bodyless: c.Head.Method == "HEAD" || res.Status == 204 || res.Status == 304}
	a.pace.Begin(c.BodyRate(&e.terms), e.terms.BodyGrace)
	a.inChunks = !a.bodyless && res.Length < 0 && c.Head.Minor > 0
	switch {
	case res.Status == 204: // RFC 9110 section 8.6: none
	case a.bodyless:
		if v, n := res.First("Content-Length"); n > 0 {
			b = http1.AppendField(b, "Content-Length", v)
		}
	case a.inChunks:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
		for _, name := range c.AnnouncedTrailers(&c.Trip) {
			b = http1.AppendField(b, "Trailer", name)
		}
	case res.Length >= 0:
		b = http1.AppendNumber(b, "Content-Length", res.Length)
	}
	if c.last {
		b = append(b, "Connection: close\r\n"...)
	}
	return append(b, "\r\n"...)
}

// appendBody appends a part of the answer's body, and its end if it is the last.
func (c *call) appendBody(b, data []byte, last bool) []byte {
	c.passed(len(data))
	if !c.answer.inChunks {
		return append(b, data...)
	}
	if b = http1.AppendChunk(b, data); last {
		b = http1.AppendLast(b, c.AnswerTrailers(&c.Trip))
	}
	return b
}

// deliver sends the answer, of which the head has come.
func (c *call) deliver() error {
	out := wire.Small.Get()
	defer wire.Small.Put(out)
	*out = c.appendHead((*out)[:0])
	for {
		if !c.Trip.Ready() && len(*out) > 0 { // nothing is kept while more is waited for
			if err := c.send(*out); err != nil {
				return err
			}
			*out = (*out)[:0]
		}
		data, err := c.Trip.Next()
		if err != nil && err != io.EOF {
			return err
		}
		if !c.answer.inChunks && len(data) > cap(*out)-len(*out) {
			if err := c.sendLarge(out, data); err != nil {
				return err
			}
			data = nil
		}
		*out = c.appendBody(*out, data, err == io.EOF)
		if err == io.EOF {
			return c.send(*out)
		}
	}
}

// sendLarge sends out, filled up so that the last record is full, and then the rest of the data as it is.
func (c *call) sendLarge(out *[]byte, data []byte) error {
	if n := cap(*out) - len(*out); len(*out) > 0 {
		*out = c.appendBody(*out, data[:n], false)
		if err := c.send(*out); err != nil {
			return err
		}
		*out, data = (*out)[:0], data[n:]
	}
	c.passed(len(data))
	return c.send(data)
}

// passed counts bytes of the answer's body.
func (c *call) passed(n int) {
	c.BytesOut += int64(n)
	c.answer.pace.Passed(n)
}

// send writes a part of the answer. A client that takes less than it has to is as good as gone.
func (c *call) send(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	c.begun = true
	began := time.Now()
	due := c.answer.pace.Due(began)
	if !due.IsZero() {
		_ = c.client.SetWriteDeadline(due)
	}
	if err := c.client.Send(p); err != nil {
		return c.notTaken(err)
	}
	if !due.IsZero() {
		c.answer.pace.Waited(time.Since(began))
		_ = c.client.SetWriteDeadline(time.Time{})
	}
	return nil
}

// notTaken is why the client was not sent a part of the answer.
func (c *call) notTaken(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) && !c.broken.Load() {
		return backend.ErrNotTaken
	}
	return backend.ErrClientGone
}

// appendRefusal appends the whole answer of a call that was refused or has failed.
func (c *call) appendRefusal(b []byte) []byte {
	r := c.Refusal()
	c.last = c.last || r.EndsConnection()
	c.Err, c.Status = r, r.Status()
	b = appendStatus(b, c.Status, "")
	b, body := c.AppendRefusalFields(b)
	b = c.client.engine.appendDate(b, time.Time{})
	if c.last {
		b = append(b, "Connection: close\r\n"...)
	}
	b = append(b, "\r\n"...)
	if c.Head.Method == http.MethodHead {
		return b
	}
	c.BytesOut = int64(len(body))
	return append(b, body...)
}

func appendStatus(b []byte, status int, reason string) []byte {
	if text := http.StatusText(status); text != "" {
		reason = text
	}
	b = append(b, "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(status), 10)
	b = append(b, ' ')
	b = append(b, reason...)
	return append(b, "\r\n"...)
}

// A dateLine is the Date header line of one second.
type dateLine struct {
	second int64
	text   string
}

// appendDate is for answers that have none yet (RFC 9110 section 6.6.1). seen is a time by the system's clock, or zero.
func (e *Engine) appendDate(b []byte, seen time.Time) []byte {
	now := e.decider.Now(seen)
	line := e.date.Load()
	if line == nil || line.second != now.Unix() {
		line = &dateLine{now.Unix(), "Date: " + now.UTC().Format(http.TimeFormat) + "\r\n"}
		e.date.Store(line)
	}
	return append(b, line.text...)
}
