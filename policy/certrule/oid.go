package certrule

import (
	"crypto/x509"
	"fmt"
	"net/netip"

	"sallyport/internal/printable"
)

// parseOID reads an object identifier as it is written, 1.3.6.1.4.1.99999.1, and returns it.
func parseOID(s string) (string, error) {
	if len(s) <= 128 {
		if oid, err := x509.ParseOID(s); err == nil && oid.String() == s {
			return s, nil
		}
	}
	return "", fmt.Errorf("%s is no object identifier, as in 1.3.6.1.4.1.99999.1", printable.Quote(s))
}

// dotted is the object identifier that an element of DER has as its content.
func dotted(content []byte) (string, bool) {
	var oid x509.OID
	if len(content) > 128 || oid.UnmarshalBinary(content) != nil {
		return "", false
	}
	return oid.String(), true
}

// parseAddress reads an address without a zone. ::ffff:10.0.0.1 is none: certificates have 10.0.0.1 for it.
func parseAddress(s string) (netip.Addr, error) {
	ip, err := netip.ParseAddr(s)
	if err != nil || ip.Zone() != "" || ip.Is4In6() {
		return netip.Addr{}, fmt.Errorf("%s is no address, as in 10.0.0.1 or 2001:db8::1", printable.Quote(s))
	}
	return ip, nil
}
