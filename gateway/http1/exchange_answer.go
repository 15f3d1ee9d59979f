package http1

import (
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// receive reads the head of the answer, and passes interim ones on.
func (x *Exchange) receive() error {
	res := &x.Response
	for i := range maxInterim {
		head, err := x.readHead(i == 0)
		if err == nil {
			err = res.Parse(head, x.Method)
		}
		switch {
		case err != nil:
			return err
		case res.Upgrade:
			return errSwitched
		case res.Status >= 200:
			x.beginBody()
			return nil
		case res.Status == 100 || x.Interim == nil:
			continue // nobody here has asked for 100
		}
		if err := x.Interim(res); err != nil {
			return err
		}
	}
	return errInterim
}

// readHead reads the next head.
func (x *Exchange) readHead(first bool) (string, error) {
	seen := 0
	for {
		p := x.in.bytes()
		if len(p) > 0 {
			n, err := HeadEnd(p, seen)
			if err != nil {
				return "", err
			}
			if n > 0 {
				x.in.skip(n)
				return string(p[:n]), nil
			}
			seen = len(p)
		}
		if len(x.in.room()) == 0 {
			if len(p) >= largeBuffer {
				return "", errAnswerHead
			}
			x.in.enlarge()
		}
		if err := x.fill(); err != nil {
			var timeout net.Error
			if first && len(p) == 0 && !(errors.As(err, &timeout) && timeout.Timeout()) {
				err = fmt.Errorf("%w: %w", errNoAnswer, err)
			}
			return "", err
		}
	}
}

// beginBody begins the answer's body. An answer without one is over.
func (x *Exchange) beginBody() {
	x.mu.Lock()
	x.waiting, x.due = false, time.Time{}
	x.mu.Unlock()
	x.left = x.Response.Length
	x.chunks.Reset()
	if x.left == 0 {
		x.over(true, io.EOF)
	}
}

// over ends the exchange, for the reason that Next gives from now on.
func (x *Exchange) over(whole bool, err error) {
	x.end(whole)
	x.err = err
}

// Ready tells whether Next returns without waiting for the backend.
func (x *Exchange) Ready() bool { return x.err != nil || len(x.in.bytes()) > 0 }

// Next returns the next part of the answer's body, which is the caller's until the next call. It ends with io.EOF, which may
// come together with the last part, or with another error if it came to no end.
func (x *Exchange) Next() ([]byte, error) {
	for x.err == nil {
		var err error
		if len(x.in.bytes()) == 0 {
			if x.left < 0 || x.left > smallBuffer {
				x.in.enlarge()
			}
			err = x.fill()
		}
		data, over, fault := x.decode()
		switch {
		case fault != nil:
			x.err = x.fail(fault)
		case over || err == io.EOF && x.left == UntilClose:
			x.over(true, io.EOF)
		case err != nil:
			x.err = x.fail(err)
		}
		if len(data) > 0 {
			return data, x.err
		}
	}
	return nil, x.err
}

// decode takes what is there of the body. It tells whether that was the last of it.
func (x *Exchange) decode() (data []byte, over bool, err error) {
	p := x.in.bytes()
	switch {
	case x.left == UntilClose:
		x.in.skip(len(p))
		return p, false, nil
	case x.left >= 0:
		data = p[:min(x.left, int64(len(p)))]
		x.in.skip(len(data))
		x.left -= int64(len(data))
		return data, x.left == 0, nil
	}
	n := 0
	for rest := p; len(rest) > 0 && !over; { // the data of all chunks, one behind the other
		var one []byte
		var used int
		if one, used, over, err = x.chunks.Next(rest); err != nil {
			break
		}
		n += copy(p[n:], one)
		rest = rest[used:]
		x.in.skip(used)
	}
	return p[:n], over, err
}

// Trailers are the trailer fields of an answer that has ended. They stay valid until Close.
func (x *Exchange) Trailers() []Field { return x.chunks.Trailer() }

// Forget leaves the last part that Next returned to the collector: somebody may read it still.
func (x *Exchange) Forget() { x.in = window{} }
