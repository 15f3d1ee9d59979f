package engine

import (
	"sync/atomic"
	"time"

	"sallyport/gateway/wire"
)

// PipeBrokenOff is one way of a tunnel that was broken off, in which nothing has to pass for an hour.
func PipeBrokenOff(to, from *wire.Conn) error {
	var broken atomic.Bool
	broken.Store(true)
	t := tunnel{patience: time.Hour, broken: &broken}
	t.passed(time.Now())
	_, err := t.pipe(to, from)
	return err
}

// PanicInLoops has each loop panic once in its next tick.
func (e *Engine) PanicInLoops() {
	left := len(e.loops)
	fault := func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		if left--; left == 0 {
			e.fault.Store(nil)
		}
		panic("in the tick")
	}
	e.fault.Store(&fault)
}

// PanicBesideANewcomer has the only loop panic once, when it was woken for a connection and has not taken it in. It
// returns when the loop waits for that.
func (e *Engine) PanicBesideANewcomer() {
	l, waits := e.loops[0], make(chan struct{})
	defer func() { <-waits }()
	fault := func() {
		e.fault.Store(nil)
		close(waits)
		for woken := false; !woken; woken = l.poller.Woken() {
			_, _ = l.collect()
		}
		panic("beside a newcomer")
	}
	e.fault.Store(&fault)
}
