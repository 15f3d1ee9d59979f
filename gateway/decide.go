package gateway

import (
	"context"
	"errors"
	"time"
)

// ErrWait is decide's answer when a stage needs something that is not in memory: call Wait, off any event loop, and
// then decide again.
var ErrWait = errors.New("the decision has to wait")

// decide carries x through the stages and returns nil to forward it, a *Refusal, or ErrWait; after Wait it goes on
// where it stopped. It is pure work on snapshots: it reads no file, no database and no socket, and takes no lock that a
// reload holds.
func (g *Gateway) decide(x *Exchange) error { return g.decideUntil(x, stageForward) }

// decideUntil is decide that stops before a stage.
func (g *Gateway) decideUntil(x *Exchange, end stage) error {
	for ; x.stage < end; x.stage++ {
		var err error
		switch x.stage {
		case stageIdentify:
			err = g.identify(x)
		case stageMatch:
			err = g.match(x)
		case stageAuthorize:
			err = g.authorize(x)
		case stageLimit:
			err = g.limit(x)
		}
		if err != nil {
			if err != ErrWait {
				x.Err = err
			}
			return err
		}
	}
	return nil
}

// Wait does what decide stopped for. It ends with ctx at the latest; the proof it waited for is then not had.
func (x *Exchange) Wait(ctx context.Context) {
	if x.wait != nil {
		x.wait(ctx)
		x.wait, x.now = nil, time.Time{}
	}
}

// at is the time by which the call is judged: the clock is asked once, and again after a wait.
func (x *Exchange) at(g *Gateway) time.Time {
	if x.now.IsZero() {
		x.now = g.now()
	}
	return x.now
}
