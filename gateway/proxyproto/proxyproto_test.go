package proxyproto_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/iotest"

	pires "github.com/pires/go-proxyproto"

	"sallyport/gateway/proxyproto"
)

const signature = "\r\n\r\n\x00\r\nQUIT\n"

// header is a header of version 2 with its length.
func header(command, family byte, block ...byte) string {
	b := append([]byte(signature), command, family)
	return string(append(binary.BigEndian.AppendUint16(b, uint16(len(block))), block...))
}

func value(kind byte, text string) []byte {
	return append(binary.BigEndian.AppendUint16([]byte{kind}, uint16(len(text))), text...)
}

// summed is a header whose checksum, after all else, is right.
func summed(command, family byte, block ...byte) string {
	whole := []byte(header(command, family, append(block, value(3, "\x00\x00\x00\x00")...)...))
	sum := crc32.Checksum(whole, crc32.MakeTable(crc32.Castagnoli))
	return string(binary.BigEndian.AppendUint32(whole[:len(whole)-4], sum))
}

var (
	ipv4 = []byte{203, 0, 113, 7, 10, 0, 0, 1, 0x30, 0x39, 0x20, 0x33}
	ipv6 = append(append(netip.MustParseAddr("2001:db8::7").AsSlice(), netip.MustParseAddr("2001:db8::1").AsSlice()...), 0x30, 0x39, 0x20, 0x33)
	unix = make([]byte, 216)
	tls  = value(0x20, "\x07\x00\x00\x00\x00\x22\x00\x04gold") // a client that was verified, of that name
)

func with(block []byte, more ...[]byte) []byte {
	return bytes.Join(append([][]byte{block}, more...), nil)
}

// headers are good ones, and the client's address; "" for none.
var headers = []struct{ name, text, client string }{
	{"1, IPv4", "PROXY TCP4 203.0.113.7 10.0.0.1 12345 8243\r\n", "203.0.113.7"},
	{"1, IPv4, the shortest", "PROXY TCP4 1.1.1.1 1.1.1.1 0 0\r\n", "1.1.1.1"},
	{"1, IPv6", "PROXY TCP6 2001:db8::7 2001:DB8::1 65535 1\r\n", "2001:db8::7"},
	{"1, IPv6, the shortest", "PROXY TCP6 :: :: 1 1\r\n", "::"},
	{"1, IPv4 as IPv6", "PROXY TCP6 ::ffff:203.0.113.7 ::ffff:10.0.0.1 1 1\r\n", "203.0.113.7"},
	{"1, unknown", "PROXY UNKNOWN\r\n", ""},
	{"1, unknown with addresses", "PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n", ""},
	{"2, IPv4", header(0x21, 0x11, ipv4...), "203.0.113.7"},
	{"2, IPv6", header(0x21, 0x21, ipv6...), "2001:db8::7"},
	{"2, IPv4 as IPv6", header(0x21, 0x21, with(netip.MustParseAddr("::ffff:203.0.113.7").AsSlice(), ipv6[16:])...), "203.0.113.7"},
	{"2, UDP over IPv4", header(0x21, 0x12, ipv4...), "203.0.113.7"},
	{"2, UDP over IPv6", header(0x21, 0x22, ipv6...), "2001:db8::7"},
	{"2, UNIX stream", header(0x21, 0x31, unix...), ""},
	{"2, UNIX datagram", header(0x21, 0x32, unix...), ""},
	{"2, unspecified", header(0x21, 0x00), ""},
	{"2, unspecified with values", header(0x21, 0x00, value(4, "pad")...), ""},
	{"2, local", header(0x20, 0x00), ""},
	{"2, local with addresses", header(0x20, 0x11, ipv4...), ""},
	{"2, local with something", header(0x20, 0x7f, 1, 2, 3), ""},
	{"2, values", header(0x21, 0x11, with(ipv4, value(1, "h2"), value(2, "api.example.com"), value(4, ""), value(0xea, "vpce-1"))...), "203.0.113.7"},
	{"2, TLS", header(0x21, 0x11, with(ipv4, tls)...), "203.0.113.7"},
	{"2, a checksum", summed(0x21, 0x21, with(ipv6, value(4, "pad"))...), "2001:db8::7"},
	{"2, the longest", header(0x21, 0x11, with(ipv4, value(4, strings.Repeat("x", proxyproto.MaxLength-15)))...), "203.0.113.7"},
}

// broken are none.
var broken = []struct{ name, text, problem string }{
	{"HTTP", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "does not begin"},
	{"TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x00", "does not begin"},
	{"small letters", "proxy TCP4 1.1.1.1 1.1.1.1 1 1\r\n", "does not begin"},
	{"PROXYTCP4", "PROXYTCP4 1.1.1.1 1.1.1.1 1 1\r\n", "does not begin"},
	{"1, no end", "PROXY UNKNOWN " + strings.Repeat("x", 200), "no end within 107"},
	{"1, 108 bytes", "PROXY UNKNOWN " + strings.Repeat("x", 108-14-2) + "\r\n", "no end within 107"},
	{"1, LF alone", "PROXY TCP4 1.1.1.1 1.1.1.1 1 1\n", "CR and LF"},
	{"1, unknown with LF alone", "PROXY UNKNOWN 1.1.1.1\n\r\n", "CR and LF"},
	{"1, another protocol", "PROXY UDP4 1.1.1.1 1.1.1.1 1 1\r\n", "its protocol"},
	{"1, protocol in small letters", "PROXY tcp4 1.1.1.1 1.1.1.1 1 1\r\n", "its protocol"},
	{"1, UNKNOWNS", "PROXY UNKNOWNS\r\n", "its protocol"},
	{"1, two spaces", "PROXY  TCP4 1.1.1.1 1.1.1.1 1 1\r\n", "its protocol"},
	{"1, two spaces later", "PROXY TCP4 1.1.1.1  1.1.1.1 1 1\r\n", "not PROXY, a protocol"},
	{"1, a space at the end", "PROXY TCP4 1.1.1.1 1.1.1.1 1 1 \r\n", "not PROXY, a protocol"},
	{"1, one port", "PROXY TCP4 1.1.1.1 1.1.1.1 1\r\n", "not PROXY, a protocol"},
	{"1, no addresses", "PROXY TCP4\r\n", "not PROXY, a protocol"},
	{"1, leading zero", "PROXY TCP4 1.1.1.01 1.1.1.1 1 1\r\n", "an address"},
	{"1, three numbers", "PROXY TCP4 1.1.1 1.1.1.1 1 1\r\n", "an address"},
	{"1, IPv6 as IPv4", "PROXY TCP4 ::1 ::1 1 1\r\n", "an address"},
	{"1, mapped as IPv4", "PROXY TCP4 ::ffff:1.1.1.1 1.1.1.1 1 1\r\n", "an address"},
	{"1, IPv4 as IPv6", "PROXY TCP6 1.1.1.1 ::1 1 1\r\n", "an address"},
	{"1, the other address", "PROXY TCP4 1.1.1.1 ::1 1 1\r\n", "an address"},
	{"1, a zone", "PROXY TCP6 fe80::1%eth0 ::1 1 1\r\n", "an address"},
	{"1, port 65536", "PROXY TCP4 1.1.1.1 1.1.1.1 65536 1\r\n", "a port"},
	{"1, port 080", "PROXY TCP4 1.1.1.1 1.1.1.1 080 1\r\n", "a port"},
	{"1, port -1", "PROXY TCP4 1.1.1.1 1.1.1.1 1 -1\r\n", "a port"},
	{"1, port +1", "PROXY TCP4 1.1.1.1 1.1.1.1 1 +1\r\n", "a port"},
	{"1, port 0x1", "PROXY TCP4 1.1.1.1 1.1.1.1 1 0x1\r\n", "a port"},
	{"1, no port", "PROXY TCP4 1.1.1.1 1.1.1.1 1 \r\n", "a port"},
	{"2, version 1", header(0x11, 0x11, ipv4...), "its version"},
	{"2, version 3", header(0x31, 0x11, ipv4...), "its version"},
	{"2, command 2", header(0x22, 0x11, ipv4...), "its command"},
	{"2, protocol 3", header(0x21, 0x13, ipv4...), "family and protocol"},
	{"2, IPv4 without a protocol", header(0x21, 0x10, ipv4...), "family and protocol"},
	{"2, family 4", header(0x21, 0x41, ipv6...), "family and protocol"},
	{"2, a short address", header(0x21, 0x11, ipv4[:11]...), "shorter"},
	{"2, a short address of IPv6", header(0x21, 0x21, ipv4...), "shorter"},
	{"2, a short UNIX address", header(0x21, 0x31, unix[:215]...), "shorter"},
	{"2, half a value's head", header(0x21, 0x11, with(ipv4, []byte{4, 0})...), "a value"},
	{"2, half a value", header(0x21, 0x11, with(ipv4, []byte{4, 0, 3, 'x'})...), "a value"},
	{"2, a value of 64 KiB", header(0x21, 0x11, with(ipv4, []byte{4, 0xff, 0xff, 'x'})...), "a value"},
	{"2, 64 KiB of values", header(0x21, 0x11, with(ipv4, value(4, strings.Repeat("x", 65535-15)))...), "more than 4096"},
	{"2, 64 KiB locally", header(0x20, 0x00, make([]byte, 65535)...), "more than 4096"},
	{"2, one byte too many", header(0x21, 0x11, with(ipv4, value(4, strings.Repeat("x", proxyproto.MaxLength-14)))...), "more than 4096"},
	{"2, a wrong checksum", header(0x21, 0x11, with(ipv4, value(3, "\x00\x00\x00\x01"))...), "checksum"},
	{"2, a short checksum", header(0x21, 0x11, with(ipv4, value(3, "\x00"))...), "checksum"},
	{"2, changed under its checksum", strings.Replace(summed(0x21, 0x11, ipv4...), "\xcb\x00\x71\x07", "\xcb\x00\x71\x08", 1), "checksum"},
}

// TestHeaders: each kind of header tells the client's address, and not a byte behind it is read, however it arrives.
func TestHeaders(t *testing.T) {
	for _, h := range headers {
		for way, slowed := range map[string]func(io.Reader) io.Reader{
			"at once": func(r io.Reader) io.Reader { return r }, "byte by byte": iotest.OneByteReader, "its end with it": iotest.DataErrReader,
		} {
			rest := strings.NewReader(h.text + "GET / HTTP/1.1\r\n")
			client, err := proxyproto.Read(slowed(rest))
			if want, _ := netip.ParseAddr(h.client); err != nil || client != want {
				t.Errorf("%s, %s: %v, %v, want %v", h.name, way, client, err, want)
			}
			if left, _ := io.ReadAll(rest); way != "its end with it" && string(left) != "GET / HTTP/1.1\r\n" {
				t.Errorf("%s, %s: %q is left", h.name, way, left)
			}
		}
	}
}

// TestHalfAHeader: what ends before its header does has none, wherever that is.
func TestHalfAHeader(t *testing.T) {
	for _, h := range headers {
		for n := range len(h.text) {
			want := io.ErrUnexpectedEOF
			if n == 0 {
				want = io.EOF
			}
			if _, err := proxyproto.Read(strings.NewReader(h.text[:n])); err != want {
				t.Fatalf("%s, %d of %d bytes: %v, want %v", h.name, n, len(h.text), err, want)
			}
		}
	}
	gone := errors.New("gone")
	if _, err := proxyproto.Read(io.MultiReader(strings.NewReader(headers[0].text[:20]), iotest.ErrReader(gone))); err != gone {
		t.Errorf("a connection that breaks: %v", err)
	}
}

// TestBrokenHeaders: no header that is odd is taken for one, and none is read beyond what it may have.
func TestBrokenHeaders(t *testing.T) {
	for _, b := range broken {
		rest := strings.NewReader(b.text)
		client, err := proxyproto.Read(rest)
		if err == nil || client.IsValid() || !strings.Contains(err.Error(), b.problem) {
			t.Errorf("%s: %v, %v, want %q", b.name, client, err, b.problem)
		}
		if took := len(b.text) - rest.Len(); took > 16+proxyproto.MaxLength {
			t.Errorf("%s: %d bytes were read", b.name, took)
		}
	}
}

// FuzzRead: whatever comes, what is taken is a header by the other implementation, too, with the same address and the
// same end, and what is refused is none. They differ in four points, each of which is checked: a header of version 2 for
// an unspecified protocol, and a local one of an undefined one, are good by the specification, and refused there; values
// that don't fit and checksums are not looked at there.
func FuzzRead(f *testing.F) {
	for _, h := range headers {
		f.Add([]byte(h.text + "GET /"))
	}
	for _, b := range broken {
		f.Add([]byte(b.text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		rest := bytes.NewReader(data)
		client, err := proxyproto.Read(rest)
		took := len(data) - rest.Len()
		if took > 16+proxyproto.MaxLength || client.Is4In6() || client.Zone() != "" || err != nil && client.IsValid() {
			t.Fatalf("%v, %v after %d bytes", client, err, took)
		}
		below := bytes.NewReader(data)
		buffered := bufio.NewReaderSize(below, 128<<10)
		other, otherErr := pires.Read(buffered)
		switch {
		case err == nil && otherErr == nil:
			if want := addressOf(other); client != want {
				t.Fatalf("%v, and there %v", client, want)
			}
			if there := len(data) - below.Len() - buffered.Buffered(); took != there {
				t.Fatalf("%d bytes, and there %d", took, there)
			}
		case err == nil:
			unspecified := data[13] == 0 && data[12] == 0x21
			if bytes.HasPrefix(data, []byte(signature)) && (unspecified || data[12] == 0x20) && !client.IsValid() {
				return
			}
			t.Fatalf("%v, and there %v", client, otherErr)
		case otherErr == nil:
			if _, bad := other.TLVs(); bad != nil || strings.Contains(err.Error(), "checksum") {
				return
			}
			t.Fatalf("%v, and there %v", err, other)
		}
	})
}

// addressOf is the client's address by the other implementation.
func addressOf(h *pires.Header) netip.Addr {
	if h.Command.IsLocal() {
		return netip.Addr{}
	}
	switch a := h.SourceAddr.(type) {
	case *net.TCPAddr:
		return a.AddrPort().Addr().Unmap()
	case *net.UDPAddr:
		return a.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}
