package proxyproto

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"net/netip"
)

// MaxLength is how many bytes a header of version 2 may have behind its first 16: addresses and values. The largest
// that proxies send in practice hold a certificate, which is not believed here.
const MaxLength = 4 << 10

var (
	errVersion  = errors.New("PROXY header: its version is not 2")
	errCommand  = errors.New("PROXY header of version 2: its command is neither LOCAL nor PROXY")
	errFamily   = errors.New("PROXY header of version 2: its family and protocol are none that are defined")
	errLength   = errors.New("PROXY header of version 2: more than 4096 bytes of addresses and values")
	errShort    = errors.New("PROXY header of version 2: it is shorter than its addresses")
	errValues   = errors.New("PROXY header of version 2: a value does not end where the header does")
	errChecksum = errors.New("PROXY header of version 2: its checksum is not that of its bytes")
)

// Commands of version 2.
const (
	local = 0x0 // of the proxy itself, as a check of health
	proxy = 0x1
)

// blocks are the sizes of the two addresses, with ports, by family and protocol.
var blocks = map[byte]int{
	0x00: 0,              // unknown, unspecified or unsupported
	0x11: 12,             // TCP over IPv4
	0x12: 12,             // UDP over IPv4, as of a client that speaks HTTP/3 to the proxy
	0x21: 36,             // TCP over IPv6
	0x22: 36,             // UDP over IPv6
	0x31: 216, 0x32: 216, // UNIX sockets
}

// prefix is how many bytes tell how many there are.
const prefix = len(signature) + 4

// readBinary reads a header of version 2 behind its signature.
func readBinary(r io.Reader) (netip.Addr, error) {
	head := make([]byte, prefix, prefix+64) // which most headers fit into
	copy(head, signature)
	if _, err := io.ReadFull(r, head[len(signature):]); err != nil {
		return netip.Addr{}, whole(err)
	}
	command := head[12]
	if command>>4 != 2 {
		return netip.Addr{}, errVersion
	}
	if command &= 0xf; command != local && command != proxy {
		return netip.Addr{}, errCommand
	}
	length := int(binary.BigEndian.Uint16(head[14:]))
	if length > MaxLength {
		return netip.Addr{}, errLength
	}
	header := append(head, make([]byte, length)...)
	if _, err := io.ReadFull(r, header[prefix:]); err != nil {
		return netip.Addr{}, whole(err)
	}
	if command == local { // whatever else it says is to be ignored
		return netip.Addr{}, nil
	}
	return parseBinary(header)
}

// parseBinary parses a header of version 2 and command PROXY, of the length that it states.
func parseBinary(header []byte) (netip.Addr, error) {
	size, ok := blocks[header[13]]
	block := header[prefix:]
	switch {
	case !ok:
		return netip.Addr{}, errFamily
	case len(block) < size:
		return netip.Addr{}, errShort
	}
	if err := checkValues(header, prefix+size); err != nil {
		return netip.Addr{}, err
	}
	switch size {
	case 12:
		return netip.AddrFrom4([4]byte(block)), nil
	case 36:
		return netip.AddrFrom16([16]byte(block)).Unmap(), nil
	}
	return netip.Addr{}, nil
}

const crc32c = 0x03 // the type of the checksum

// checkValues checks the form of the values that begin at an offset, and the checksum if there is one. No other value
// is looked at: what they say of TLS is the proxy's word, and a certificate in them would be nobody's proof.
func checkValues(header []byte, at int) error {
	for at < len(header) {
		value := at + 3
		if value > len(header) {
			return errValues
		}
		end := value + int(binary.BigEndian.Uint16(header[at+1:]))
		if end > len(header) {
			return errValues
		}
		if header[at] == crc32c && !sums(header, value, end) {
			return errChecksum
		}
		at = end
	}
	return nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sums reports whether header[value:end] is the checksum of the header, in which it counts as zeros.
func sums(header []byte, value, end int) bool {
	if end-value != crc32.Size {
		return false
	}
	var zeros [crc32.Size]byte
	sum := crc32.Update(0, castagnoli, header[:value])
	sum = crc32.Update(sum, castagnoli, zeros[:])
	sum = crc32.Update(sum, castagnoli, header[end:])
	return sum == binary.BigEndian.Uint32(header[value:])
}
