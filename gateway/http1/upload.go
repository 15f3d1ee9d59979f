package http1

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/gateway/message"
)

// A requestBody is where the reading of a request's body is.
type requestBody struct {
	left     int64 // of one with a length
	chunks   Chunked
	inChunks bool
	done     bool
}

func (b *requestBody) begin(r *Request) {
	b.inChunks = r.Length == InChunks
	b.left = max(r.Length, 0)
	b.done = r.Length == 0
}

// errBody is a body that is malformed, or that ended too early.
var errBody = errors.New("the request's body could not be had whole")

// moveBody appends what has come of the body as it is framed for the backend.
func (call *Call) moveBody(out []byte, in *window) ([]byte, error) {
	b := &call.body
	for !b.done {
		p := in.bytes()
		if len(p) == 0 {
			break
		}
		if !b.inChunks {
			n := int(min(b.left, int64(len(p))))
			out = append(out, p[:n]...)
			in.skip(n)
			call.bytesIn.Add(int64(n))
			b.left -= int64(n)
			b.done = b.left == 0
			continue
		}
		data, n, done, err := b.chunks.Next(p)
		if err != nil {
			return out, fmt.Errorf("%w: %w", errBody, err)
		}
		out = AppendChunk(out, data)
		in.skip(n)
		if total := call.bytesIn.Add(int64(len(data))); call.MaxBody > 0 && total > call.MaxBody {
			return out, errTooLarge
		}
		if done {
			b.done = true
			out = AppendLast(out, call.trailer(b.chunks.Trailer(), true))
		}
	}
	return out, nil
}

// trailer are the trailer fields that may go on.
func (call *Call) trailer(fields []Field, toBackend bool) []Field {
	h := call.Conn.engine.cfg.Handler
	kept := fields[:0]
	for _, f := range fields {
		if h.KeepTrailer(call, f.Name, toBackend) {
			kept = append(kept, f)
		}
	}
	return kept
}

// appendTrailerNames announces the trailer fields that may go on.
func (call *Call) appendTrailerNames(b []byte, lists []string, toBackend bool) []byte {
	for _, list := range lists {
		for name := range strings.SplitSeq(list, ",") {
			name = strings.Trim(name, " \t")
			if message.ValidMethod(name) && call.Conn.engine.cfg.Handler.KeepTrailer(call, name, toBackend) { // both are tokens
				b = appendField(b, "Trailer", name)
			}
		}
	}
	return b
}

// An upload sends what did not come together with the head, while the answer is waited for: it may come before the
// request has ended.
type upload struct {
	err  error         // what was wrong with the body; valid after stop
	over atomic.Int64  // when all of it was sent, in ns since 1970; 0: not yet
	done chan struct{} // closed when it has ended; nil: it never began

	mu       sync.Mutex
	stopped  bool
	answered bool
	conn     *Conn
}

// ended is when the request was sent whole; zero if it was not.
func (u *upload) ended() time.Time {
	if ns := u.over.Load(); ns != 0 {
		return time.Unix(0, ns)
	}
	return time.Time{}
}

// startUpload sends the rest of the body beside the call, unless there is none, or the backend did not even take the head.
func (call *Call) startUpload(b *backendConn, sent error) *upload {
	u := &call.up
	if call.body.done {
		call.sentWhole(time.Now())
		return u
	}
	*u = upload{conn: call.Conn}
	if sent == nil {
		if call.Request.Length == InChunks {
			call.Conn.engine.cfg.Handler.Stream(call)
		}
		u.done = make(chan struct{})
		go u.run(call, b)
	}
	return u
}

// sentWhole is startUpload where there is nothing left to send.
func (call *Call) sentWhole(now time.Time) {
	call.up = upload{conn: call.Conn}
	call.up.over.Store(now.UnixNano())
}

const goOn = "HTTP/1.1 100 Continue\r\n\r\n"

func (u *upload) run(call *Call, b *backendConn) {
	defer close(u.done)
	defer func() {
		if fault := recover(); fault != nil {
			call.Conn.engine.tell(call, fault, debug.Stack())
			u.fail(b, fmt.Errorf("a panic: %v", fault))
		}
	}()
	c, cfg := call.Conn, &call.Conn.engine.cfg
	out := large.get()
	defer large.put(out)
	// RFC 9110 section 10.1.1: only who waits is told.
	if call.Request.Expect && call.bytesIn.Load() == 0 && u.tell() != nil {
		u.fail(b, errClientGone)
		return
	}
	if call.body.left > int64(smallBuffer) || call.body.inChunks {
		c.in.enlarge()
	}
	var waited time.Duration
	for !call.body.done {
		began := time.Now()
		var due time.Time
		if cfg.BodyRate > 0 {
			due = began.Add(cfg.BodyGrace + worth(call.bytesIn.Load(), cfg.BodyRate) - waited)
		}
		if !u.await(due) {
			return
		}
		n, err := c.conn.Read(c.in.room())
		waited += time.Since(began)
		c.in.w += n
		if n == 0 && err != nil {
			switch {
			case u.isStopped():
			case errors.Is(err, os.ErrDeadlineExceeded):
				u.fail(b, errTooSlow)
			case err == io.EOF:
				u.fail(b, fmt.Errorf("%w: %w", errBody, io.ErrUnexpectedEOF))
			default:
				u.fail(b, errClientGone)
			}
			return
		}
		if *out, err = call.moveBody((*out)[:0], &c.in); err != nil {
			u.fail(b, err)
			return
		}
		if b.write(*out) != nil {
			return // it may have answered already; if not, whoever waits for the answer finds out
		}
	}
	u.over.Store(time.Now().UnixNano())
}

func (u *upload) fail(b *backendConn, err error) {
	u.err = err
	b.conn.Close() // nobody waits for an answer any more
}

// await bounds the next read; false if there is to be none.
func (u *upload) await(due time.Time) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.stopped {
		_ = u.conn.conn.SetReadDeadline(due)
	}
	return !u.stopped
}

func (u *upload) tell() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.stopped || u.answered {
		return nil
	}
	return u.conn.write([]byte(goOn))
}

func (u *upload) answer() {
	u.mu.Lock()
	u.answered = true
	u.mu.Unlock()
}

func (u *upload) isStopped() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.stopped
}

// stop ends the upload, and waits for its end.
func (u *upload) stop() {
	if u.done == nil {
		return
	}
	select {
	case <-u.done:
		return
	default:
	}
	u.mu.Lock()
	u.stopped = true
	_ = u.conn.conn.SetReadDeadline(time.Now().Add(-time.Second))
	u.mu.Unlock()
	<-u.done
}

// worth is how long a client may keep us waiting, after its grace, for so many bytes of a body at the rate.
func worth(bytes int64, rate int) time.Duration {
	return time.Duration(float64(bytes) / float64(rate) * float64(time.Second))
}
