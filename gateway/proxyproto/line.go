package proxyproto

import (
	"errors"
	"io"
	"net/netip"
	"strconv"
	"strings"
)

// maxLine is how long a header of version 1 may be, with its end (the specification, section 2.1).
const maxLine = 107

var (
	errLong     = errors.New("PROXY header of version 1: its line has no end within 107 bytes")
	errEnd      = errors.New("PROXY header of version 1: its line does not end with CR and LF")
	errFields   = errors.New("PROXY header of version 1: not PROXY, a protocol, two addresses and two ports, a space between each")
	errProtocol = errors.New("PROXY header of version 1: its protocol is none of TCP4, TCP6 and UNKNOWN")
	errAddress  = errors.New("PROXY header of version 1: an address is not one of its protocol")
	errPort     = errors.New("PROXY header of version 1: a port is no plain number up to 65535")
)

// readLine reads the rest of a header of version 1, of which n bytes are in the line. It goes byte by byte: how much
// there is still to come is not known, and what follows is not ours.
func readLine(r io.Reader, line []byte, n int) (netip.Addr, error) {
	for line[n-1] != '\n' {
		if n == len(line) {
			return netip.Addr{}, errLong
		}
		if _, err := io.ReadFull(r, line[n:n+1]); err != nil {
			return netip.Addr{}, whole(err)
		}
		n++
	}
	return parseLine(string(line[:n]))
}

// parseLine parses a header of version 1.
func parseLine(line string) (netip.Addr, error) {
	line, ok := strings.CutSuffix(line, "\r\n")
	if !ok {
		return netip.Addr{}, errEnd
	}
	fields := strings.Split(line, " ")
	if len(fields) < 2 || fields[0] != "PROXY" {
		return netip.Addr{}, errFields
	}
	var ofProtocol func(netip.Addr) bool
	switch fields[1] {
	case "UNKNOWN": // whatever follows is to be ignored
		return netip.Addr{}, nil
	case "TCP4":
		ofProtocol = netip.Addr.Is4
	case "TCP6":
		ofProtocol = netip.Addr.Is6
	default:
		return netip.Addr{}, errProtocol
	}
	if len(fields) != 6 {
		return netip.Addr{}, errFields
	}
	for _, text := range fields[4:] {
		if !isPort(text) {
			return netip.Addr{}, errPort
		}
	}
	var both [2]netip.Addr // the client's, and the one that it has called
	for i, text := range fields[2:4] {
		a, err := netip.ParseAddr(text)
		if err != nil || a.Zone() != "" || !ofProtocol(a) {
			return netip.Addr{}, errAddress
		}
		both[i] = a
	}
	return both[0].Unmap(), nil
}

// isPort reports whether s is a port as the only way to write it has it.
func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && strconv.FormatUint(n, 10) == s
}
