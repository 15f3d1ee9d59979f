package listenerprofiles

import (
	"errors"
	"net/netip"
	"strings"
)

// NormalizeName makes a TLS server name, or the authority of a request, comparable: lower case in ASCII, without port,
// without brackets around an IPv6 address, and without one trailing dot. It does not allocate when host is normal
// already.
func NormalizeName(host string) string {
	if rest, ok := strings.CutPrefix(host, "["); ok {
		if address, after, ok := strings.Cut(rest, "]"); ok && (after == "" || after[0] == ':') {
			return lower(address)
		}
		return lower(host)
	}
	if name, port, ok := strings.Cut(host, ":"); ok && !strings.Contains(port, ":") {
		host = name
	}
	return lower(strings.TrimSuffix(host, "."))
}

// lower is ASCII only: a letter like the Kelvin sign must not become a k.
func lower(s string) string {
	for i := range len(s) {
		if 'A' <= s[i] && s[i] <= 'Z' {
			b := []byte(s)
			for ; i < len(b); i++ {
				if 'A' <= b[i] && b[i] <= 'Z' {
					b[i] += 'a' - 'A'
				}
			}
			return string(b)
		}
	}
	return s
}

// parseServerName reads a ServerName element: a host name in ASCII, or "*." and one.
func parseServerName(text string) (string, error) {
	name := lower(strings.TrimSuffix(text, "."))
	if _, err := netip.ParseAddr(strings.Trim(name, "[]")); err == nil {
		return "", errors.New("clients send no IP address as server name; use bindAddress")
	}
	if err := checkHostName(strings.TrimPrefix(name, "*.")); err != nil {
		return "", err
	}
	return name, nil
}

// checkHostName accepts a host name in ASCII and lower case, without trailing dot.
func checkHostName(host string) error {
	if len(host) == 0 || len(host) > 253 {
		return errors.New("not a host name")
	}
	for label := range strings.SplitSeq(host, ".") {
		if len(label) == 0 || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return errors.New("not a host name")
		}
		for _, c := range []byte(label) {
			switch {
			case c == '*':
				return errors.New("a wildcard is a whole first label, like *.example.com")
			case c >= 0x80:
				return errors.New("write international names in their xn-- form")
			case c != '-' && c != '_' && (c < '0' || c > '9') && (c < 'a' || c > 'z'):
				return errors.New("not a host name")
			}
		}
	}
	return nil
}

// A bind is what a bindAddress element says: an IP address or a host name.
type bind struct {
	addr netip.Addr
	host string // lower case, without trailing dot
}

// parseBindAddress reads a bindAddress element. An IPv4-mapped IPv6 address becomes the IPv4 address.
func parseBindAddress(text string) (bind, error) {
	if addr, err := netip.ParseAddr(text); err == nil {
		if addr.Zone() != "" {
			return bind{}, errors.New("an address with a zone is not supported")
		}
		return bind{addr: addr.Unmap()}, nil
	}
	host := lower(strings.TrimSuffix(text, "."))
	last := host[strings.LastIndexByte(host, '.')+1:]
	if checkHostName(host) != nil || strings.Trim(last, "0123456789") == "" { // else 010.0.0.1 would be a name
		return bind{}, errors.New("neither an IP address nor a host name; the port is the listener's")
	}
	return bind{host: host}, nil
}
