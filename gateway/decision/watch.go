package decision

import (
	"errors"
	"mime"
	"strings"
	"sync/atomic"
	"time"

	"sallyport/gateway/http1"
	"sallyport/policy"
)

// A watch ends a call whose end nobody knows when the right of the certificate that let it in has ended: an upgraded
// connection, an event stream or gRPC at once, any other body of unknown length after Options.Drain. All other calls
// finish on the snapshot they began with. It waits for the next snapshot and takes no lock.
type watch struct {
	exchange *Exchange     // as it is until Over has returned
	done     chan struct{} // closed when the call is over
	gone     chan struct{} // closed when nobody watches any more
	over     bool          // done is closed
	endless  atomic.Bool   // the call is broken off at once
	broken   atomic.Bool
}

// Streams implements backend.Request: from now on the call is watched, if a certificate let it in and nobody knows the
// end of the body.
func (x *Exchange) Streams(answer *http1.Response) {
	kind, length := "", int64(-1)
	if answer == nil {
		if v := x.Request.Values("Content-Type"); len(v) > 0 {
			kind = v[0]
		}
	} else {
		kind, _ = answer.First("Content-Type")
		length = answer.Length
	}
	if endless := endless(kind); endless || length < 0 {
		x.Watch(endless)
	}
}

// Watch has the call broken off when the right that let it in has ended: at once if it is endless.
func (x *Exchange) Watch(endless bool) {
	if x.evidence.Certificate != policy.Good {
		return
	}
	if x.watch == nil {
		x.watch = &watch{exchange: x, done: make(chan struct{})}
	}
	x.watch.follow(endless)
}

// follow watches the call from now on.
func (w *watch) follow(endless bool) {
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
			w.exchange.BreakOff()
		}
	}()
}

// Over ends the watch over the call: from now on nobody calls BreakOff. A carrier calls it before it lets go of the
// call's connections, once or more.
func (x *Exchange) Over() {
	w := x.watch
	if w == nil || w.over {
		return
	}
	w.over = true
	close(w.done)
	<-w.gone
}

// brokenOff reports whether the call was ended by its watch.
func (w *watch) brokenOff() bool { return w != nil && w.broken.Load() }

// outlivesItsRight waits until the call is to be broken off, or is over.
func (w *watch) outlivesItsRight() bool {
	d, s := w.exchange.decider, w.exchange.Snapshot
	recheck := d.cfg.Recheck // certificates expire without a swap
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
		s = d.snapshot.Load()
		problem := w.stillAdmitted(s)
		if problem == nil {
			last = time.Time{}
			continue
		}
		if last.IsZero() {
			last = time.Now().Add(d.cfg.Drain)
			tick.Reset(min(recheck, d.cfg.Drain, time.Second))
		}
		if w.endless.Load() || !time.Now().Before(last) {
			d.cfg.Log.Info("a stream is broken off: the certificate that let it in has lost its right", "id", w.exchange.ID, "problem", problem)
			return true
		}
	}
}

// stillAdmitted judges the call's certificate like that of a new call, by the snapshot and the time that are now. A
// token that was looked at is not looked at again.
func (w *watch) stillAdmitted(s *Snapshot) error {
	was := w.exchange
	x := Exchange{
		Request: was.Request, ID: was.ID, Peer: was.Peer, Started: was.Started, Listener: s.listener(was.connection.Endpoint), Snapshot: s,
		Claims: was.Claims, decider: was.decider, connection: was.connection, evidence: policy.Evidence{Token: was.evidence.Token},
	}
	for _, judge := range []func(*Exchange) error{identify, match, authorize} {
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

// endless reports whether a body of that type is a stream by its nature, which has no end but the callers' wish.
func endless(contentType string) bool {
	kind, _, _ := mime.ParseMediaType(contentType)
	return kind == "text/event-stream" || kind == "application/grpc" || strings.HasPrefix(kind, "application/grpc+")
}
