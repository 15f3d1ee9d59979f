package http1

import (
	"io"
	"strconv"
	"time"
)

// never is the bound of a wait that has none.
func never() time.Time { return time.Time{} }

// beginAnswer makes out the head for the client.
func (call *Call) beginAnswer(up *upload, out *[]byte) error {
	c, res := call.Conn, &call.Response
	// A client that still sends what nobody wants could not be told from its next call.
	up.answer()
	call.Last = call.Last || up.ended().IsZero() || c.engine.draining.Load()
	var err error
	if *out, err = c.engine.cfg.Handler.AppendResponse((*out)[:0], call); err != nil {
		return err
	}
	bodyless := call.Request.Method == "HEAD" || res.Status == 204 || res.Status == 304
	inChunks := !bodyless && res.Length < 0 && call.Request.Minor > 0
	switch {
	case res.Status == 204: // RFC 9110 section 8.6: none
	case bodyless:
		if v, n := res.First("Content-Length"); n > 0 {
			*out = appendField(*out, "Content-Length", v)
		}
	case inChunks:
		*out = append(*out, "Transfer-Encoding: chunked\r\n"...)
		*out = call.appendTrailerNames(*out, res.Values("Trailer"), false)
	case res.Length >= 0:
		*out = append(*out, "Content-Length: "...)
		*out = strconv.AppendInt(*out, res.Length, 10)
		*out = append(*out, "\r\n"...)
	}
	if call.Last {
		*out = append(*out, "Connection: close\r\n"...)
	}
	*out = append(*out, "\r\n"...)
	call.Status = res.Status

	call.rest = answerBody{left: res.Length, inChunks: inChunks, done: bodyless || res.Length == 0}
	call.chunks.Reset()
	return nil
}

// relay sends what is in out and all that follows.
func (call *Call) relay(b *backendConn, out *[]byte) error {
	c, a := call.Conn, &call.rest
	for streaming := false; ; {
		if err := call.moveAnswer(b, out); err != nil {
			return err
		}
		if len(*out) > 0 {
			if err := call.send(*out); err != nil {
				return err
			}
			*out = (*out)[:0]
		}
		if a.done {
			return nil
		}
		if !streaming {
			streaming = true
			c.engine.cfg.Handler.Stream(call)
			if a.left < 0 || a.left > smallBuffer {
				b.in.enlarge()
			}
		}
		switch err := call.fill(b, never); {
		case err == nil:
		case err == io.EOF && a.left == UntilClose:
			a.done = true
			if a.inChunks {
				*out = AppendLast(*out, nil)
			}
		case err == errClientGone:
			return err
		default:
			return errCut
		}
	}
}

// An answerBody is where the sending of an answer's body is.
type answerBody struct {
	left     int64 // Response.Length, less what has come
	inChunks bool  // to the client
	done     bool
}

// moveAnswer moves what has come from the backend to out, and sends it where that has no room.
func (call *Call) moveAnswer(b *backendConn, out *[]byte) error {
	a := &call.rest
	for !a.done {
		p := b.in.bytes()
		if len(p) == 0 {
			return nil
		}
		data, used := p, len(p)
		switch {
		case a.left >= 0:
			used = int(min(a.left, int64(len(p))))
			data = p[:used]
			a.left -= int64(used)
			a.done = a.left == 0
		case a.left == InChunks:
			var err error
			if data, used, a.done, err = call.chunks.Next(p); err != nil {
				return err
			}
		}
		call.BytesOut += int64(len(data))
		switch {
		case a.inChunks:
			*out = AppendChunk(*out, data)
		case len(data) <= cap(*out)-len(*out):
			*out = append(*out, data...)
		default:
			n := cap(*out) - len(*out) // so that the first record is full
			if len(*out) > 0 {
				*out = append(*out, data[:n]...)
				if err := call.send(*out); err != nil {
					return err
				}
				*out, data = (*out)[:0], data[n:]
			}
			if err := call.send(data); err != nil {
				return err
			}
		}
		b.in.skip(used)
		if a.done && a.inChunks {
			var trailer []Field
			if a.left == InChunks {
				trailer = call.trailer(call.chunks.Trailer(), false)
			}
			*out = AppendLast(*out, trailer)
		}
	}
	return nil
}

// send writes a part of the answer. A client that takes less than it has to is as good as gone.
func (call *Call) send(p []byte) error {
	c, cfg := call.Conn, &call.Conn.engine.cfg
	call.answering = true
	if cfg.BodyRate == 0 {
		if c.write(p) != nil {
			return errClientGone
		}
		return nil
	}
	began := time.Now()
	_ = c.conn.SetWriteDeadline(began.Add(cfg.BodyGrace + worth(call.BytesOut, cfg.BodyRate) - call.waited))
	err := c.write(p)
	call.waited += time.Since(began)
	if err != nil {
		return errClientGone
	}
	_ = c.conn.SetWriteDeadline(time.Time{})
	return nil
}
