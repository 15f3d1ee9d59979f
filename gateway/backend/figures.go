package backend

import (
	"cmp"
	"crypto/tls"
	"errors"
	"net"
	"slices"
	"sync/atomic"
	"time"
)

// A Failure is what went wrong when a server was asked. What the client did, or a stop, is none of the server's.
type Failure uint8

const (
	Unreachable    Failure = iota // there is no connection to be had
	HandshakeFault                // no agreement on TLS
	Late                          // no answer within upstream.timeout
	Idle                          // nothing has passed for upstream.streamIdleTimeout
	NoAnswer                      // the connection ended before an answer; perhaps the call was sent again
	CutOff                        // an answer that has begun came to no end
	BadAnswer                     // what it sent is no answer
	failures
)

var failureWords = [failures]string{"unreachable", "handshake", "late", "idle", "no_answer", "cut_off", "bad_answer"}

// String is the failure's word in metrics.
func (f Failure) String() string { return failureWords[f] }

// FirstByteBounds are the upper bounds of Figures.Waits.
var FirstByteBounds = [...]time.Duration{
	time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond,
	50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond, time.Second,
	2500 * time.Millisecond, 5 * time.Second, 10 * time.Second, 30 * time.Second, time.Minute,
}

// Figures are what is known of the calls to a server by now, retries included.
type Figures struct {
	Server   string // its Name
	Answers  [6]uint64
	Failures [failures]uint64
	Waits    [len(FirstByteBounds) + 1]uint64 // answers by the time until their head, the last beyond all bounds
	Waited   time.Duration                    // for all of these together
}

// figures count what Figures tells. All servers of a name share them, whatever is spoken or shown to them, so that they
// outlive another certificate. Nothing is locked to count.
type figures struct {
	answers  [6]atomic.Uint64 // by class of status; 0: none came
	failures [failures]atomic.Uint64
	waits    [len(FirstByteBounds) + 1]atomic.Uint64
	waited   atomic.Int64
}

// answered counts an answer whose head came after that time.
func (f *figures) answered(status int, after time.Duration) {
	class := status / 100
	if class < 1 || class >= len(f.answers) {
		class = 0
	}
	f.answers[class].Add(1)
	bucket := 0
	for bucket < len(FirstByteBounds) && after > FirstByteBounds[bucket] {
		bucket++
	}
	f.waits[bucket].Add(1)
	f.waited.Add(int64(after))
}

// failed counts a failure, if the error is one of the server's.
func (f *figures) failed(cause error, answered bool) {
	for _, foreign := range []error{ErrClientGone, ErrBadBody, ErrTooLarge, ErrTooSlow, ErrBroken} {
		if errors.Is(cause, foreign) {
			return
		}
	}
	kind := NoAnswer
	var network *net.OpError
	switch {
	case errors.As(cause, new(*errUnreached)):
		kind = Unreachable
	case errors.As(cause, new(*errHandshake)), errors.As(cause, new(*tls.CertificateVerificationError)),
		errors.As(cause, &network) && network.Op == "remote error", errors.As(cause, new(tls.RecordHeaderError)): // of net/http's client
		kind = HandshakeFault
	case errors.Is(cause, ErrIdle):
		kind = Idle
	case errors.Is(cause, ErrLate):
		kind = Late
	case errors.Is(cause, ErrBadAnswer):
		kind = BadAnswer
	case answered:
		kind = CutOff
	}
	f.failures[kind].Add(1)
}

func (f *figures) read(name string) Figures {
	now := Figures{Server: name, Waited: time.Duration(f.waited.Load())}
	for i := range f.answers {
		now.Answers[i] = f.answers[i].Load()
	}
	for i := range f.failures {
		now.Failures[i] = f.failures[i].Load()
	}
	for i := range f.waits {
		now.Waits[i] = f.waits[i].Load()
	}
	return now
}

// MaxFigures is how many names of servers are counted each for itself. What comes on top is counted together, without a
// name.
const MaxFigures = 1000

// Figures tells of all servers that an API has, sorted by name.
func (r *Registry) Figures() (list []Figures) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if none := (Figures{}); r.others.read("") != none {
		list = append(list, r.others.read(""))
	}
	for name, f := range r.figures {
		list = append(list, f.read(name))
	}
	slices.SortFunc(list, func(a, b Figures) int { return cmp.Compare(a.Server, b.Server) })
	return list
}

// try begins to ask the Server. A try that was under way has come to no answer.
func (t *Trip) try() {
	now := t.Began
	if t.trying {
		t.asked.answers[0].Add(1)
		t.asked.failed(t.cause, false)
		now = time.Now()
	}
	t.trying, t.asked, t.since, t.cause = true, t.Server.figures.Load(), now, nil
	t.Tries++
}

// count counts the last try, at the end of the call.
func (t *Trip) count() {
	if !t.trying {
		return
	}
	answered := !t.Came.IsZero()
	if answered {
		t.asked.answered(t.Response.Status, max(t.Came.Sub(t.since), 0))
	} else {
		t.asked.answers[0].Add(1)
	}
	if t.cause != nil {
		t.asked.failed(t.cause, answered)
	}
	t.trying, t.asked, t.cause = false, nil, nil
}
