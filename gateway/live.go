package gateway

import (
	"errors"
	"mime"
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
	gateway  *Gateway
	socket   *socket
	exchange *Exchange     // as it is until unbind has returned
	breakOff func()        // breaks both sides of the call off
	done     chan struct{} // closed when the call is over
	gone     chan struct{} // closed when nobody watches any more
	endless  atomic.Bool   // the call is broken off at once
	broken   atomic.Bool
}

// newWatch is the watch of a call that a certificate let in; nil for others. It watches from follow on.
func newWatch(g *Gateway, s *socket, x *Exchange, breakOff func()) *watch {
	if x.evidence.Certificate != policy.Good {
		return nil
	}
	return &watch{gateway: g, socket: s, exchange: x, breakOff: breakOff, done: make(chan struct{})}
}

// follow watches the call from now on.
func (w *watch) follow(endless bool) {
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
	go func() {
		defer close(w.gone)
		if w.outlivesItsRight() {
			w.broken.Store(true)
			w.breakOff()
		}
	}()
}

// unbind ends the watch, and waits for its end.
func (w *watch) unbind() {
	if w == nil {
		return
	}
	close(w.done)
	if w.gone != nil {
		<-w.gone
	}
}

// brokenOff tells whether the call was ended by its watch.
func (w *watch) brokenOff() bool { return w != nil && w.broken.Load() }

// outlivesItsRight waits until the call is to be broken off, or is over.
func (w *watch) outlivesItsRight() bool {
	g, s := w.gateway, w.exchange.Snapshot
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
		problem := w.stillAdmitted(s)
		if problem == nil {
			last = time.Time{}
			continue
		}
		if last.IsZero() {
			last = time.Now().Add(g.cfg.DrainTimeout)
			tick.Reset(min(recheck, g.cfg.DrainTimeout, time.Second))
		}
		if w.endless.Load() || !time.Now().Before(last) {
			g.log.Info("a stream is broken off: the certificate that let it in has lost its right", "id", w.exchange.ID, "problem", problem)
			return true
		}
	}
}

// stillAdmitted judges the call's certificate like that of a new call, by the snapshot and the time that are now. A token
// that was looked at is not looked at again.
func (w *watch) stillAdmitted(s *Snapshot) error {
	was := w.exchange
	x := Exchange{
		Request: was.Request, ID: was.ID, Peer: was.Peer, Started: was.Started, Listener: s.listener(w.socket), Snapshot: s, conn: was.conn,
		Claims: was.Claims, evidence: policy.Evidence{Token: was.evidence.Token},
	}
	g := w.gateway
	for _, judge := range []func(*Exchange) error{g.identify, g.match, g.authorize} {
		if err := judge(&x); err != nil { // ErrWait, too: without the certificate there would have to be a token
			return err
		}
	}
	switch before, now := was.Client, x.Client; {
	case x.Route.API != was.Route.API:
		return errOtherRight
	case x.Resource.Security.Open || before == nil:
		return nil
	case now == nil || now.Alias != before.Alias || now.KeyType != before.KeyType:
		return errOtherRight
	}
	return nil
}

var errOtherRight = errors.New("the call would now be another caller's, or another API's")

// endless tells whether a body of that type is a stream by its nature, which has no end but the callers' wish.
func endless(contentType string) bool {
	kind, _, _ := mime.ParseMediaType(contentType)
	return kind == "text/event-stream" || kind == "application/grpc" || strings.HasPrefix(kind, "application/grpc+")
}
