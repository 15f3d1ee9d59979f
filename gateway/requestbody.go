package gateway

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpguts"
)

// A body counts what comes from the client, holds it to its limits, and remembers whether it broke. The transport may
// go on reading it for a moment after the answer, so it outlives the call.
type body struct {
	io.ReadCloser
	most   int64         // bytes; 0: any number
	rate   int           // bytes a second; 0: any
	grace  time.Duration // before that counts
	waited time.Duration // for the client
	read   atomic.Int64
	ended  atomic.Bool            // it was read whole
	bad    atomic.Pointer[Reason] // why it cannot be had whole

	in      *http.Request // whose body it is; net/http fills in its trailers at the end
	trailer http.Header   // what the backend gets of them

	patience patience // without a hold if there is no rate, or the connection carries others
}

// takeBody makes the request's body one that is held to its limits.
func (c *call) takeBody() {
	c.body = &body{
		ReadCloser: c.r.Body, most: c.Route.MaxBody, rate: c.gateway.guard.limits.BodyRate, grace: c.gateway.cfg.timing.bodyGrace,
		in: c.r, trailer: trailersFor(c.r, c.Snapshot.Routes.certificateHeader),
	}
	if c.body.rate > 0 {
		c.body.patience.hold(c.w.ResponseWriter, forReads)
	}
}

// leave ends the body's hold on the connection.
func (b *body) leave() { b.patience.release() }

// late tells whether the client keeps a read waiting for longer than it may.
func (b *body) late() bool { return b.patience.over() }

var (
	errClientBody   = errors.New("the client's body could not be had whole")
	errBodyTooLarge = errors.New("the body is larger than maxBodySize")
)

func (b *body) Read(p []byte) (int, error) {
	if b.ended.Load() {
		// The transport asks once more after the end, and takes any other answer for a call that broke. By then the answer
		// may have come, and net/http has closed the body.
		return 0, io.EOF
	}
	began := time.Now()
	if b.rate > 0 {
		b.patience.begin(began.Add(b.grace + worth(b.read.Load(), b.rate) - b.waited))
	}
	n, err := b.ReadCloser.Read(p)
	b.waited += time.Since(began)
	if b.rate > 0 && !errors.Is(err, os.ErrDeadlineExceeded) {
		b.patience.end()
	}
	total := b.read.Add(int64(n))
	switch {
	case b.most > 0 && total > b.most:
		b.fault(BodyTooLarge)
		return 0, errBodyTooLarge
	case err == nil:
	case err == io.EOF:
		for name := range b.trailer {
			b.trailer[name] = b.in.Trailer[name]
		}
		b.ended.Store(true)
	case errors.Is(err, os.ErrDeadlineExceeded):
		b.fault(BodyTooSlow)
	case !errors.Is(err, http.ErrBodyReadAfterClose) && !errors.Is(err, context.Canceled):
		b.fault(BadRequest) // it ended in a way that no backend can be told of
	}
	return n, err
}

func (b *body) fault(r Reason) { b.bad.Store(&r) }

// trailersFor are the trailers that the client has announced and the backend may get, without values yet. They may carry
// nothing that frames, routes or authenticates a call (RFC 9110 section 6.5.1), and no header that is managed.
func trailersFor(in *http.Request, certificateHeader string) http.Header {
	var t http.Header
	for name := range in.Trailer {
		if httpguts.ValidHeaderFieldName(name) && httpguts.ValidTrailerHeader(name) && !isManaged(name, certificateHeader) && !framing[plainName(name)] {
			if t == nil {
				t = http.Header{}
			}
			t[name] = nil
		}
	}
	return t
}
