// Package proxyproto reads the header of the PROXY protocol, versions 1 and 2, with which a proxy begins a connection
// to say whose it is.
//
// https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt, below "the specification".
package proxyproto

import (
	"bytes"
	"errors"
	"io"
	"net/netip"
)

// errNone is a connection that begins with something else than a header.
var errNone = errors.New("the connection does not begin with a PROXY header")

// signature begins a header of version 2.
const signature = "\r\n\r\n\x00\r\nQUIT\n"

// Read reads one header and not a byte more. It returns the client's address, or none if the header names none: of a
// connection of the proxy's own (LOCAL), of an unknown protocol, or of a UNIX socket. The socket's address holds then.
//
// It is io.EOF, and nothing else, if r ends before its first byte. Memory is bounded by MaxLength.
func Read(r io.Reader) (client netip.Addr, err error) {
	var space [maxLine]byte // the longest that is read before its length is known
	begin := space[:len(signature)]
	if _, err := io.ReadFull(r, begin); err != nil { // no header is shorter
		return netip.Addr{}, err
	}
	switch {
	case string(begin) == signature:
		return readBinary(r)
	case bytes.HasPrefix(begin, []byte("PROXY ")):
		return readLine(r, space[:], len(begin))
	}
	return netip.Addr{}, errNone
}

// whole is the error of a header that ends in its middle.
func whole(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
