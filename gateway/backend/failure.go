package backend

import (
	"errors"
	"fmt"

	"sallyport/gateway/http1"
)

// Why a call came to no answer. A Trip's errors are one of these, by errors.Is; every other error means that no server
// could be reached, or that the one that was broke off before it had answered.
var (
	ErrLate       = errors.New("no answer in time")
	ErrBadAnswer  = errors.New("what the server sent is no answer")
	ErrClientGone = errors.New("the client has gone")
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
	errFields     = bad("a status or a header name that is none")
	errNoAnswer   = errors.New("the connection ended before an answer")
	errCut        = errors.New("the answer ended too early")
	errBodyLength = fmt.Errorf("%w: it is not as long as it is said to be", ErrBadBody)
)

// errUnreached is a server that nothing was sent to, so that another one may be asked.
type errUnreached struct{ error }

func (e *errUnreached) Unwrap() error { return e.error }

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
