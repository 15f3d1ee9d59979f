package backend

import (
	"errors"
	"fmt"
	"strings"

	"sallyport/gateway/http1"
)

// Why a call came to no answer. A Trip's errors are one of these, by errors.Is; every other error means that no server
// could be reached, or that the one that was broke off before it had answered.
var (
	ErrLate       = errors.New("no answer in time")
	ErrConnect    = errors.New("no connection within upstream.connectTimeout")
	ErrIdle       = fmt.Errorf("%w: nothing has passed for upstream.streamIdleTimeout", ErrLate)
	ErrBadAnswer  = errors.New("what the server sent is no answer")
	ErrClientGone = errors.New("the client has gone")
	ErrNotTaken   = fmt.Errorf("%w: it takes less than bodyRate asks for", ErrClientGone)
	ErrBadBody    = errors.New("the request's body could not be had whole")
	ErrTooLarge   = errors.New("the body is larger than it may be")
	ErrTooSlow    = errors.New("the body came too slowly")
	ErrBroken     = errors.New("the call was broken off")
)

// A badAnswer is an ErrBadAnswer, and what is bad about it.
type badAnswer struct{ cause error }

func (e *badAnswer) Error() string        { return e.cause.Error() }
func (e *badAnswer) Unwrap() error        { return e.cause }
func (e *badAnswer) Is(target error) bool { return target == ErrBadAnswer }

func bad(text string) error { return &badAnswer{errors.New(text)} }

var (
	errHead       = bad("the head of the answer is too long")
	errSwitched   = bad("another protocol than the one that was asked for")
	errInterim    = bad("too many interim answers")
	errTrailer    = bad("a trailer is announced that frames the message")
	errTrailers   = bad("too many trailers are announced")
	errFields     = bad("a status or a header name that is none")
	errLength     = bad("Content-Length is no plain number, or there is more than one")
	errRefused    = errors.New("the server refused the call")
	errNoAnswer   = errors.New("the connection ended before an answer")
	errCut        = errors.New("the answer ended too early")
	errBodyLength = fmt.Errorf("%w: it is not as long as it is said to be", ErrBadBody)
)

// errUnreached is a server that nothing was sent to, so that another one may be asked.
type errUnreached struct{ error }

func (e *errUnreached) Unwrap() error { return e.error }

// errHandshake is a server that nothing was agreed on with, so that no call was sent.
type errHandshake struct{ error }

func (e *errHandshake) Unwrap() error { return e.error }

// A streamError is how net/http's client says why a stream ended: errors.As fills in any struct with these fields.
type streamError struct {
	StreamID uint32
	Code     uint32
	Cause    error
}

func (e streamError) Error() string { return e.Cause.Error() }

// malformed reports whether net/http's client has refused an answer over HTTP/2, for which it ends the stream, or the
// whole connection, by itself. It has no errors for that which could be compared.
func malformed(err error) bool {
	var e streamError
	if errors.As(err, &e) {
		return e.Cause == nil || e.Cause.Error() != "received from peer"
	}
	return strings.HasPrefix(err.Error(), "connection error: ")
}

// asBadAnswer marks what http1 says of a malformed answer.
func asBadAnswer(err error) error {
	if err == nil {
		return nil // most often, and then errors.As would cost an allocation
	}
	var malformed *http1.Error
	if errors.As(err, &malformed) {
		return &badAnswer{err}
	}
	return err
}
