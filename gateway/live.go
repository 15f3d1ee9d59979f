package gateway

import (
	"context"
	"errors"
	"mime"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"sallyport/policy"
)

// lastWrite is how long a client may take for what it is still sent when its stream is broken off.
const lastWrite = time.Second

var errRightEnded = errors.New("the right of the certificate ended during the call, which was broken off")

// A watch ends a call whose end nobody knows when the right of the certificate that let it in has ended: an upgraded
// connection, an event stream or gRPC at once, any other body of unknown length after DrainTimeout. All other calls
// finish on the snapshot they began with. It waits for the next snapshot and takes no lock.
type watch struct {
	cancel  context.CancelFunc // breaks the backend's side off
	done    chan struct{}      // closed when the call is over
	gone    chan struct{}      // closed when nobody watches any more
	endless atomic.Bool        // the call is broken off at once
	broken  atomic.Bool
}

// bind lets the call be broken off later. It is for calls that a certificate let in.
func (c *call) bind(out *http.Request) *http.Request {
	if c.evidence.Certificate != policy.Good {
		return out
	}
	ctx, cancel := context.WithCancel(out.Context())
	c.watch = &watch{cancel: cancel, done: make(chan struct{})}
	out = out.WithContext(ctx)
	if out.Body != nil && out.ContentLength < 0 {
		c.follow(endless(out.Header))
	}
	return out
}

// follow watches the call from now on.
func (c *call) follow(endless bool) {
	w := c.watch
	if w == nil {
		return
	}
	if endless {
		w.endless.Store(true)
	}
	if w.gone != nil {
		return
	}
	w.gone = make(chan struct{})
	// Everything that the goroutine reads of the call stays as it is until unbind has returned.
	go func() {
		defer close(w.gone)
		if c.outlivesItsRight() {
			c.breakOff()
		}
	}()
}

// unbind ends the watch, and waits for its end.
func (c *call) unbind() {
	w := c.watch
	if w == nil {
		return
	}
	close(w.done)
	w.cancel()
	if w.gone != nil {
		<-w.gone
	}
	c.w.bounded = c.w.bounded || w.broken.Load() // the deadline that breakOff set
}

// brokenOff tells whether the call was ended by its watch.
func (c *call) brokenOff() bool { return c.watch != nil && c.watch.broken.Load() }

// outlivesItsRight waits until the call is to be broken off, or is over.
func (c *call) outlivesItsRight() bool {
	g, w, s := c.gateway, c.watch, c.Snapshot
	recheck := g.cfg.timing.recheck // certificates expire without a swap
	tick := time.NewTicker(recheck)
	defer tick.Stop()
	var last time.Time // when a call that is not endless has to be over; zero: its right has not ended
	for {
		select {
		case <-s.replaced:
		case <-tick.C:
		case <-w.done:
			return false
		}
		s = g.snapshot.Load()
		problem := c.stillAdmitted(s)
		if problem == nil {
			last = time.Time{}
			continue
		}
		if last.IsZero() {
			last = time.Now().Add(g.cfg.DrainTimeout)
			tick.Reset(min(recheck, g.cfg.DrainTimeout, time.Second))
		}
		if w.endless.Load() || !time.Now().Before(last) {
			g.log.Info("a stream is broken off: the certificate that let it in has lost its right", "id", c.ID, "problem", problem)
			return true
		}
	}
}

// stillAdmitted judges the call's certificate like that of a new call, by the snapshot and the time that are now. A token
// that was looked at is not looked at again.
func (c *call) stillAdmitted(s *Snapshot) error {
	x := Exchange{
		Request: c, ID: c.ID, Peer: c.Peer, Started: c.Started, Listener: s.listener(c.socket), Snapshot: s, conn: c.conn,
		Claims: c.Claims, evidence: policy.Evidence{Token: c.evidence.Token},
	}
	g := c.gateway
	for _, judge := range []func(*Exchange) error{g.identify, g.match, g.authorize} {
		if err := judge(&x); err != nil { // ErrWait, too: without the certificate there would have to be a token
			return err
		}
	}
	switch before, now := c.Client, x.Client; {
	case x.Route.API != c.Route.API:
		return errOtherRight
	case x.Resource.Security.Open || before == nil:
		return nil
	case now == nil || now.Alias != before.Alias || now.KeyType != before.KeyType:
		return errOtherRight
	}
	return nil
}

var errOtherRight = errors.New("the call would now be another caller's, or another API's")

// breakOff ends both sides of the call.
func (c *call) breakOff() {
	c.watch.broken.Store(true)
	c.watch.cancel()
	// A client that takes nothing would hold the call for ever. HTTP/2 has such deadlines for each stream.
	_ = http.NewResponseController(c.w.ResponseWriter).SetWriteDeadline(time.Now().Add(lastWrite))
}

// endless tells whether a body of that type is a stream by its nature, which has no end but the callers' wish.
func endless(h http.Header) bool {
	kind, _, _ := mime.ParseMediaType(h.Get("Content-Type"))
	return kind == "text/event-stream" || kind == "application/grpc" || strings.HasPrefix(kind, "application/grpc+")
}
