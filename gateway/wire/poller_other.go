//go:build !linux

package wire

import (
	"errors"
	"net"
	"syscall"
	"time"
)

// A Poller needs epoll.
type Poller struct{}

// An Event is what a Poller reports.
type Event struct{}

// Slot is 0.
func (*Event) Slot() uint32 { return 0 }

// Generation is 0.
func (*Event) Generation() uint32 { return 0 }

// Happened is 0.
func (*Event) Happened() Happened { return 0 }

// Happened is what was reported of a socket.
type Happened uint32

// Ended is false.
func (Happened) Ended() bool { return false }

// NewPoller returns an error.
func NewPoller() (*Poller, error) { return nil, errors.ErrUnsupported }

// Close does nothing, as do the other methods: there is no Poller.
func (*Poller) Close()                          {}
func (*Poller) Wake()                           {}
func (*Poller) Add(int, uint32, uint32) error   { return errors.ErrUnsupported }
func (*Poller) Remove(int)                      {}
func (*Poller) Wait(time.Duration, func() bool) {}
func (*Poller) Look(int) ([]Event, error)       { return nil, errors.ErrUnsupported }
func (*Poller) Woken() bool                     { return false }

// A Socket is a connection that a loop can detach; here there is none.
type Socket struct{}

// NewSocket returns c.
func NewSocket(c net.Conn) net.Conn { return c }

func socketOf(syscall.RawConn) *Socket { return nil }

func (*Socket) detach() (int, error) { return -1, errors.ErrUnsupported }
func (*Socket) attach()              {}
func (*Socket) release()             {}

func (*Socket) await(func(uintptr) bool) error { return errors.ErrUnsupported }

var errNothing = errors.New("it would have to wait")

func read(int, []byte) (int, error)  { return 0, errors.ErrUnsupported }
func write(int, []byte) (int, error) { return 0, errors.ErrUnsupported }
