// Package port keeps TCP ports of 127.0.0.1 for servers that begin to listen later.
package port

import (
	"fmt"
	"net"
	"strconv"
)

// A Held is a port that nobody else is lent, and from which no connection is made, until it is closed. A server that sets
// SO_REUSEADDR, as servers do, can listen on it meanwhile, and again after it has ended. On systems other than Linux it
// was free when it was chosen, and that is all.
type Held struct {
	number int
	let    func() error // nil: nothing keeps it
}

// Hold keeps a port; 0 stands for any. A port that anybody has, or had a moment ago, is an error.
func Hold(number int) (*Held, error) {
	h, err := hold(number)
	if err != nil {
		return nil, fmt.Errorf("port %d: %w", number, err)
	}
	l, err := net.Listen("tcp", h.Address())
	if err == nil {
		return h, l.Close()
	}
	// Here a port is either held or listened on. It was free a moment ago.
	return &Held{number: h.number}, h.Close()
}

// Number is the port.
func (h *Held) Number() int { return h.number }

// Address is host:port.
func (h *Held) Address() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(h.number)) }

// Close gives the port up. Who listens on it goes on.
func (h *Held) Close() error {
	if h.let == nil {
		return nil
	}
	let := h.let
	h.let = nil
	return let()
}
