//go:build !linux

package http1

import "errors"

// A loop needs epoll.
type loop struct{ ended chan struct{} }

func newLoop(*Engine) (*loop, error) { return nil, errors.ErrUnsupported }

func (*loop) put(*Conn) bool { return false }
func (*loop) close()         {}
