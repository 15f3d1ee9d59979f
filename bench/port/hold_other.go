//go:build !linux

package port

import (
	"errors"
	"net"
	"strconv"
)

// hold finds out that the port is free now.
func hold(number int) (*Held, error) {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(number)))
	if err != nil {
		return nil, err
	}
	at, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return nil, errors.Join(errors.New("not a TCP address"), l.Close())
	}
	return &Held{number: at.Port}, l.Close()
}
