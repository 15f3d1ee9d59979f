package http1

import (
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"sync/atomic"
	"time"
)

var errBodyLength = errors.New("the request's body is not as long as it is said to be")

// A sender sends the body of an Exchange's request.
type sender struct {
	last  atomic.Bool   // the last write has begun, and won't take long if the backend reads
	over  chan struct{} // closed when nothing more is read or written
	whole atomic.Bool   // all was written
}

// endWait is how long an answer that is over waits for the end of the request, which the backend may have seen before
// the sender returns from writing it.
const endWait = 50 * time.Millisecond

// sentWhole tells whether the whole body was sent.
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

// send sends the body. From when it is whole, the connection may be somebody else's.
func (x *Exchange) send(b *backendConn) {
	s := x.sender
	defer close(s.over)
	if err := contain(func() error { return s.sendBody(x, b) }); err != nil {
		x.mu.Lock()
		x.badInput = err
		x.mu.Unlock()
		b.cut() // nobody waits for an answer any more
	}
	x.await() // if the backend takes no more, it may have answered
}

// A bodyPanic is what a body's Read did instead of returning, and where.
type bodyPanic string

func (p bodyPanic) Error() string { return string(p) }

func contain(read func() error) (err error) {
	defer func() {
		if fault := recover(); fault != nil {
			err = bodyPanic(fmt.Sprintf("%v, in reading the request's body:\n%s", fault, debug.Stack()))
		}
	}()
	return read()
}

// chunkRoom is for what a chunk has besides its data, and the end of a body.
const chunkRoom = 64

// sendBody returns an error if the body cannot be had whole.
func (s *sender) sendBody(x *Exchange, b *backendConn) error {
	memory := &small
	if x.Length < 0 || x.Length > smallBuffer {
		memory = &large
	}
	in, out := memory.get(), memory.get()
	defer memory.put(in)
	defer memory.put(out)
	p, left, inChunks := (*in)[:cap(*in)-chunkRoom], x.Length, x.Length < 0
	for whole := false; !whole; {
		n, err := x.Body.Read(p)
		data, last := p[:n], err == io.EOF
		switch {
		case err != nil && !last:
			return err
		case inChunks:
			*out = AppendChunk((*out)[:0], data)
			if last {
				*out = AppendLast(*out, x.trailer())
			}
			data = *out
		case int64(n) > left || last && int64(n) < left:
			return errBodyLength
		default:
			left -= int64(n)
			last = left == 0
		}
		if last {
			s.last.Store(true)
		}
		if len(data) > 0 && b.write(data) != nil {
			return nil
		}
		whole = last
	}
	s.whole.Store(true)
	return nil
}

// trailer are the trailer fields of a request's body that has ended.
func (x *Exchange) trailer() []Field {
	var list []Field
	for name, values := range x.Trailer {
		for _, v := range values {
			list = append(list, Field{name, v})
		}
	}
	return list
}
