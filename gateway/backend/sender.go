package backend

import (
	"sync/atomic"
	"time"

	"sallyport/gateway/http1"
	"sallyport/gateway/wire"
	"sallyport/internal/contain"
)

// A sender sends the rest of a request's body beside the call: the answer may come before the request has ended.
type sender struct {
	stopped atomic.Bool   // nobody wants more of the body
	last    atomic.Bool   // the last write has begun, and won't take long if the server reads
	whole   atomic.Bool   // everything was written
	over    chan struct{} // closed when nothing more is read or written
}

// endWait is how long an answer that is over waits for the end of the request, which the server may have seen before
// the sender returns from writing it.
const endWait = 50 * time.Millisecond

// sentWhole reports whether the whole body was sent.
func (s *sender) sentWhole() bool {
	if s == nil || s.whole.Load() {
		return true
	}
	if !s.last.Load() {
		return false
	}
	t := time.NewTimer(endWait)
	defer t.Stop()
	select {
	case <-s.over:
	case <-t.C:
	}
	return s.whole.Load()
}

func (t *Trip) startSending() {
	if t.Length == http1.InChunks {
		t.Request.Streams(nil)
	}
	t.sender = &sender{over: make(chan struct{})}
	go t.sender.run(t, t.conn)
}

// stopSending ends the sending of the body, and waits for its end.
func (t *Trip) stopSending() {
	s := t.sender
	if s == nil {
		return
	}
	s.stopped.Store(true)
	select {
	case <-s.over:
	default:
		t.Body.Stop()
		<-s.over
	}
	t.sender = nil
}

// run sends the body. Once it is whole, the connection may be somebody else's.
func (s *sender) run(t *Trip, c *ServerConn) {
	defer close(s.over)
	defer contain.Catch("sending a request's body", func(f *contain.Fault) {
		t.spoilInput(f)
		c.Sever()
	})
	if err := s.send(t, c); err != nil && !s.stopped.Load() {
		t.spoilInput(err)
		c.Sever() // nobody waits for an answer any more
	}
	t.Sent(time.Now()) // if the server takes no more, it may have answered
}

// spoilInput notes why the body cannot be had whole.
func (t *Trip) spoilInput(err error) {
	t.mu.Lock()
	t.badInput = err
	t.mu.Unlock()
}

// send returns an error if the body cannot be had whole.
func (s *sender) send(t *Trip, c *ServerConn) error {
	out := wire.Large.Get()
	defer wire.Large.Put(out)
	for t.sending {
		var data []byte
		err := contain.Do(bodyReading, func() (err error) {
			if data, err = t.next(true); err == nil && t.Length == http1.InChunks {
				*out = t.frame((*out)[:0], data)
				data = *out
			}
			return err
		})
		if err != nil {
			return err
		}
		if !t.sending {
			s.last.Store(true)
		}
		if len(data) == 0 {
			continue
		}
		t.keep(data)
		if c.Send(data) != nil {
			return nil
		}
	}
	s.whole.Store(true)
	return nil
}

// bodyReading is what panics on a goroutine that reads a request's body. Fail panics with the Fault again.
const bodyReading = "reading a request's body"
