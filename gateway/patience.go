package gateway

import (
	"net/http"
	"sync"
	"time"
)

// A patience gives up on a client that keeps a read or a write waiting for too long. A deadline for each would do the
// same, but over HTTP/2 setting one costs two trips through the connection's goroutine, and it ends the stream even if
// nobody waits any more. The zero value is ready, and so is one after release.
type patience struct {
	mu     sync.Mutex
	timer  *time.Timer
	client http.ResponseWriter                             // of what waits, or has waited
	giveUp func(*http.ResponseController, time.Time) error // sets its deadline
	due    time.Time                                       // when the wait has to be over; zero: nothing waits
}

// forReads and forWrites are what a patience gives up.
var (
	forReads  = (*http.ResponseController).SetReadDeadline
	forWrites = (*http.ResponseController).SetWriteDeadline
)

// begin begins a wait.
func (p *patience) begin(until time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.client == nil {
		return
	}
	p.due = until
	if left := time.Until(until); p.timer == nil {
		p.timer = time.AfterFunc(left, p.expire)
	} else {
		p.timer.Reset(left)
	}
}

// end ends the wait.
func (p *patience) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stop()
}

func (p *patience) stop() {
	p.due = time.Time{}
	if p.timer != nil {
		p.timer.Stop()
	}
}

// over reports whether a wait has taken too long and has not ended.
func (p *patience) over() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.isOver()
}

func (p *patience) isOver() bool { return !p.due.IsZero() && !time.Now().Before(p.due) }

func (p *patience) expire() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.client != nil && p.isOver() { // or the timer was one of an earlier wait
		_ = p.giveUp(http.NewResponseController(p.client), longAgo)
	}
}

// longAgo is a deadline that has passed.
var longAgo = time.Unix(1, 0)

// hold is whose patience it is from now on.
func (p *patience) hold(client http.ResponseWriter, giveUp func(*http.ResponseController, time.Time) error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.client, p.giveUp = client, giveUp
}

// release ends the hold on the client, whose answer ends.
func (p *patience) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stop()
	p.client = nil
}
