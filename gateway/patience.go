package gateway

import (
	"net/http"
	"sync"
	"time"

	"sallyport/gateway/wire"
	"sallyport/internal/contain"
)

// A patience gives up on a client that keeps a read or a write waiting for longer than the Pace allows. A deadline for
// each would do the same, but over HTTP/2 setting one costs two trips through the connection's goroutine, and it ends
// the stream even if nobody waits any more.
type patience struct {
	wire.Pace
	client http.ResponseWriter                             // of what waits
	giveUp func(*http.ResponseController, time.Time) error // sets its deadline
	faults *contain.Faults
	began  time.Time // of the wait

	mu    sync.Mutex
	timer *time.Timer
	due   time.Time // when the wait has to be over; zero: nothing waits
}

// forReads and forWrites are what a patience gives up.
var (
	forReads  = (*http.ResponseController).SetReadDeadline
	forWrites = (*http.ResponseController).SetWriteDeadline
)

// begin begins a wait. The client is set before, unless any Pace will do.
func (p *patience) begin() {
	if p.Rate == 0 {
		return
	}
	p.began = time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.due = p.Due(p.began); p.due.IsZero() { // it is free
		return
	}
	if left := time.Until(p.due); p.timer == nil {
		p.timer = time.AfterFunc(left, p.expire)
	} else {
		p.timer.Reset(left)
	}
}

// end ends the wait, and reports whether it has taken too long. From now on the client is left alone.
func (p *patience) end() (late bool) {
	if p.Rate == 0 {
		return false
	}
	p.Waited(time.Since(p.began))
	p.mu.Lock()
	defer p.mu.Unlock()
	late = p.over()
	p.stop()
	p.due = time.Time{}
	return late
}

// Free has any wait do, the one under way too. Anyone may call it.
func (p *patience) Free() {
	p.Pace.Free()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.due = time.Time{}
	p.stop()
}

func (p *patience) stop() {
	if p.timer != nil {
		p.timer.Stop()
	}
}

// over reports whether a wait has taken too long and has not ended.
func (p *patience) over() bool { return !p.due.IsZero() && !time.Now().Before(p.due) }

func (p *patience) expire() {
	defer p.faults.Catch("giving up on a client", nil)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over() { // or the timer was one of an earlier wait
		_ = p.giveUp(http.NewResponseController(p.client), longAgo)
	}
}

// longAgo is a deadline that has passed.
var longAgo = time.Unix(1, 0)
