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
	host := strings.TrimPrefix(name, "*.")
	if len(host) == 0 || len(host) > 253 {
		return "", errors.New("not a host name")
	}
	for label := range strings.SplitSeq(host, ".") {
		if len(label) == 0 || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return "", errors.New("not a host name")
		}
		for _, c := range []byte(label) {
			switch {
			case c == '*':
				return "", errors.New("a wildcard is a whole first label, like *.example.com")
			case c >= 0x80:
				return "", errors.New("write international names in their xn-- form")
			case c != '-' && c != '_' && (c < '0' || c > '9') && (c < 'a' || c > 'z'):
				return "", errors.New("not a host name")
			}
		}
	}
	return name, nil
}

// parseBindAddress reads a bindAddress element: an IP address. An IPv4-mapped IPv6 address becomes the IPv4 address.
func parseBindAddress(text string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Addr{}, errors.New("not an IP address; host names are not looked up")
	}
	if addr.Zone() != "" {
		return netip.Addr{}, errors.New("an address with a zone is not supported")
	}
	return addr.Unmap(), nil
}
