package http1

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// A Call is one call of a connection: a request and its answer. It is used again for other calls after it is finished.
type Call struct {
	Conn     *Conn
	Seen     time.Time // when its head came, and then its answer's, as far as the engine has looked at the clock
	ID       string    // by Config.AppendID
	Request  Request
	Problem  error // why no request could be read; Request is then of no use
	Response Response
	State    any // the handler's own, which stays with the Call from one use to the next

	// What Judge sets for a call that it forwards.
	Upstreams []*Upstream // tried in turn, from First on, until one can be reached
	First     int
	Timeout   time.Duration // for the head of the answer, from the end of the request on
	MaxBody   int64         // bytes of the request's body; 0: any number

	Upstream  *Upstream // the one that was asked
	Last      bool      // the answer ends the connection
	Status    int       // of the answer; 0 if there was none
	BytesOut  int64     // of the answer's body
	bytesIn   atomic.Int64
	body      requestBody
	up        upload
	chunks    Chunked // of the answer
	size      int     // of the request's head
	rest      answerBody
	head      []byte        // memory for heads; while Response is of use, its text
	waited    time.Duration // for the client to take it
	interim   int           // heads that the backend has sent
	left      bool          // it went elsewhere
	answering bool          // something of the backend's answer was sent

	breaking sync.Mutex   // of what follows
	backend  *backendConn // that carries the call now
	broken   bool         // Break was called
}

// BytesIn is how many bytes of the request's body have come.
func (c *Call) BytesIn() int64 { return c.bytesIn.Load() }

// lastWrite is how long a client may take for what it is still sent when its call is broken off.
const lastWrite = time.Second

// Break breaks both sides of the call off. It may be called from any goroutine until Finish has returned.
func (c *Call) Break() {
	c.breaking.Lock()
	c.broken = true
	if c.backend != nil {
		c.backend.conn.Close()
	}
	c.breaking.Unlock()
	_ = c.Conn.conn.SetWriteDeadline(time.Now().Add(lastWrite))
}

// carriedBy tells Break what to break.
func (c *Call) carriedBy(b *backendConn) {
	c.breaking.Lock()
	defer c.breaking.Unlock()
	c.backend = b
	if c.broken {
		b.conn.Close()
	}
}

// letGo takes the backend's connection out of Break's reach, so that it can carry other calls; false if it was broken off.
func (c *Call) letGo() bool {
	c.breaking.Lock()
	defer c.breaking.Unlock()
	c.backend = nil
	return !c.broken
}

// A Verdict is what becomes of a call. Its zero value refuses.
type Verdict uint8

const (
	Refuse    Verdict = iota // AppendRefusal has the answer
	Wait                     // what Judge needs is not in memory: Wait, and Judge again
	Forward                  // to one of Upstreams
	Elsewhere                // the engine cannot carry it: the connection goes to another one, as if nothing had been read
)

// A Fault is how a call failed that was to be forwarded. Its zero value is a fault of ours.
type Fault uint8

const (
	Internal    Fault = iota
	Unreachable       // no upstream could be reached, or it broke off before it had answered
	BadAnswer         // what came from the upstream is no answer
	Late              // the upstream has not answered in time
	ClientGone        // nobody is there to be answered
	BadBody           // the request's body is malformed, or ended too early
	TooLarge          // it is larger than MaxBody
	TooSlow           // it came too slowly
	BrokenOff         // the answer had begun, and will never be whole
)

// A Handler judges calls, writes their heads and observes them. For each call it is called by one goroutine at a time.
type Handler interface {
	// Judge says what becomes of the call, whose head has been read, or has not: see Problem. It waits for nothing.
	Judge(c *Call) Verdict
	// Wait waits for what Judge needs. It ends with ctx at the latest.
	Wait(ctx context.Context, c *Call)
	// AppendRequest appends the head for c.Upstream, without the fields that frame the message and the empty line.
	AppendRequest(b []byte, c *Call) []byte
	// AppendResponse does so for the client with c.Response, final or interim. An error means BadAnswer.
	AppendResponse(b []byte, c *Call) ([]byte, error)
	// KeepTrailer tells whether a trailer field may go on: to the backend, or to the client. It may be called beside the
	// other methods, and changes nothing.
	KeepTrailer(c *Call, name string, toBackend bool) bool
	// Stream is told once that a body goes on beyond what has come at once: the request's if it has no known length, or
	// the answer's. The handler may Break the call from then on.
	Stream(c *Call)
	// Failed is told how the call failed, and why. After BrokenOff and ClientGone nobody is answered.
	Failed(c *Call, f Fault, cause error)
	// AppendRefusal appends the whole answer of a call that was refused or has failed, and sets c.Status and c.BytesOut.
	AppendRefusal(b []byte, c *Call) []byte
	// Finish is called once at the end of each call that Judge has seen, unless it went elsewhere, after its last byte.
	Finish(c *Call)
	// Left is called instead of Finish if it went elsewhere.
	Left(c *Call)
	// Panicked is told of a panic in what the handler or the engine does for the call, with the stack.
	Panicked(c *Call, value any, stack []byte)
}
